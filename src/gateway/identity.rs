//! Who calls, and what they may do. The API server decides both: TokenReview and SubjectAccessReview, remembered for seconds.

use governor::DefaultKeyedRateLimiter;
use http::HeaderMap;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tonic::{Code, Status};

use super::config::Config;
use super::credentials::{Credentials, digest, file_name, service_account, time_left};
use super::error::{reason, retry, status, with_metadata};
use super::limits;
use crate::api::GROUP;
use crate::kube::{ApiClient, TtlCache};

/// Longest time for which a token is believed without asking again: so long may a deleted ServiceAccount call us.
const BELIEVED: Duration = Duration::from_secs(60);
/// Time for which credentials that were refused are refused without asking again, and an API key that is kept in a file is believed.
const BRIEFLY: Duration = Duration::from_secs(5);
/// Time for which a right is remembered, and one that is missing: somebody may be waiting for it.
const MAY: Duration = Duration::from_secs(10);
const MAY_NOT: Duration = Duration::from_secs(3);
/// Most credentials and rights that are remembered.
const CAPACITY: usize = 10_000;
/// Credentials that nobody remembers, from one address: each costs a question to the API server, before anybody is known.
const STRANGERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();
const STRANGERS_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// A caller, after its credentials were checked. The first layer puts it into the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The tenant: the namespace of the caller's ServiceAccount.
    pub namespace: String,
    /// User name, as Kubernetes has it: `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the API server knows of the caller, for its own decisions.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// The caller that a ServiceAccount is, as the API server would say it.
    pub fn service_account(namespace: &str, name: &str) -> Caller {
        Caller {
            namespace: namespace.into(),
            user: format!("{PREFIX}{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
            extra: BTreeMap::new(),
        }
    }
}

const PREFIX: &str = "system:serviceaccount:";

/// Something done to sandboxes, as RBAC has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// create sandboxes
    Create,
    /// get sandboxes
    Get,
    /// list sandboxes
    List,
    /// delete sandboxes
    Delete,
    /// create sandboxes/exec
    Exec,
    /// get sandboxes/log
    Logs,
    /// get sandboxes/files
    ReadFiles,
    /// update sandboxes/files
    WriteFiles,
    /// get persistentvolumeclaims
    GetVolumes,
    /// patch persistentvolumeclaims
    RegisterVolumes,
}

impl Right {
    /// Verb, group, resource and subresource.
    fn attributes(self) -> (&'static str, &'static str, &'static str, Option<&'static str>) {
        match self {
            Right::Create => ("create", GROUP, "sandboxes", None),
            Right::Get => ("get", GROUP, "sandboxes", None),
            Right::List => ("list", GROUP, "sandboxes", None),
            Right::Delete => ("delete", GROUP, "sandboxes", None),
            Right::Exec => ("create", GROUP, "sandboxes", Some("exec")),
            Right::Logs => ("get", GROUP, "sandboxes", Some("log")),
            Right::ReadFiles => ("get", GROUP, "sandboxes", Some("files")),
            Right::WriteFiles => ("update", GROUP, "sandboxes", Some("files")),
            Right::GetVolumes => ("get", "", "persistentvolumeclaims", None),
            Right::RegisterVolumes => ("patch", "", "persistentvolumeclaims", None),
        }
    }
}

/// Checks credentials and rights with the API server.
pub struct Identity {
    cluster: ApiClient,
    audience: String,
    api_keys: Option<PathBuf>,
    namespaces: Vec<String>,
    callers: TtlCache<[u8; 32], Option<Caller>>,
    rights: TtlCache<(Caller, Right), bool>,
    strangers: DefaultKeyedRateLimiter<IpAddr>,
}

impl Identity {
    /// Identities as `config` wants them checked.
    pub fn new(cluster: ApiClient, config: &Config) -> Identity {
        Identity {
            cluster,
            audience: config.authentication.audience.clone(),
            api_keys: config.authentication.api_keys.clone(),
            namespaces: config.watch_namespaces.clone(),
            callers: TtlCache::new(CAPACITY),
            rights: TtlCache::new(CAPACITY),
            strangers: DefaultKeyedRateLimiter::keyed(governor::Quota::per_second(STRANGERS_PER_SECOND).allow_burst(STRANGERS_AT_ONCE)),
        }
    }

    /// Who calls, by the headers of a request from `peer`.
    ///
    /// # Errors
    /// UNAUTHENTICATED; UNAVAILABLE when the API server does not answer; RESOURCE_EXHAUSTED for too many unknown credentials.
    pub async fn authenticate(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Status> {
        let credentials = Credentials::of(headers).ok_or_else(|| {
            unauthenticated("no credentials: set CWSANDBOX_API_KEY to a ServiceAccount token, made by `kubectl create token` with --audience")
        })?;
        let now = Instant::now();
        let caller = match credentials {
            Credentials::Token(token) => {
                let ask = async {
                    self.greet(peer)?;
                    self.review(token).await
                };
                self.callers.get_or_fetch(&digest(b't', token), now, ask).await?
            }
            Credentials::ApiKey(key) => self.callers.get_or_fetch(&digest(b'k', key), now, self.look_up(key)).await?,
        };
        let caller = caller.ok_or_else(|| {
            unauthenticated(format!(
                "these credentials are not valid here: a ServiceAccount token must be for audience {} and not have expired",
                self.audience
            ))
        })?;
        if !self.namespaces.is_empty() && !self.namespaces.contains(&caller.namespace) {
            let message = format!("namespace {} is not served", caller.namespace);
            return Err(status(Code::PermissionDenied, reason::PERMISSION_DENIED, message));
        }
        Ok(caller)
    }

    /// Whether `caller` may do this in its own namespace.
    ///
    /// # Errors
    /// PERMISSION_DENIED, or UNAVAILABLE when the API server does not answer.
    pub async fn authorize(&self, caller: &Caller, right: Right) -> Result<(), Status> {
        let ask = async {
            let review = self.cluster.review(&access_review(caller, right)).await;
            let review = review.map_err(|e| unavailable("rights", &e))?;
            let allowed = review.status.is_some_and(|s| s.allowed);
            Ok::<_, Status>((allowed, if allowed { MAY } else { MAY_NOT }))
        };
        let key = (caller.clone(), right);
        if self.rights.get_or_fetch(&key, Instant::now(), ask).await? {
            return Ok(());
        }
        let (verb, group, resource, subresource) = right.attributes();
        let resource = [resource, ".", group].concat().trim_end_matches('.').to_owned();
        let resource = subresource.map_or(resource.clone(), |s| format!("{resource}/{s}"));
        let message = format!("{} may not {verb} {resource} in namespace {}", caller.user, caller.namespace);
        let facts = [("verb", verb.to_owned()), ("resource", resource), ("namespace", caller.namespace.clone())];
        Err(with_metadata(Code::PermissionDenied, reason::PERMISSION_DENIED, message, facts))
    }

    /// Drops what is kept of addresses that have been quiet.
    pub fn tidy(&self) {
        self.strangers.retain_recent();
        self.strangers.shrink_to_fit();
    }

    fn greet(&self, peer: IpAddr) -> Result<(), Status> {
        self.strangers
            .check_key(&peer)
            .map_err(|_| limits::exhausted("too many unknown credentials from this address"))
    }

    async fn review(&self, token: &str) -> Result<(Option<Caller>, Duration), Status> {
        // What cannot be valid costs the API server nothing.
        let Some(left) = time_left(token, &self.audience, SystemTime::now()) else {
            return Ok((None, BRIEFLY));
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.clone()]),
                token: token.into(),
            },
            ..TokenReview::default()
        };
        let review = self.cluster.review(&review).await.map_err(|e| unavailable("credentials", &e))?;
        let caller = review.status.and_then(|s| caller_of(s, &self.audience));
        let lasts = if caller.is_some() { left.min(BELIEVED) } else { BRIEFLY };
        Ok((caller, lasts))
    }

    /// The folder is a mounted Secret, which the kubelet replaces when it changes.
    async fn look_up(&self, key: &str) -> Result<(Option<Caller>, Duration), Status> {
        let Some(folder) = &self.api_keys else {
            return Ok((None, BRIEFLY));
        };
        let text = match tokio::fs::read_to_string(folder.join(file_name(key))).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((None, BRIEFLY)),
            Err(error) => return Err(unavailable("API keys", &error)),
        };
        Ok((service_account(text.trim()), BRIEFLY))
    }
}

/// The caller of whom the API server says so. An authenticator that knows nothing of audiences names none: that is not enough.
fn caller_of(status: TokenReviewStatus, audience: &str) -> Option<Caller> {
    if status.authenticated != Some(true) || !status.audiences.is_some_and(|a| a.iter().any(|a| a == audience)) {
        return None;
    }
    let user = status.user?;
    let name = user.username?;
    let (namespace, _) = name
        .strip_prefix(PREFIX)?
        .split_once(':')
        .filter(|(ns, sa)| !ns.is_empty() && !sa.is_empty())?;
    Some(Caller {
        namespace: namespace.into(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
        user: name,
    })
}

fn access_review(caller: &Caller, right: Right) -> SubjectAccessReview {
    let (verb, group, resource, subresource) = right.attributes();
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

/// Who cannot be checked is not let in.
fn unavailable(what: &str, error: &dyn std::error::Error) -> Status {
    tracing::warn!(what, error = crate::telemetry::chain(error), "cannot be checked");
    let message = format!("{what} cannot be checked at the moment");
    retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, message, Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;

    const US: &str = "sandbox-operator.dev";

    #[test]
    fn only_a_service_account_that_was_authenticated_for_us_is_a_caller() {
        let says = |authenticated, audiences: &[&str], name: &str| {
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
            caller_of(status, US)
        };
        let caller = says(true, &[US], "system:serviceaccount:team-a:bot").unwrap();
        assert_eq!((caller.namespace.as_str(), caller.groups.len(), caller.extra.len()), ("team-a", 1, 1));
        assert_eq!(says(false, &[US], "system:serviceaccount:team-a:bot"), None);
        assert_eq!(says(true, &[], "system:serviceaccount:team-a:bot"), None);
        assert_eq!(says(true, &["other"], "system:serviceaccount:team-a:bot"), None);
        for name in ["alice", "system:node:n1", "system:serviceaccount::bot", "system:serviceaccount:team-a:"] {
            assert_eq!(says(true, &[US], name), None, "{name}");
        }
        assert_eq!(caller_of(TokenReviewStatus::default(), US), None);
    }
}
