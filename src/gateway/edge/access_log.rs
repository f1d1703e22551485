//! The access log, which is also the audit log: one line of JSON per call on stdout, whatever the log filter is. It
//! holds no secrets and no payloads. Lines of calls that were not admitted are limited, so that they do not flood the
//! log: the next line says how many were left out.

use http::HeaderMap;
use serde::Serialize;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::gateway::edge::caller::Caller;
use crate::gateway::edge::methods::Method;
use crate::gateway::edge::refusals::Refusals;
use crate::gateway::metrics::Metrics;

/// Longest sandbox id in a line; callers may send anything.
const MAX_ID: usize = 63;

tokio::task_local! {
    static SANDBOX_ID: Arc<OnceLock<String>>;
}

/// Records the sandbox of the current call. Only the first id counts. Works only in the task that serves the call.
pub(crate) fn record_sandbox(id: &str) {
    let id = || id.chars().take(MAX_ID).collect();
    let _ = SANDBOX_ID.try_with(|s| s.get_or_init(id).len());
}

/// Takes the lines.
pub(crate) type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// Writes the lines to stdout.
pub(crate) fn stdout() -> Sink {
    Arc::new(|line| {
        // There is nowhere to report that stdout is closed.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    })
}

/// A call, from its headers to the end of its response. Dropping it ends the call and writes its line.
pub(crate) struct Record {
    method: &'static Method,
    peer: IpAddr,
    /// The caller, once authenticated.
    pub(crate) caller: Option<Caller>,
    sandbox_id: Arc<OnceLock<String>>,
    outcome: Option<(Code, String)>,
    started: Instant,
    metrics: Metrics,
    sink: Sink,
    refusals: Arc<Refusals>,
    admitted: bool,
}

/// A line of the log.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    log: &'static str,
    time: jiff::Timestamp,
    method: &'a str,
    peer: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    duration_ms: u128,
    /// Lines of refused calls that were left out before this one.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// Starts the record of a call.
    pub(crate) fn start(
        method: &'static Method,
        peer: IpAddr,
        metrics: &Metrics,
        sink: &Sink,
        refusals: Arc<Refusals>,
    ) -> Record {
        metrics.rpc_started(&method.name);
        Record {
            method,
            peer,
            caller: None,
            sandbox_id: Arc::default(),
            outcome: None,
            started: Instant::now(),
            metrics: metrics.clone(),
            sink: sink.clone(),
            refusals,
            admitted: false,
        }
    }

    /// Marks the call as admitted: its line is always written.
    pub(crate) fn set_admitted(&mut self) {
        self.admitted = true;
    }

    /// Runs the handler of the call, which may call [`record_sandbox`].
    pub(crate) async fn scope<T>(&self, handler: impl Future<Output = T>) -> T {
        SANDBOX_ID.scope(self.sandbox_id.clone(), handler).await
    }

    /// Sets the status from headers or trailers, if they contain it. Returns it if it is an error.
    pub(crate) fn set_from_headers(&mut self, headers: &HeaderMap) -> Option<Status> {
        let status = Status::from_header_map(headers)?;
        self.set_status(&status);
        Some(status).filter(|s| s.code() != Code::Ok)
    }

    /// Sets the status of the call.
    pub(crate) fn set_status(&mut self, status: &Status) {
        let reason = status.get_details_error_info().map(|i| i.reason).unwrap_or_default();
        self.outcome = Some((status.code(), reason));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without a status the caller disconnected.
        let (code, reason) = self.outcome.take().unwrap_or((Code::Cancelled, String::new()));
        let (code, duration) = (code_name(code), self.started.elapsed());
        self.metrics.rpc_finished(&self.method.name, code, duration);
        // Probes are not logged.
        if self.method.unauthenticated {
            return;
        }
        let Some(left_out) = self.refusals.line(self.peer, self.admitted) else {
            self.metrics.access_log_left_out.inc();
            return;
        };
        let line = Line {
            log: "access",
            time: jiff::Timestamp::now(),
            method: &self.method.name,
            peer: self.peer,
            caller: self.caller.as_ref().map(|c| c.user.as_str()),
            tenant: self.caller.as_ref().map(|c| c.namespace.as_str()),
            sandbox: self.sandbox_id.get().map(String::as_str),
            code,
            reason: &reason,
            duration_ms: duration.as_millis(),
            left_out,
        };
        if let Ok(line) = serde_json::to_string(&line) {
            (self.sink)(&line);
        }
    }
}

/// The name of a code in the gRPC specification.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn lines() -> (Sink, Arc<Mutex<Vec<serde_json::Value>>>) {
        let lines = Arc::new(Mutex::new(vec![]));
        let written = lines.clone();
        let sink: Sink = Arc::new(move |line| written.lock().unwrap().push(serde_json::from_str(line).unwrap()));
        (sink, lines)
    }

    fn start(path: &str, sink: &Sink) -> Record {
        let peer = IpAddr::from([10, 0, 0, 7]);
        Record::start(Method::of(path), peer, &Metrics::default(), sink, Arc::default())
    }

    #[tokio::test]
    async fn a_line_has_caller_method_sandbox_and_status() {
        let (sink, lines) = lines();
        let mut record = start("/coreweave.sandbox.v1.SandboxService/GetSandbox", &sink);
        record.caller = Some(Caller::service_account("team-a", "bot"));
        record
            .scope(async {
                record_sandbox("sbx-1\n\"x");
                record_sandbox("sbx-2");
            })
            .await;
        record.set_status(&crate::gateway::error::sandbox_not_found("sbx-1"));
        drop(record);
        let line = &lines.lock().unwrap()[0];
        for (field, value) in [
            ("log", "access"),
            ("method", "SandboxService/GetSandbox"),
            ("peer", "10.0.0.7"),
            ("caller", "system:serviceaccount:team-a:bot"),
            ("tenant", "team-a"),
            ("sandbox", "sbx-1\n\"x"),
            ("code", "NOT_FOUND"),
            ("reason", "CWSANDBOX_SANDBOX_NOT_FOUND"),
        ] {
            assert_eq!(line[field], value);
        }
        assert!(line["durationMs"].is_u64() && line["time"].is_string());
        assert_eq!(line.as_object().unwrap().len(), 10, "{line}");
    }

    #[tokio::test]
    async fn a_disconnect_is_cancelled_and_a_probe_is_not_logged() {
        let (sink, lines) = lines();
        let record = start("/coreweave.sandbox.v1.SandboxService/StreamExec", &sink);
        record.scope(async { record_sandbox(&"x".repeat(10_000)) }).await;
        drop(record);
        drop(start("/grpc.health.v1.Health/Check", &sink));
        record_sandbox("outside of any call");
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (lines[0]["code"].as_str(), lines[0].get("caller")),
            (Some("CANCELLED"), None)
        );
        assert_eq!(lines[0]["sandbox"].as_str().unwrap().len(), MAX_ID);
    }
}
