//! StreamLogs: what the kubelet keeps of a container's output. The gateway stores nothing: any replica resumes a log
//! from a session's id and an offset.

mod follow;
mod log;
mod read;
mod read_error;
pub(crate) mod render;
mod rotation;
pub(crate) mod session;
mod source;
mod tail;

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use self::log::{Log, error_entry, no_pod};
use self::render::Start;
use self::session::Session;
use crate::gateway::dataplane::response_stream::ResponseStream;
use crate::gateway::edge::log_search::LogSearchPermits;
use crate::gateway::error::{Violation, draining, invalid};
use crate::gateway::sandboxes::lookup::{SandboxLookup, container_name, container_state, no_container};
use crate::proto::sandbox as pb;

/// The most lines that can be requested from the end.
const MAX_TAIL: i32 = 100_000;
/// Entries that wait for the caller, of at most 32 KiB each.
const WAITING: usize = 4;
/// What a caller requests of a log.
#[derive(Debug, PartialEq)]
enum Request {
    /// The log from its beginning, from a time, or from one of its last lines.
    Fresh {
        tail: Option<usize>,
        since: Option<Timestamp>,
        timestamps: bool,
    },
    /// What comes after an offset in a session.
    Resume { session: Option<Session>, offset: u64 },
}

/// StreamLogs.
///
/// # Errors
/// NOT_FOUND. What ends a stream that has begun is its last entry.
pub(crate) async fn stream_logs(
    sandboxes: &SandboxLookup,
    draining_begins: &CancellationToken,
    namespace: &str,
    request: pb::StreamLogsRequest,
    searches: Option<LogSearchPermits>,
) -> Result<ResponseStream<pb::LogEntry>, Status> {
    let parsed = parse(&request)?;
    let mut sandbox = sandboxes.get(namespace, &request.sandbox_id).await?;
    if sandbox.status.as_ref().is_none_or(|s| s.pod_name.is_none()) {
        sandbox = sandboxes.get_live(namespace, &request.sandbox_id).await?;
    }
    let container = container_name(&sandbox, &request.container);
    let pod = sandboxes.pod(&sandbox).await?;
    if let Some(pod) = &pod
        && container_state(pod, &container).is_none()
    {
        return Err(no_container(&container));
    }
    let (entries, stream) = mpsc::channel(WAITING);
    let stream: ResponseStream<pb::LogEntry> = Box::pin(ReceiverStream::new(stream));
    let mut log = Log {
        entries: entries.clone(),
        sandboxes: sandboxes.clone(),
        start: Start::Beginning,
        session: None,
        timestamps: false,
        offset: 0,
        tail: None,
        searches,
        past_end: false,
        files: None,
        container,
        sandbox,
    };
    let mut resumed = false;
    match parsed {
        Request::Fresh {
            tail,
            since,
            timestamps,
        } => {
            log.start = since.map_or(Start::Beginning, Start::Since);
            (log.tail, log.timestamps) = (tail, timestamps);
        }
        Request::Resume { session, offset } => {
            let uid = pod.as_ref().and_then(ResourceExt::uid);
            // Without its pod a session exists, but its log does not.
            let same = |s: &Session| uid.as_ref().is_none_or(|uid| *uid == s.pod_uid) && s.container == log.container;
            let Some(session) = session.filter(same) else {
                // The channel is empty: nothing was sent yet.
                let _ = entries.try_send(Ok(error_entry("SESSION_NOT_FOUND", "no such log session")));
                return Ok(stream);
            };
            (resumed, log.offset, log.timestamps) = (true, offset, session.timestamps);
            log.start = session.start(offset);
            log.session = Some(session);
        }
    }
    if pod.is_none() && !request.follow {
        return no_pod(&log.sandbox).map(|()| stream);
    }
    let draining_begins = draining_begins.clone();
    let follow = request.follow;
    tokio::spawn(async move {
        let last = tokio::select! {
            last = log.run(follow, resumed) => last.err(),
            () = draining_begins.cancelled() => Some(Err(draining())),
            () = entries.closed() => None,
        };
        if let Some(last) = last {
            let _ = entries.send(last).await;
        }
    });
    Ok(stream)
}

fn parse(request: &pb::StreamLogsRequest) -> Result<Request, Status> {
    let mut violations = vec![];
    let mut wrong = |field: &str, text: &str| violations.push(Violation::new(field, text));
    if request.sandbox_id.is_empty() {
        wrong("sandbox_id", "must be set");
    }
    if !(0..=MAX_TAIL).contains(&request.tail_lines) {
        wrong("tail_lines", "must be between 0 and 100000");
    }
    let since = match request
        .since_time
        .map(|t| Timestamp::new(t.seconds, t.nanos))
        .transpose()
    {
        Ok(since) => since,
        Err(_) => {
            wrong("since_time", "is not a valid time");
            None
        }
    };
    let resumes = !request.resume_log_session_id.is_empty();
    if resumes && !request.follow {
        wrong("resume_log_session_id", "requires follow");
    }
    if resumes && (request.tail_lines != 0 || request.since_time.is_some() || request.timestamps) {
        wrong(
            "resume_log_session_id",
            "must not be combined with tail_lines, since_time or timestamps, which are the session's",
        );
    }
    if !resumes && request.resume_log_offset != 0 {
        wrong("resume_log_offset", "requires resume_log_session_id");
    }
    if !violations.is_empty() {
        return Err(invalid(violations));
    }
    Ok(if resumes {
        Request::Resume {
            session: Session::parse(&request.resume_log_session_id),
            offset: request.resume_log_offset,
        }
    } else {
        Request::Fresh {
            tail: usize::try_from(request.tail_lines).ok().filter(|n| *n > 0),
            since,
            timestamps: request.timestamps,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::StreamLogsRequest {
        pb::StreamLogsRequest {
            sandbox_id: "a".into(),
            ..pb::StreamLogsRequest::default()
        }
    }

    #[test]
    fn a_request_begins_a_log_or_resumes_a_session() {
        let session = "1:5b1e:main:t:1795438800123456789:2:1795438800123456789:2:0";
        let resume = pb::StreamLogsRequest {
            follow: true,
            resume_log_session_id: session.into(),
            resume_log_offset: 7,
            ..request()
        };
        let parsed = Session::parse(session);
        assert!(parsed.is_some());
        assert_eq!(
            parse(&resume).unwrap(),
            Request::Resume {
                session: parsed,
                offset: 7
            }
        );
        let garbage = pb::StreamLogsRequest {
            resume_log_session_id: "x".into(),
            ..resume.clone()
        };
        assert_eq!(
            parse(&garbage).unwrap(),
            Request::Resume {
                session: None,
                offset: 7
            }
        );
        let since = Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 2_000_000_000,
        });
        for (wrong, field) in [
            (
                pb::StreamLogsRequest {
                    follow: false,
                    ..resume.clone()
                },
                "resume_log_session_id",
            ),
            (
                pb::StreamLogsRequest {
                    tail_lines: 1,
                    ..resume.clone()
                },
                "resume_log_session_id",
            ),
            (
                pb::StreamLogsRequest {
                    timestamps: true,
                    ..resume
                },
                "resume_log_session_id",
            ),
            (
                pb::StreamLogsRequest {
                    resume_log_offset: 1,
                    ..request()
                },
                "resume_log_offset",
            ),
            (
                pb::StreamLogsRequest {
                    tail_lines: -1,
                    ..request()
                },
                "tail_lines",
            ),
            (
                pb::StreamLogsRequest {
                    tail_lines: 100_001,
                    ..request()
                },
                "tail_lines",
            ),
            (
                pb::StreamLogsRequest {
                    since_time: since,
                    ..request()
                },
                "since_time",
            ),
            (pb::StreamLogsRequest::default(), "sandbox_id"),
        ] {
            assert!(parse(&wrong).unwrap_err().message().starts_with(field), "{field}");
        }
    }
}
