//! Authentication and authorization. The API server decides both, by TokenReview and SubjectAccessReview; results are
//! cached for seconds.

use governor::DefaultKeyedRateLimiter;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tonic::{Code, Status};

use crate::gateway::config::Config;
use crate::gateway::edge::caller::{Caller, Permission, SERVICE_ACCOUNT_PREFIX};
use crate::gateway::edge::credentials::{Credentials, digest, file_name, service_account, time_left};
use crate::gateway::error::{rate_limited, reason, retry, status, with_metadata};
use crate::kube::{ApiClient, TtlCache};

/// Longest time for which a valid token is cached: a deleted ServiceAccount keeps its access that long.
const VALID_TOKEN_TTL: Duration = Duration::from_secs(60);
/// Time for which refused credentials and API keys are cached.
const SHORT_TTL: Duration = Duration::from_secs(5);
/// Time for which a granted permission is cached, and a denied one: somebody may be about to grant it.
const ALLOWED_TTL: Duration = Duration::from_secs(10);
const DENIED_TTL: Duration = Duration::from_secs(3);
/// Largest number of cached credentials, and of cached permissions.
const CAPACITY: usize = 10_000;
/// Credentials per address that are not cached. Each costs a TokenReview before the caller is authenticated.
const REVIEWS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
const REVIEWS_BURST: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// Checks credentials and permissions with the API server.
pub struct Identity {
    api: ApiClient,
    audience: String,
    api_keys: Option<PathBuf>,
    namespaces: Vec<String>,
    callers: TtlCache<[u8; 32], Option<Caller>>,
    permissions: TtlCache<(Caller, Permission), bool>,
    reviews_by_address: DefaultKeyedRateLimiter<IpAddr>,
}

impl Identity {
    /// Checks by the rules of `config`.
    pub fn new(api: ApiClient, config: &Config) -> Identity {
        Identity {
            api,
            audience: config.authentication.audience.clone(),
            api_keys: config.authentication.api_keys.clone(),
            namespaces: config.watch_namespaces.clone(),
            callers: TtlCache::new(CAPACITY),
            permissions: TtlCache::new(CAPACITY),
            reviews_by_address: DefaultKeyedRateLimiter::keyed(
                governor::Quota::per_second(REVIEWS_PER_SECOND).allow_burst(REVIEWS_BURST),
            ),
        }
    }

    /// Authenticates the caller by the headers of a request from `peer`.
    ///
    /// # Errors
    /// UNAUTHENTICATED; PERMISSION_DENIED for a namespace that is not served; UNAVAILABLE if the API server does not
    /// answer; RESOURCE_EXHAUSTED for too many unknown credentials.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Status> {
        let credentials = Credentials::of(headers).ok_or_else(|| {
            unauthenticated("no credentials: set CWSANDBOX_API_KEY to a ServiceAccount token from `kubectl create token --audience`")
        })?;
        let now = Instant::now();
        let caller = match credentials {
            Credentials::Token(token) => {
                let review = async {
                    self.limit_reviews(peer)?;
                    self.review_token(token).await
                };
                self.callers.get_or_fetch(&digest(b't', token), now, review).await?
            }
            Credentials::ApiKey(key) => {
                self.callers
                    .get_or_fetch(&digest(b'k', key), now, self.find_api_key(key))
                    .await?
            }
        };
        let caller = caller.ok_or_else(|| {
            unauthenticated(format!(
                "the credentials are not valid: use a ServiceAccount token for audience {} that has not expired",
                self.audience
            ))
        })?;
        if !self.namespaces.is_empty() && !self.namespaces.contains(&caller.namespace) {
            let message = format!("this gateway does not serve namespace {}", caller.namespace);
            return Err(status(Code::PermissionDenied, reason::PERMISSION_DENIED, message));
        }
        Ok(caller)
    }

    /// Checks that `caller` has the permission in its own namespace.
    ///
    /// # Errors
    /// PERMISSION_DENIED, or UNAVAILABLE if the API server does not answer.
    pub(crate) async fn authorize(&self, caller: &Caller, permission: Permission) -> Result<(), Status> {
        let review = async {
            let review = self.api.review(&access_review(caller, permission)).await;
            let review = review.map_err(|e| unavailable("permissions", &e))?;
            let allowed = review.status.is_some_and(|s| s.allowed);
            Ok::<_, Status>((allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL }))
        };
        let key = (caller.clone(), permission);
        if self.permissions.get_or_fetch(&key, Instant::now(), review).await? {
            return Ok(());
        }
        let (verb, group, resource, subresource) = permission.attributes();
        let resource = [resource, ".", group].concat().trim_end_matches('.').to_owned();
        let resource = subresource.map_or(resource.clone(), |s| format!("{resource}/{s}"));
        let message = format!(
            "{} may not {verb} {resource} in namespace {}",
            caller.user, caller.namespace
        );
        let metadata = [
            ("verb", verb.to_owned()),
            ("resource", resource),
            ("namespace", caller.namespace.clone()),
        ];
        Err(with_metadata(
            Code::PermissionDenied,
            reason::PERMISSION_DENIED,
            message,
            metadata,
        ))
    }

    /// Drops the rates of idle addresses.
    pub(crate) fn prune(&self) {
        self.reviews_by_address.retain_recent();
        self.reviews_by_address.shrink_to_fit();
    }

    fn limit_reviews(&self, peer: IpAddr) -> Result<(), Status> {
        self.reviews_by_address
            .check_key(&peer)
            .map_err(|_| rate_limited("too many unknown credentials from this address"))
    }

    async fn review_token(&self, token: &str) -> Result<(Option<Caller>, Duration), Status> {
        // A token that cannot be valid costs no TokenReview.
        let Some(left) = time_left(token, &self.audience, SystemTime::now()) else {
            return Ok((None, SHORT_TTL));
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: token.into(),
            },
            ..TokenReview::default()
        };
        let review = self
            .api
            .review(&review)
            .await
            .map_err(|e| unavailable("credentials", &e))?;
        let caller = review.status.and_then(|s| caller_of(s, &self.audience));
        let ttl = if caller.is_some() {
            left.min(VALID_TOKEN_TTL)
        } else {
            SHORT_TTL
        };
        Ok((caller, ttl))
    }

    /// The directory is a mounted Secret, whose files the kubelet replaces when it changes.
    async fn find_api_key(&self, key: &str) -> Result<(Option<Caller>, Duration), Status> {
        let Some(directory) = &self.api_keys else {
            return Ok((None, SHORT_TTL));
        };
        let text = match tokio::fs::read_to_string(directory.join(file_name(key))).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((None, SHORT_TTL)),
            Err(error) => return Err(unavailable("API keys", &error)),
        };
        Ok((service_account(text.trim()), SHORT_TTL))
    }
}

/// The caller that a TokenReview authenticated for `audience`. An authenticator without support for audiences returns
/// none: not accepted.
fn caller_of(status: TokenReviewStatus, audience: &str) -> Option<Caller> {
    if status.authenticated != Some(true) || !status.audiences.is_some_and(|a| a.iter().any(|a| a == audience)) {
        return None;
    }
    let user = status.user?;
    let name = user.username?;
    let (namespace, _) = name
        .strip_prefix(SERVICE_ACCOUNT_PREFIX)?
        .split_once(':')
        .filter(|(ns, sa)| !ns.is_empty() && !sa.is_empty())?;
    Some(Caller {
        namespace: namespace.into(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
        user: name,
    })
}

fn access_review(caller: &Caller, permission: Permission) -> SubjectAccessReview {
    let (verb, group, resource, subresource) = permission.attributes();
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(caller.user.clone()),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(caller.namespace.clone()),
                group: Some(group.into()),
                resource: Some(resource.into()),
                subresource: subresource.map(Into::into),
                verb: Some(verb.into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

fn unauthenticated(message: impl Into<String>) -> Status {
    status(Code::Unauthenticated, reason::UNAUTHENTICATED, message)
}

/// A caller that cannot be checked is refused.
fn unavailable(what: &str, error: &dyn std::error::Error) -> Status {
    tracing::warn!(what, error = crate::telemetry::chain(error), "check failed");
    let message = format!("{what} cannot be checked at the moment; try again");
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        message,
        Duration::from_secs(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use std::collections::BTreeMap;

    const AUDIENCE: &str = "sandbox-operator.dev";

    #[test]
    fn only_a_service_account_authenticated_for_our_audience_is_a_caller() {
        let review = |authenticated, audiences: &[&str], name: &str| {
            let status = TokenReviewStatus {
                authenticated: Some(authenticated),
                audiences: Some(audiences.iter().map(ToString::to_string).collect()),
                user: Some(UserInfo {
                    username: Some(name.into()),
                    groups: Some(vec!["g".into()]),
                    extra: Some(BTreeMap::from([("k".into(), vec!["v".into()])])),
                    uid: None,
                }),
                error: None,
            };
            caller_of(status, AUDIENCE)
        };
        let caller = review(true, &[AUDIENCE], "system:serviceaccount:team-a:bot").unwrap();
        assert_eq!(
            (caller.namespace.as_str(), caller.groups.len(), caller.extra.len()),
            ("team-a", 1, 1)
        );
        assert_eq!(review(false, &[AUDIENCE], "system:serviceaccount:team-a:bot"), None);
        assert_eq!(review(true, &[], "system:serviceaccount:team-a:bot"), None);
        assert_eq!(review(true, &["other"], "system:serviceaccount:team-a:bot"), None);
        for name in [
            "alice",
            "system:node:n1",
            "system:serviceaccount::bot",
            "system:serviceaccount:team-a:",
        ] {
            assert_eq!(review(true, &[AUDIENCE], name), None, "{name}");
        }
        assert_eq!(caller_of(TokenReviewStatus::default(), AUDIENCE), None);
    }
}
