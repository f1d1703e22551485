//! Classifies refusals by the API server.
//!
//! HTTP status, reason and causes decide if they are specific enough. Several admission plugins return only a text: it
//! is matched from its first character to the end of the part that the plugin wrote. Text that a user controls (names,
//! labels, annotations) comes later, or is the object's name, which is also in the details.

use ::kube::core::Status;

/// What a refusal by the API server means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// A ResourceQuota is exhausted, or its usage is not known yet.
    QuotaExceeded,
    /// The namespace is being deleted.
    NamespaceTerminating,
    /// The ServiceAccount does not exist. A new namespace gets its default one a moment later.
    NoServiceAccount,
    /// The RuntimeClass does not exist. Contains the text after `RuntimeClass `.
    NoRuntimeClass(&'a str),
    /// Our own account lacks a right.
    Unauthorized,
    /// An admission policy, an admission webhook or Pod Security denies the object.
    Denied,
    /// The object is invalid.
    Invalid,
    /// The API server or a webhook failed.
    Failed,
    /// Something else.
    Other,
}

/// The cause that the plugin NamespaceLifecycle adds.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

impl<'a> From<&'a Status> for Refusal<'a> {
    fn from(status: &'a Status) -> Refusal<'a> {
        let causes = || status.details.iter().flat_map(|d| &d.causes);
        let forbidden = forbidden(status);
        match status.code {
            500.. => Refusal::Failed,
            403 if causes().any(|c| c.reason == NAMESPACE_TERMINATING) => Refusal::NamespaceTerminating,
            403 => forbidden.map_or(Refusal::Denied, plugin),
            // Webhooks choose their code, and so do ValidatingAdmissionPolicies.
            400..500 if forbidden.is_some() || status.message.starts_with("admission webhook \"") => Refusal::Denied,
            400 | 422 => Refusal::Invalid,
            _ => Refusal::Other,
        }
    }
}

/// Classifies a refusal with code 403 by the text after `… is forbidden: `.
fn plugin(text: &str) -> Refusal<'_> {
    let begins = |prefix: &str| text.starts_with(prefix);
    if begins("exceeded quota: ") || begins("status unknown for quota: ") {
        Refusal::QuotaExceeded
    } else if begins("error looking up service account ") {
        Refusal::NoServiceAccount
    } else if begins("User \"") {
        Refusal::Unauthorized
    } else if let Some(detail) = text.strip_prefix("pod rejected: RuntimeClass ") {
        Refusal::NoRuntimeClass(detail)
    } else {
        Refusal::Denied
    }
}

/// The text after `pods "a" is forbidden: `, if resource and name match the details.
fn forbidden(status: &Status) -> Option<&str> {
    let details = status.details.as_ref()?;
    let rest = status.message.strip_prefix(details.kind.as_str())?;
    let rest = match details.group.as_str() {
        "" => rest,
        group => rest.strip_prefix('.')?.strip_prefix(group)?,
    };
    let rest = match details.name.as_str() {
        "" => rest,
        name => rest.strip_prefix(" \"")?.strip_prefix(name)?.strip_prefix('"')?,
    };
    rest.strip_prefix(" is forbidden: ")
}

#[cfg(test)]
mod tests;
