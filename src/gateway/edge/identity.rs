//! Authentication and authorization. The API server decides both, by TokenReview and SubjectAccessReview; results are
//! cached for seconds. Callers and refused credentials are cached separately, so that random credentials evict no
//! caller.

use futures::FutureExt;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tonic::{Code, Status};

use crate::gateway::config::Config;
use crate::gateway::edge::caller::{Caller, Permission, SERVICE_ACCOUNT_PREFIX};
use crate::gateway::edge::credentials::{Credentials, file_name, service_account, time_left};
use crate::gateway::edge::failures::{ExpiringSet, FailureLimit};
use crate::gateway::error::{rate_limited, reason, retry, status, with_metadata};
use crate::kube::{ApiClient, TtlCache};
use crate::net::source_network;

/// Maximum time for which a valid token is cached, and the existence of an API key's ServiceAccount: a deleted
/// ServiceAccount keeps its access for that long.
const VALID_TTL: Duration = Duration::from_secs(60);
/// Time for which refused credentials and API keys are cached.
const SHORT_TTL: Duration = Duration::from_secs(5);
/// How long credentials that were valid are exempt from the limit of failures of their address.
const RECENTLY_VALID: Duration = Duration::from_secs(3600);
/// Time for which a granted permission is cached, and a denied one, which may be granted soon.
const ALLOWED_TTL: Duration = Duration::from_secs(10);
const DENIED_TTL: Duration = Duration::from_secs(3);
/// Largest number of cached callers, of refused credentials, and of permissions.
const CAPACITY: usize = 10_000;

/// Checks credentials and permissions with the API server.
pub struct Identity {
    api: ApiClient,
    audience: String,
    api_keys: Option<PathBuf>,
    namespaces: Vec<String>,
    callers: TtlCache<[u8; 32], Caller>,
    refused: ExpiringSet<[u8; 32]>,
    recently_valid: ExpiringSet<[u8; 32]>,
    failures: FailureLimit,
    service_accounts: TtlCache<(String, String), bool>,
    permissions: TtlCache<(Caller, Permission), bool>,
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
            refused: ExpiringSet::new(CAPACITY, SHORT_TTL),
            recently_valid: ExpiringSet::new(CAPACITY, RECENTLY_VALID),
            failures: FailureLimit::default(),
            service_accounts: TtlCache::new(CAPACITY),
            permissions: TtlCache::new(CAPACITY),
        }
    }

    /// Authenticates the caller by the headers of a request from `peer`.
    ///
    /// # Errors
    /// UNAUTHENTICATED; PERMISSION_DENIED for a namespace that is not served; UNAVAILABLE if the API server does not
    /// answer; RESOURCE_EXHAUSTED after too many invalid credentials from the same address.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Status> {
        self.authenticate_at(headers, peer, Instant::now()).await
    }

    async fn authenticate_at(&self, headers: &HeaderMap, peer: IpAddr, now: Instant) -> Result<Caller, Status> {
        let credentials = Credentials::of(headers).ok_or_else(|| {
            unauthenticated("no credentials: set CWSANDBOX_API_KEY to a ServiceAccount token from `kubectl create token --audience`")
        })?;
        let left = match credentials {
            Credentials::Token(token) => time_left(token, &self.audience, SystemTime::now()),
            Credentials::ApiKey(_) => self.api_keys.as_ref().map(|_| SHORT_TTL),
        };
        // Credentials that cannot be valid are refused without a request.
        let left = left.ok_or_else(|| self.invalid())?;
        let key = credentials.digest();
        let check = async {
            if self.refused.contains(&key, now) {
                return Err(self.invalid());
            }
            let network = source_network(peer);
            let attempt = match self.recently_valid.contains(&key, now) {
                true => None,
                false => Some(self.failures.attempt(network, now).ok_or_else(too_many_failures)?),
            };
            let result = match credentials {
                Credentials::Token(token) => self.review_token(token).boxed().await.map(|c| (c, left.min(VALID_TTL))),
                Credentials::ApiKey(key) => self.find_api_key(key, now).boxed().await.map(|c| (c, SHORT_TTL)),
            };
            // An error is one of the API server, not of the credentials.
            if let Some(attempt) = attempt.filter(|_| !matches!(result, Ok((None, _)))) {
                attempt.refund();
            }
            let (caller, ttl) = result?;
            let Some(caller) = caller else {
                self.recently_valid.remove(&key);
                self.refused.insert(key, now);
                return Err(self.invalid());
            };
            self.recently_valid.insert(key, now);
            Ok((caller, ttl))
        };
        let caller = self.callers.get_or_fetch(&key, now, check).await?;
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
            let review = access_review(caller, permission);
            let review = self.api.review(&caller.namespace, &review).await;
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

    /// Removes failures that no longer count.
    pub(crate) fn prune(&self) {
        self.failures.prune(Instant::now());
    }

    fn invalid(&self) -> Status {
        unauthenticated(format!(
            "the credentials are not valid: use a ServiceAccount token for audience {} that has not expired",
            self.audience
        ))
    }

    async fn review_token(&self, token: &str) -> Result<Option<Caller>, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: token.into(),
            },
            ..TokenReview::default()
        };
        let review = self
            .api
            .review("", &review)
            .await
            .map_err(|e| unavailable("credentials", &e))?;
        Ok(review.status.and_then(|s| caller_of(s, &self.audience)))
    }

    /// The directory is a mounted Secret, whose files the kubelet replaces when it changes. A key is valid only while
    /// its ServiceAccount exists.
    async fn find_api_key(&self, key: &str, now: Instant) -> Result<Option<Caller>, Status> {
        let Some(directory) = &self.api_keys else {
            return Ok(None);
        };
        let text = match tokio::fs::read_to_string(directory.join(file_name(key))).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable("API keys", &error)),
        };
        let Some((namespace, name)) = service_account(text.trim()) else {
            return Ok(None);
        };
        let read = async {
            let found = self.api.get::<ServiceAccount>(namespace, name).await;
            let found = found.map_err(|e| unavailable("API keys", &e))?;
            let exists = found.is_some_and(|account| account.metadata.deletion_timestamp.is_none());
            Ok::<_, Status>((exists, if exists { VALID_TTL } else { SHORT_TTL }))
        };
        let account = (namespace.to_owned(), name.to_owned());
        let exists = self.service_accounts.get_or_fetch(&account, now, read).await?;
        Ok(exists.then(|| Caller::service_account(namespace, name)))
    }
}

fn too_many_failures() -> Status {
    rate_limited("too many invalid credentials from this address")
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
#[allow(clippy::unwrap_used)]
mod tests;
