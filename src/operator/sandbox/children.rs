//! Creates one child, and says what it means if that fails.

use kube::ResourceExt;
use std::fmt::Display;

use super::context::Context;
use super::decision::Verdict;
use super::observed::Observed;
use crate::api::{State, reason};
use crate::kube::Namespaced;
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

/// Creates a child. One that exists already must belong to this sandbox.
pub(super) async fn create<K: Namespaced>(
    o: &Observed,
    ctx: &Context,
    kind: &'static str,
    object: &K,
) -> Result<K, Stop> {
    match ctx.writer.create(kind, object).await? {
        Created::New(created) => Ok(created),
        Created::Refused(code, text) => Err(refused(kind, code, &text)),
        Created::Exists => {
            let (namespace, name) = (o.sandbox.namespace().unwrap_or_default(), object.name_any());
            let found: Option<K> = ctx.writer.get(kind, &namespace, &name).await?;
            match found {
                Some(found) if names::is_child(found.meta(), &o.sandbox) => Ok(found),
                Some(_) => Err(taken(kind, &name)),
                None => Err(vanished(kind, &name)),
            }
        }
    }
}

/// What a refusal by the API server means.
pub(super) fn refused(kind: &'static str, code: u16, text: &str) -> Stop {
    if text.contains("exceeded quota") {
        return later(reason::QUOTA_EXCEEDED, text);
    }
    // A namespace gets its default ServiceAccount a moment after it is created; a namespace that is deleted takes the
    // sandbox along; missing rights are a fault of the installation, not of the sandbox.
    let passing = [
        "error looking up service account",
        "because it is being terminated",
        "cannot create resource",
    ];
    if code == 403 && passing.iter().any(|p| text.contains(p)) {
        return later(reason::POLICY_REJECTED, text);
    }
    // An admission webhook that does not answer, for instance.
    if code >= 500 {
        return later(reason::PENDING, text);
    }
    // "pod rejected: RuntimeClass "x" not found": not a policy of the cluster, but a name in the spec.
    if let Some((_, detail)) = text.split_once("pod rejected: RuntimeClass ") {
        return invalid(format!("spec.runtimeClassName: RuntimeClass {detail}"));
    }
    // Admission policies answer 422 too, but their messages say that they denied it.
    let why = if code != 403 && !text.contains("denied") {
        reason::INVALID_SPEC
    } else {
        reason::POLICY_REJECTED
    };
    Stop::Refused(Verdict::new(State::Failed, why, format!("{kind}: {text}")))
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

    fn verdict(code: u16, text: &str) -> (bool, Verdict) {
        match refused("Pod", code, text) {
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
                "error looking up service account n/x: not found",
                true,
                "PolicyRejected",
            ),
            (500, "failed calling webhook", true, "Pending"),
            (403, "violates PodSecurity \"restricted\"", false, "PolicyRejected"),
            (
                422,
                "admission webhook \"w\" denied the request",
                false,
                "PolicyRejected",
            ),
            (422, "Pod \"a\" is invalid: spec.hostname", false, "InvalidSpec"),
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
            "pods \"a-1\" is forbidden: pod rejected: RuntimeClass \"kata\" not found",
        );
        assert_eq!((retried, verdict.reason), (false, "InvalidSpec"));
        assert_eq!(
            verdict.message,
            "spec.runtimeClassName: RuntimeClass \"kata\" not found"
        );
    }
}
