//! Creates one child, and says what it means if that fails.

use kube::ResourceExt;
use kube::core::Status;
use std::fmt::Display;

use super::context::Context;
use super::decision::Verdict;
use super::observed::Observed;
use crate::api::{State, reason};
use crate::kube::{Namespaced, Refusal};
use crate::operator::apply::Created;
use crate::operator::error::Error;
use crate::resources::names;

/// Stops at the first child that cannot be created.
pub(super) enum Stop {
    /// It never can be.
    Refused(Verdict),
    /// It cannot be now.
    Later(Verdict),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

/// Creates a child. One that exists already must belong to this sandbox, and `is_ours` must hold.
pub(super) async fn create<K: Namespaced>(
    o: &Observed,
    ctx: &Context,
    kind: &'static str,
    object: &K,
    is_ours: impl Fn(&K) -> bool,
) -> Result<K, Stop> {
    match ctx.writer.create(kind, object).await? {
        Created::New(created) => Ok(created),
        Created::Refused(status) => Err(refused(kind, &status)),
        Created::Exists => {
            let (namespace, name) = (o.sandbox.namespace().unwrap_or_default(), object.name_any());
            let found: Option<K> = ctx.writer.get(kind, &namespace, &name).await?;
            match found {
                Some(found) if names::is_child(found.meta(), &o.sandbox) && is_ours(&found) => Ok(found),
                Some(_) => Err(taken(kind, &name)),
                None => Err(vanished(kind, &name)),
            }
        }
    }
}

/// What a refusal by the API server means for the sandbox.
pub(super) fn refused(kind: &'static str, status: &Status) -> Stop {
    let text = status.message.as_str();
    let failed = |why| Stop::Refused(Verdict::new(State::Failed, why, format!("{kind}: {text}")));
    match Refusal::from(status) {
        Refusal::QuotaExceeded => later(reason::QUOTA_EXCEEDED, text),
        // A namespace gets its default ServiceAccount a moment after it is created; the sandbox is deleted with its
        // namespace; missing rights are a fault of the installation, not of the sandbox.
        Refusal::NoServiceAccount | Refusal::NamespaceTerminating | Refusal::Unauthorized => {
            later(reason::POLICY_REJECTED, text)
        }
        // An admission webhook that does not answer, for instance.
        Refusal::Failed => later(reason::PENDING, text),
        // Not a policy of the cluster, but a name in the spec.
        Refusal::NoRuntimeClass(detail) => invalid(format!("spec.runtimeClassName: RuntimeClass {detail}")),
        Refusal::Denied => failed(reason::POLICY_REJECTED),
        Refusal::Invalid | Refusal::Other => failed(reason::INVALID_SPEC),
    }
}

pub(super) fn later(why: &'static str, text: impl Into<String>) -> Stop {
    Stop::Later(Verdict::new(State::Pending, why, text))
}

/// Deleted between two calls: the next try creates it.
pub(super) fn vanished(kind: &str, name: &str) -> Stop {
    later(reason::PENDING, format!("{kind} {name} was deleted while it was read"))
}

pub(super) fn invalid(error: impl Display) -> Stop {
    Stop::Refused(Verdict::new(State::Failed, reason::INVALID_SPEC, error.to_string()))
}

pub(super) fn taken(kind: &str, name: &str) -> Stop {
    let text = format!("{kind} {name} already exists and does not belong to this sandbox; it is left alone");
    Stop::Refused(Verdict::new(State::Failed, reason::NAME_TAKEN, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::MAX_MESSAGE;
    use serde_json::json;

    fn verdict(code: u16, message: &str) -> (bool, Verdict) {
        let status = json!({"code": code, "message": message, "details": {"name": "a", "kind": "pods"}});
        match refused("Pod", &serde_json::from_value(status).unwrap()) {
            Stop::Refused(verdict) => (false, verdict),
            Stop::Later(verdict) => (true, verdict),
            Stop::Error(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_refusal_is_retried_only_where_its_cause_can_pass() {
        for (code, text, retried, reason) in [
            (403, "pods \"a\" is forbidden: exceeded quota: q", true, "QuotaExceeded"),
            (
                403,
                "pods \"a\" is forbidden: error looking up service account n/x: not found",
                true,
                "PolicyRejected",
            ),
            (500, "failed calling webhook", true, "Pending"),
            (
                403,
                "pods \"a\" is forbidden: violates PodSecurity \"restricted\": label \"exceeded quota\"",
                false,
                "PolicyRejected",
            ),
            (
                422,
                "admission webhook \"w\" denied the request",
                false,
                "PolicyRejected",
            ),
            (422, "Pod \"a\" is invalid: spec.hostname: denied", false, "InvalidSpec"),
        ] {
            let (was_retried, verdict) = verdict(code, text);
            assert_eq!((was_retried, verdict.reason), (retried, reason), "{text}");
            assert!(verdict.message.contains(text), "{}", verdict.message);
        }
    }

    #[test]
    fn a_missing_runtime_class_is_reported_as_the_field_that_names_it() {
        let (retried, verdict) = verdict(
            403,
            "pods \"a\" is forbidden: pod rejected: RuntimeClass \"kata\" not found",
        );
        assert_eq!((retried, verdict.reason), (false, "InvalidSpec"));
        assert_eq!(
            verdict.message,
            "spec.runtimeClassName: RuntimeClass \"kata\" not found"
        );
    }

    #[test]
    fn a_long_refusal_is_cut() {
        let long = format!("admission webhook \"w\" denied the request: {}", "x".repeat(100_000));
        let (_, verdict) = verdict(403, &long);
        assert_eq!(verdict.message.len(), MAX_MESSAGE);
    }
}
