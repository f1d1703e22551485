//! The access log, which is the audit log: one line of JSON on stdout per call, whatever the log filter says. No secrets, no payloads.

use http::HeaderMap;
use serde::Serialize;
use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::identity::Caller;
use super::methods::Method;
use super::metrics::Metrics;

/// Longest sandbox id in a line; callers may send anything.
const ID: usize = 63;

tokio::task_local! {
    static SANDBOX: Arc<OnceLock<String>>;
}

/// Says which sandbox the call under way is about. The first word counts. Only from the task that serves the call.
pub fn about(sandbox: &str) {
    let id = || sandbox.chars().take(ID).collect();
    let _ = SANDBOX.try_with(|s| s.get_or_init(id).len());
}

/// Where the lines go.
pub type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// Lines to stdout.
pub fn stdout() -> Sink {
    Arc::new(|line| {
        // Nobody is left to tell that stdout is gone.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    })
}

/// One call, from its headers to the end of its answer. When it is dropped, the call has ended.
pub struct Record {
    method: &'static Method,
    peer: IpAddr,
    /// Who calls, once that is known.
    pub caller: Option<Caller>,
    sandbox: Arc<OnceLock<String>>,
    outcome: Option<(Code, String)>,
    began: Instant,
    metrics: Metrics,
    sink: Sink,
}

/// A line, as it is written.
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
}

impl Record {
    /// A call begins.
    pub fn begin(method: &'static Method, peer: IpAddr, metrics: &Metrics, sink: &Sink) -> Record {
        metrics.began(&method.name);
        Record {
            method,
            peer,
            caller: None,
            sandbox: Arc::default(),
            outcome: None,
            began: Instant::now(),
            metrics: metrics.clone(),
            sink: sink.clone(),
        }
    }

    /// Runs what serves the call, so that it can say which sandbox it is [`about`].
    pub async fn within<T>(&self, serve: impl Future<Output = T>) -> T {
        SANDBOX.scope(self.sandbox.clone(), serve).await
    }

    /// Reads the outcome from the headers or trailers that have it. Returns it if it is an error.
    pub fn outcome(&mut self, headers: &HeaderMap) -> Option<Status> {
        let status = Status::from_header_map(headers)?;
        self.set(&status);
        Some(status).filter(|s| s.code() != Code::Ok)
    }

    /// The call ends so.
    pub fn set(&mut self, status: &Status) {
        let reason = status.get_details_error_info().map(|i| i.reason).unwrap_or_default();
        self.outcome = Some((status.code(), reason));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Without an outcome the caller went away.
        let (code, reason) = self.outcome.take().unwrap_or((Code::Cancelled, String::new()));
        let (code, took) = (name(code), self.began.elapsed());
        self.metrics.ended(&self.method.name, code, took);
        // Probes are nobody's calls.
        if self.method.open {
            return;
        }
        let line = Line {
            log: "access",
            time: jiff::Timestamp::now(),
            method: &self.method.name,
            peer: self.peer,
            caller: self.caller.as_ref().map(|c| c.user.as_str()),
            tenant: self.caller.as_ref().map(|c| c.namespace.as_str()),
            sandbox: self.sandbox.get().map(String::as_str),
            code,
            reason: &reason,
            duration_ms: took.as_millis(),
        };
        if let Ok(line) = serde_json::to_string(&line) {
            (self.sink)(&line);
        }
    }
}

/// A code's name, as gRPC's own documents have it.
fn name(code: Code) -> &'static str {
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
        let kept = lines.clone();
        let sink: Sink = Arc::new(move |line| kept.lock().unwrap().push(serde_json::from_str(line).unwrap()));
        (sink, lines)
    }

    fn begin(path: &str, sink: &Sink) -> Record {
        Record::begin(Method::of(path), IpAddr::from([10, 0, 0, 7]), &Metrics::default(), sink)
    }

    #[tokio::test]
    async fn a_line_says_who_did_what_to_which_sandbox_and_how_it_ended() {
        let (sink, lines) = lines();
        let mut record = begin("/coreweave.sandbox.v1.SandboxService/GetSandbox", &sink);
        record.caller = Some(Caller::service_account("team-a", "bot"));
        record
            .within(async {
                about("sbx-1\n\"x");
                about("sbx-2");
            })
            .await;
        record.set(&super::super::error::sandbox_not_found("sbx-1"));
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
    async fn who_goes_away_is_cancelled_and_a_probe_is_not_logged() {
        let (sink, lines) = lines();
        let record = begin("/coreweave.sandbox.v1.SandboxService/StreamExec", &sink);
        record.within(async { about(&"x".repeat(10_000)) }).await;
        drop(record);
        drop(begin("/grpc.health.v1.Health/Check", &sink));
        about("outside of any call");
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0]["code"].as_str(), lines[0].get("caller")), (Some("CANCELLED"), None));
        assert_eq!(lines[0]["sandbox"].as_str().unwrap().len(), ID);
    }
}
