//! The gateway's errors in the form of AIP-193, which the SDK expects: a gRPC code, an `ErrorInfo` whose reason selects
//! the SDK's exception, and a `RetryInfo` or the invalid fields where they help.

use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::kube::Refusal;
use crate::text::short;

/// Domain of every `ErrorInfo`. The SDK ignores reasons of other domains.
pub const DOMAIN: &str = "cwsandbox.com";

/// Bytes of a message. Errors are sent as trailers, of which clients take 8 KB. They contain the message twice:
/// percent-encoded, and within the details in base64.
const MAX_MESSAGE: usize = 512;
/// Bytes of a metadata value; the longest are paths.
const MAX_METADATA: usize = 1024;
/// Bytes of an invalid field's path, and of its description.
const MAX_VIOLATION: usize = 160;
/// Invalid fields in an error; more are only counted.
const MAX_FIELDS: usize = 8;

/// Reasons, with the names of the hosted service.
pub(crate) mod reason {
    /// No such sandbox of this caller.
    pub(crate) const SANDBOX_NOT_FOUND: &str = "CWSANDBOX_SANDBOX_NOT_FOUND";
    /// The sandbox is not running: not yet, or no longer.
    pub(crate) const SANDBOX_NOT_RUNNING: &str = "CWSANDBOX_SANDBOX_NOT_RUNNING";
    /// A field of the request is invalid.
    pub(crate) const INVALID_REQUEST: &str = "CWSANDBOX_INVALID_REQUEST";
    /// The same `request_id` was used with another request.
    pub(crate) const REQUEST_ID_CONFLICT: &str = "CWSANDBOX_REQUEST_ID_CONFLICT";
    /// The caller could not be identified.
    pub(crate) const UNAUTHENTICATED: &str = "CWSANDBOX_UNAUTHENTICATED";
    /// The caller may not do this.
    pub(crate) const PERMISSION_DENIED: &str = "CWSANDBOX_PERMISSION_DENIED";
    /// The caller exceeds one of its limits.
    pub(crate) const RATE_LIMITED: &str = "CWSANDBOX_RATE_LIMITED";
    /// The feature is not implemented.
    pub(crate) const NOT_IMPLEMENTED: &str = "CWSANDBOX_NOT_IMPLEMENTED";
    /// The API server or the sandbox's agent does not answer.
    pub(crate) const BACKEND_UNAVAILABLE: &str = "CWSANDBOX_BACKEND_UNAVAILABLE";
    /// No secret store of this name in the tenant's namespace.
    pub(crate) const SECRET_STORE_NOT_PROVISIONED: &str = "CWSANDBOX_SECRET_STORE_NOT_PROVISIONED";
    /// A quota of the tenant is exhausted.
    pub(crate) const RUNNER_CAPACITY_EXHAUSTED: &str = "CWSANDBOX_RUNNER_CAPACITY_EXHAUSTED";
    /// No node can run it.
    pub(crate) const NO_SUITABLE_RUNNER: &str = "CWSANDBOX_NO_SUITABLE_RUNNER";
    /// No such runner.
    pub(crate) const RUNNER_NOT_FOUND: &str = "CWSANDBOX_RUNNER_NOT_FOUND";
    /// No such file.
    pub(crate) const FILE_NOT_FOUND: &str = "CWSANDBOX_FILE_NOT_FOUND";
    /// The path is a directory.
    pub(crate) const FILE_IS_DIRECTORY: &str = "CWSANDBOX_FILE_IS_DIRECTORY";
    /// The container's user lacks the permission.
    pub(crate) const FILE_PERMISSION_DENIED: &str = "CWSANDBOX_FILE_PERMISSION_DENIED";
    /// The file is larger than one request or response may be.
    pub(crate) const FILE_TOO_LARGE: &str = "CWSANDBOX_FILE_TOO_LARGE";
    /// Reading or writing failed.
    pub(crate) const FILE_IO_FAILED: &str = "CWSANDBOX_FILE_IO_FAILED";
    /// TLS endpoints are not supported.
    pub(crate) const TLS_PASSTHROUGH_NOT_SUPPORTED: &str = "CWSANDBOX_TLS_PASSTHROUGH_ENDPOINTS_NOT_SUPPORTED";
    /// HTTPS endpoints with a share token are not supported.
    pub(crate) const SHARE_TOKEN_NOT_SUPPORTED: &str = "CWSANDBOX_HTTPS_SHARE_TOKEN_NOT_SUPPORTED";
    /// Snapshots are not supported.
    pub(crate) const SNAPSHOT_NOT_SUPPORTED: &str = "CWSANDBOX_FSS_NOT_SUPPORTED";
    /// No such volume.
    pub(crate) const VOLUME_NOT_FOUND: &str = "CWSANDBOX_VOLUME_NOT_FOUND";
    /// The claim of a volume does not exist.
    pub(crate) const VOLUME_BACKEND_NOT_FOUND: &str = "CWSANDBOX_VOLUME_BACKEND_NOT_FOUND";
    /// The volume is used by a sandbox.
    pub(crate) const VOLUME_IN_USE: &str = "CWSANDBOX_VOLUME_IN_USE";
}

/// An error with a reason.
pub(crate) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    with_metadata(code, reason, message, [])
}

/// An error with a reason and metadata, which the SDK reads by key.
pub(crate) fn with_metadata<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    metadata: [(&str, String); N],
) -> Status {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(k, v)| (k.to_owned(), short(&v, MAX_METADATA)))
        .collect();
    with_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}

/// A transient error: the caller should retry after `delay`.
pub(crate) fn retry(code: Code, reason: &str, message: impl Into<String>, delay: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(delay));
    with_details(code, message, details)
}

/// RESOURCE_EXHAUSTED that may pass within a second.
pub(crate) fn rate_limited(message: impl Into<String>) -> Status {
    retry(
        Code::ResourceExhausted,
        reason::RATE_LIMITED,
        message,
        Duration::from_secs(1),
    )
}

fn with_details(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, short(&message.into(), MAX_MESSAGE), details)
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field in the request, such as `spec.containers[0].image`.
    pub(crate) field: String,
    /// The problem, and what to write instead.
    pub(crate) description: String,
}

impl Violation {
    /// A violation.
    pub(crate) fn new(field: impl Into<String>, description: impl Into<String>) -> Violation {
        Violation {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// INVALID_ARGUMENT with the invalid fields, or with the first of them if there are many. The message names them too,
/// for clients that show only the message.
pub(crate) fn invalid(mut violations: Vec<Violation>) -> Status {
    let count = violations.len();
    violations.truncate(MAX_FIELDS);
    let text: Vec<String> = violations
        .iter()
        .map(|v| format!("{}: {}", v.field, v.description))
        .collect();
    let mut text = text.join("; ");
    if count > MAX_FIELDS {
        text = format!("{count} fields are invalid, for instance {text}");
    }
    let mut details = ErrorDetails::with_error_info(reason::INVALID_REQUEST, DOMAIN, HashMap::new());
    let shortened =
        |v: &Violation| FieldViolation::new(short(&v.field, MAX_VIOLATION), short(&v.description, MAX_VIOLATION));
    details.set_bad_request(violations.iter().map(shortened).collect::<Vec<_>>());
    with_details(Code::InvalidArgument, text, details)
}

/// NOT_FOUND of a sandbox, also of one that belongs to another tenant.
pub(crate) fn sandbox_not_found(id: &str) -> Status {
    let id = short(id, 64);
    status(Code::NotFound, reason::SANDBOX_NOT_FOUND, format!("no sandbox {id}"))
}

/// UNIMPLEMENTED of a feature.
pub(crate) fn unimplemented(what: &str) -> Status {
    status(
        Code::Unimplemented,
        reason::NOT_IMPLEMENTED,
        format!("{what} is not supported"),
    )
}

/// UNAVAILABLE of a replica that is about to stop: a retry reaches another one.
pub(crate) fn draining() -> Status {
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        "this replica of the gateway is stopping; retry",
        Duration::from_secs(1),
    )
}

/// The caller's error for an error of the API server during `action`. Its text is passed on only if it is about the
/// caller's own request.
pub(crate) fn of_kube(action: &str, error: &kube::Error) -> Status {
    let unavailable = || {
        tracing::warn!(
            action,
            error = crate::telemetry::chain(error),
            "request to the API server failed"
        );
        let text = format!("{action}: the API server is not available");
        retry(
            Code::Unavailable,
            reason::BACKEND_UNAVAILABLE,
            text,
            Duration::from_secs(1),
        )
    };
    let kube::Error::Api(s) = error else {
        return unavailable();
    };
    match Refusal::from(s.as_ref()) {
        Refusal::Invalid => invalid(vec![Violation::new("sandbox", s.message.clone())]),
        Refusal::QuotaExceeded => {
            let text = format!("{action}: {}", s.message);
            retry(
                Code::ResourceExhausted,
                reason::RUNNER_CAPACITY_EXHAUSTED,
                text,
                Duration::from_secs(5),
            )
        }
        // The text names the gateway's own account.
        Refusal::Unauthorized => {
            tracing::warn!(action, error = s.message, "the gateway lacks a permission");
            let text = format!("{action}: the gateway lacks the permission in this namespace");
            status(Code::FailedPrecondition, reason::PERMISSION_DENIED, text)
        }
        Refusal::Denied | Refusal::NamespaceTerminating | Refusal::NoServiceAccount | Refusal::NoRuntimeClass(_) => {
            status(
                Code::FailedPrecondition,
                reason::PERMISSION_DENIED,
                format!("{action}: {}", s.message),
            )
        }
        Refusal::Failed | Refusal::Other => unavailable(),
    }
}
