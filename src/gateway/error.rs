//! Every error the gateway answers with, in the form of AIP-193 that the SDK reads: a gRPC code, an `ErrorInfo` whose reason decides the
//! exception, and where it helps a `RetryInfo` or the fields that are wrong.

use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::text::short;

/// Domain of every `ErrorInfo`: the SDK trusts the reasons of this one only.
pub const DOMAIN: &str = "cwsandbox.com";

/// Bytes of a message, and of what else callers may have put into an error. It travels as headers, of which clients take 8 KB: the message
/// twice, once percent-encoded and once with the details in base64.
const LONGEST: usize = 512;
/// Bytes of one fact in the details: a path, at most.
const LONGEST_FACT: usize = 1024;
/// Bytes of the name of a field that is wrong, and of why.
const LONGEST_VALUE: usize = 160;
/// Most fields that are told.
const MOST_FIELDS: usize = 8;

/// Reasons, as the hosted service names them.
pub mod reason {
    /// No such sandbox of this caller.
    pub const SANDBOX_NOT_FOUND: &str = "CWSANDBOX_SANDBOX_NOT_FOUND";
    /// The sandbox does not run (yet, or any more).
    pub const SANDBOX_NOT_RUNNING: &str = "CWSANDBOX_SANDBOX_NOT_RUNNING";
    /// A field of the request is wrong.
    pub const INVALID_REQUEST: &str = "CWSANDBOX_INVALID_REQUEST";
    /// The same `request_id` came with another body.
    pub const REQUEST_ID_CONFLICT: &str = "CWSANDBOX_REQUEST_ID_CONFLICT";
    /// The caller could not be identified.
    pub const UNAUTHENTICATED: &str = "CWSANDBOX_UNAUTHENTICATED";
    /// The caller may not do this.
    pub const PERMISSION_DENIED: &str = "CWSANDBOX_PERMISSION_DENIED";
    /// The caller is over one of its limits.
    pub const RATE_LIMITED: &str = "CWSANDBOX_RATE_LIMITED";
    /// The product does not do this.
    pub const NOT_IMPLEMENTED: &str = "CWSANDBOX_NOT_IMPLEMENTED";
    /// The API server or the sandbox's agent does not answer.
    pub const BACKEND_UNAVAILABLE: &str = "CWSANDBOX_BACKEND_UNAVAILABLE";
    /// No secret store of this name in the tenant's namespace.
    pub const SECRET_STORE_NOT_PROVISIONED: &str = "CWSANDBOX_SECRET_STORE_NOT_PROVISIONED";
    /// A quota of the tenant's is used up.
    pub const RUNNER_CAPACITY_EXHAUSTED: &str = "CWSANDBOX_RUNNER_CAPACITY_EXHAUSTED";
    /// No node can ever take it.
    pub const NO_SUITABLE_RUNNER: &str = "CWSANDBOX_NO_SUITABLE_RUNNER";
    /// No such runner.
    pub const RUNNER_NOT_FOUND: &str = "CWSANDBOX_RUNNER_NOT_FOUND";
    /// No such file.
    pub const FILE_NOT_FOUND: &str = "CWSANDBOX_FILE_NOT_FOUND";
    /// The path is a folder.
    pub const FILE_IS_DIRECTORY: &str = "CWSANDBOX_FILE_IS_DIRECTORY";
    /// The container's user may not.
    pub const FILE_PERMISSION_DENIED: &str = "CWSANDBOX_FILE_PERMISSION_DENIED";
    /// More bytes than one answer or request may have.
    pub const FILE_TOO_LARGE: &str = "CWSANDBOX_FILE_TOO_LARGE";
    /// Reading or writing failed.
    pub const FILE_IO_FAILED: &str = "CWSANDBOX_FILE_IO_FAILED";
    /// Snapshots are not there.
    pub const SNAPSHOT_NOT_SUPPORTED: &str = "CWSANDBOX_FSS_NOT_SUPPORTED";
    /// No such volume.
    pub const VOLUME_NOT_FOUND: &str = "CWSANDBOX_VOLUME_NOT_FOUND";
    /// The claim that a volume names is not there.
    pub const VOLUME_BACKEND_NOT_FOUND: &str = "CWSANDBOX_VOLUME_BACKEND_NOT_FOUND";
    /// The volume is used by a sandbox.
    pub const VOLUME_IN_USE: &str = "CWSANDBOX_VOLUME_IN_USE";
    /// The claim behind the volume is not bound.
    pub const VOLUME_NOT_READY: &str = "CWSANDBOX_VOLUME_NOT_READY";
}

/// An error with a reason.
pub fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    with_metadata(code, reason, message, [])
}

/// An error with a reason and facts that the SDK reads by name.
pub fn with_metadata<const N: usize>(code: Code, reason: &str, message: impl Into<String>, facts: [(&str, String); N]) -> Status {
    let facts: HashMap<String, String> = facts.into_iter().map(|(k, v)| (k.to_owned(), short(&v, LONGEST_FACT))).collect();
    told(code, message, ErrorDetails::with_error_info(reason, DOMAIN, facts))
}

/// An error that passes: the caller should try again after `pause`.
pub fn retry(code: Code, reason: &str, message: impl Into<String>, pause: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(pause));
    told(code, message, details)
}

/// RESOURCE_EXHAUSTED that may pass within a second.
pub fn rate_limited(message: impl Into<String>) -> Status {
    retry(Code::ResourceExhausted, reason::RATE_LIMITED, message, Duration::from_secs(1))
}

fn told(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, short(&message.into(), LONGEST), details)
}

/// A field of a request that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request, as in `spec.containers[0].image`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Violation {
    /// A violation.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Violation {
        Violation {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// INVALID_ARGUMENT with the invalid fields, or with the first of them if there are many. The message names them too, for clients that show
/// only the message.
pub fn invalid(mut violations: Vec<Violation>) -> Status {
    let count = violations.len();
    violations.truncate(MOST_FIELDS);
    let text: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    let mut text = text.join("; ");
    if count > MOST_FIELDS {
        text = format!("{count} fields are invalid, for instance {text}");
    }
    let mut details = ErrorDetails::with_error_info(reason::INVALID_REQUEST, DOMAIN, HashMap::new());
    let shortened = |v: &Violation| FieldViolation::new(short(&v.field, LONGEST_VALUE), short(&v.description, LONGEST_VALUE));
    details.set_bad_request(violations.iter().map(shortened).collect::<Vec<_>>());
    told(Code::InvalidArgument, text, details)
}

/// NOT_FOUND of a sandbox: also of one that belongs to another tenant.
pub fn sandbox_not_found(id: &str) -> Status {
    let id = short(id, 64);
    status(Code::NotFound, reason::SANDBOX_NOT_FOUND, format!("there is no sandbox {id}"))
}

/// UNIMPLEMENTED, by name.
pub fn unimplemented(what: &str) -> Status {
    status(Code::Unimplemented, reason::NOT_IMPLEMENTED, format!("{what} is not supported"))
}

/// This replica is about to end: a retry reaches another one.
pub fn draining() -> Status {
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        "this replica of the gateway is about to end; go on at another",
        Duration::from_secs(1),
    )
}

/// What an error of the API server means to a caller. Its text is passed on only where it is about the caller's own request.
pub fn of_kube(doing: &str, error: &kube::Error) -> Status {
    let unavailable = || {
        tracing::warn!(doing, error = crate::telemetry::chain(error), "API server");
        let text = format!("{doing}: the API server did not answer as expected");
        retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, text, Duration::from_secs(1))
    };
    match error {
        kube::Error::Api(s) if matches!(s.code, 400 | 422) => invalid(vec![Violation::new("sandbox", s.message.clone())]),
        kube::Error::Api(s) if s.code == 403 && s.message.contains("exceeded quota") => {
            let text = format!("{doing}: {}", s.message);
            retry(Code::ResourceExhausted, reason::RUNNER_CAPACITY_EXHAUSTED, text, Duration::from_secs(5))
        }
        // Its text names our own account.
        kube::Error::Api(s) if s.code == 403 && s.message.contains("User \"") => {
            tracing::warn!(doing, error = s.message, "a right of the gateway's own is missing");
            let text = format!("{doing}: the gateway itself may not do that here");
            status(Code::FailedPrecondition, reason::PERMISSION_DENIED, text)
        }
        kube::Error::Api(s) if s.code == 403 => status(Code::FailedPrecondition, reason::PERMISSION_DENIED, format!("{doing}: {}", s.message)),
        _ => unavailable(),
    }
}
