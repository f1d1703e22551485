//! Exec and StreamExec.

use futures::stream;
use prost_types::Timestamp;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status, Streaming};

use crate::agent_client::ResetToken;
use crate::gateway::dataplane::agent_handle::{AgentHandle, Agents};
use crate::gateway::dataplane::deadline::Deadline;
use crate::gateway::dataplane::exec_check::check;
use crate::gateway::dataplane::exec_input::{request as agent_request, requests, terminal_size};
use crate::gateway::dataplane::response_stream::ResponseStream;
use crate::gateway::edge::access_log::record_sandbox;
use crate::gateway::edge::body_budget::{BodyBudget, SMALL_BODY};
use crate::gateway::edge::request_body::Aborted;
use crate::gateway::error::{Violation, draining, invalid};
use crate::proto::agent::exec_request::Message as RequestMsg;
use crate::proto::agent::exec_response::Message as ResponseMsg;
use crate::proto::agent::{CloseStdin, ExecResponse, ExecStart, TerminalSize};
use crate::proto::sandbox as pb;
use pb::exec_stream_output::Stream as OutputStream;
use pb::exec_stream_request::Message as InputMsg;
use pb::exec_stream_response::Message as OutputMsg;

/// Bytes of stdout, and of stderr, in a response unless the request sets a limit.
const DEFAULT_OUTPUT: usize = 4 << 20;
/// Longest wait for memory for output. It is short, because waiting calls hold a part of their memory and block each
/// other.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);
/// Largest limit that a request can set.
const MAX_OUTPUT: usize = 32 << 20;

/// Exec: runs a command without input, and returns its output in one response.
///
/// # Errors
/// NOT_FOUND; FAILED_PRECONDITION unless the sandbox is running; INVALID_ARGUMENT with the wrong fields.
pub(crate) async fn exec(
    agents: &Agents,
    draining_begins: &CancellationToken,
    namespace: &str,
    request: Request<pb::ExecRequest>,
) -> Result<pb::ExecResponse, Status> {
    let deadline = Deadline::of(request.metadata());
    let budget = BodyBudget::of(&request);
    let request = request.into_inner();
    check(&request.sandbox_id, &request.command, &request.env)?;
    let mut limit = match usize::try_from(request.max_output_bytes) {
        Err(_) => {
            return Err(invalid(vec![Violation::new(
                "max_output_bytes",
                "must not be negative",
            )]));
        }
        Ok(0) => DEFAULT_OUTPUT,
        Ok(bytes) => bytes.min(MAX_OUTPUT),
    };
    let work = async {
        let mut handle = agents
            .handle(namespace, &request.sandbox_id, &request.container)
            .await?;
        let start = agent_request(RequestMsg::Start(start(request.command, request.env, None)));
        let no_input = agent_request(RequestMsg::Close(CloseStdin {}));
        let mut responses = match handle.agent.exec(stream::iter([start, no_input])).await {
            Ok(responses) => responses.into_inner(),
            Err(error) => return Err(handle.to_caller_error(&error).await),
        };
        // The agent has received the request, and the command may run for hours: release its memory.
        if let Some(budget) = &budget {
            budget.release_request();
        }
        let (mut stdout, mut stderr) = (Collected::default(), Collected::default());
        let exit_code = loop {
            let response = tokio::select! {
                response = next(&mut responses, &handle) => response?,
                // Others wait for the memory, and the command may still run for hours: its output is truncated.
                () = BodyBudget::revoked(budget.as_ref()), if limit > 0 => {
                    limit = 0;
                    stdout.truncate(SMALL_BODY / 2);
                    stderr.truncate(SMALL_BODY / 2);
                    budget.iter().for_each(BodyBudget::release_response);
                    continue;
                }
            };
            match response {
                ResponseMsg::Ready(_) => {}
                ResponseMsg::Stdout(data) => stdout.add(&data, limit),
                ResponseMsg::Stderr(data) => stderr.add(&data, limit),
                ResponseMsg::Exit(code) => break code,
                // As a shell does.
                ResponseMsg::Error(error) => {
                    stderr.add(error.message.as_bytes(), limit);
                    break error.exit_code;
                }
            }
            // The command has started: without memory for its output, the output is truncated, and marked as truncated.
            let kept = stdout.kept.len() + stderr.kept.len();
            if BodyBudget::reserve_response(budget.as_ref(), kept, OUTPUT_WAIT)
                .await
                .is_err()
            {
                limit = 0;
            }
        };
        Ok(pb::ExecResponse {
            exit_code,
            stdout_truncated: stdout.truncated(),
            stdout_bytes_produced: stdout.produced,
            stdout: stdout.kept.into(),
            stderr_truncated: stderr.truncated(),
            stderr_bytes_produced: stderr.produced,
            stderr: stderr.kept.into(),
        })
    };
    tokio::select! {
        result = deadline.within(work) => result,
        () = draining_begins.cancelled() => Err(draining()),
    }
}

/// StreamExec: runs a command with input, and streams its output.
///
/// # Errors
/// As [`exec`].
pub(crate) async fn stream_exec(
    agents: &Agents,
    draining_begins: &CancellationToken,
    namespace: &str,
    request: Request<Streaming<pb::ExecStreamRequest>>,
) -> Result<ResponseStream<pb::ExecStreamResponse>, Status> {
    let deadline = Deadline::of(request.metadata());
    let aborted = Aborted::of(&request);
    let budget = BodyBudget::of(&request);
    let mut inputs = request.into_inner();
    let work = async {
        let first = inputs.message().await?.and_then(|first| first.message);
        let Some(InputMsg::Init(init)) = first else {
            return Err(invalid(vec![Violation::new("init", "must be sent first")]));
        };
        record_sandbox(&init.sandbox_id);
        check(&init.sandbox_id, &init.command, &init.env)?;
        let terminal = init
            .tty
            .then(|| terminal_size(init.tty_width, init.tty_height))
            .transpose()?;
        let mut handle = agents.handle(namespace, &init.sandbox_id, &init.container).await?;
        let start = start(init.command, init.env, terminal);
        let (errors, input_errors) = mpsc::channel(1);
        let mut request = Request::new(requests(start, inputs, aborted, budget, errors));
        let reset = CancellationToken::new();
        request.extensions_mut().insert(ResetToken(reset.clone()));
        let reset = reset.drop_guard();
        let responses = match handle.agent.exec(request).await {
            Ok(responses) => responses.into_inner(),
            Err(error) => return Err(handle.to_caller_error(&error).await),
        };
        Ok(Session {
            responses,
            handle,
            deadline,
            draining_begins: draining_begins.clone(),
            input_errors,
            ended: false,
            _reset: reset,
        })
    };
    let session = tokio::select! {
        session = deadline.within(work) => session?,
        () = draining_begins.cancelled() => return Err(draining()),
    };
    Ok(Box::pin(stream::unfold(session, Session::next)))
}

/// A running command. Dropping it ends the command.
struct Session {
    responses: Streaming<ExecResponse>,
    handle: AgentHandle,
    deadline: Deadline,
    draining_begins: CancellationToken,
    input_errors: mpsc::Receiver<Status>,
    ended: bool,
    _reset: DropGuard,
}

impl Session {
    /// The next response: one for each of the agent's.
    async fn next(mut self) -> Option<(Result<pb::ExecStreamResponse, Status>, Session)> {
        if self.ended {
            return None;
        }
        let message = tokio::select! {
            response = next(&mut self.responses, &self.handle) => response.map(output),
            passed = self.deadline.passed() => Err(passed),
            Some(error) = self.input_errors.recv() => Err(error),
            () = self.draining_begins.cancelled() => Err(draining()),
        };
        self.ended = !matches!(message, Ok(OutputMsg::Ready(_) | OutputMsg::Output(_)));
        Some((
            message.map(|message| pb::ExecStreamResponse { message: Some(message) }),
            self,
        ))
    }
}

/// The agent's next response. Its stream must not end before the command does.
async fn next(responses: &mut Streaming<ExecResponse>, handle: &AgentHandle) -> Result<ResponseMsg, Status> {
    loop {
        match responses.message().await {
            Ok(Some(ExecResponse { message: Some(message) })) => return Ok(message),
            Ok(Some(ExecResponse { message: None })) => {}
            Ok(None) => return Err(handle.to_caller_error(&Status::unknown("ended early")).await),
            Err(error) => return Err(handle.to_caller_error(&error).await),
        }
    }
}

fn output(response: ResponseMsg) -> OutputMsg {
    let frame = |stream: OutputStream, data| {
        OutputMsg::Output(pb::ExecStreamOutput {
            stream: stream.into(),
            data,
        })
    };
    let now = Some(Timestamp::from(SystemTime::now()));
    match response {
        ResponseMsg::Ready(_) => OutputMsg::Ready(pb::ExecStreamReady { ready_time: now }),
        ResponseMsg::Stdout(data) => frame(OutputStream::Stdout, data),
        ResponseMsg::Stderr(data) => frame(OutputStream::Stderr, data),
        ResponseMsg::Exit(exit_code) => OutputMsg::Exit(pb::ExecStreamExit {
            exit_code,
            completed_time: now,
        }),
        ResponseMsg::Error(error) => OutputMsg::Error(pb::ExecStreamError {
            code: "EXEC_FAILED".into(),
            message: error.message,
        }),
    }
}

fn start(command: Vec<String>, env: HashMap<String, String>, terminal: Option<TerminalSize>) -> ExecStart {
    ExecStart {
        command,
        env,
        working_dir: String::new(),
        terminal,
    }
}

/// Output up to a limit.
#[derive(Default)]
struct Collected {
    kept: Vec<u8>,
    produced: i64,
}

impl Collected {
    fn add(&mut self, data: &[u8], limit: usize) {
        let take = limit.saturating_sub(self.kept.len()).min(data.len());
        self.kept.extend_from_slice(&data[..take]);
        self.produced += i64::try_from(data.len()).unwrap_or(i64::MAX);
    }

    fn truncate(&mut self, limit: usize) {
        self.kept.truncate(limit);
        self.kept.shrink_to_fit();
    }

    fn truncated(&self) -> bool {
        i64::try_from(self.kept.len()).is_ok_and(|kept| kept < self.produced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collected_output_is_bounded_and_counted() {
        let mut collected = Collected::default();
        collected.add(b"abc", 4);
        assert!(!collected.truncated());
        collected.add(b"def", 4);
        collected.add(b"", 4);
        assert_eq!(
            (collected.kept.as_slice(), collected.produced, collected.truncated()),
            (&b"abcd"[..], 6, true)
        );
    }
}
