//! Exec and StreamExec.

use futures::stream;
use prost_types::Timestamp;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status, Streaming};

use super::deadline::Deadline;
use super::exec_input::{ask, requests, size};
use super::target::{self, Place};
use crate::agent_client::CutOff;
use crate::gateway::audit::about;
use crate::gateway::error::{Violation, draining, invalid};
use crate::gateway::identity::Caller;
use crate::gateway::limits::Room;
use crate::gateway::request_body::BrokenOff;
use crate::gateway::service::Answers;
use crate::gateway::state::Gateway;
use crate::proto::agent::exec_request::Message as Ask;
use crate::proto::agent::exec_response::Message as Told;
use crate::proto::agent::{CloseStdin, ExecResponse, ExecStart, TerminalSize};
use crate::proto::sandbox as pb;
use pb::exec_stream_output::Stream as Channel;
use pb::exec_stream_request::Message as Input;
use pb::exec_stream_response::Message as Output;

/// Bytes of command and environment together: an agent takes messages of 1 MiB.
const MAX_COMMAND: usize = 1 << 20;
/// Bytes of stdout, and of stderr, in one answer where the caller names no limit.
const DEFAULT_OUTPUT: usize = 4 << 20;
/// The most that a caller can ask for.
const MAX_OUTPUT: usize = 32 << 20;

/// Exec: a command without input, its output in one answer.
///
/// # Errors
/// NOT_FOUND, FAILED_PRECONDITION unless the sandbox is RUNNING.
pub async fn exec(gateway: &Gateway, caller: &Caller, request: Request<pb::ExecRequest>) -> Result<pb::ExecResponse, Status> {
    let deadline = Deadline::of(request.metadata());
    let room = Room::of(&request);
    let request = request.into_inner();
    check(&request.sandbox_id, &request.command, &request.env)?;
    let mut limit = match usize::try_from(request.max_output_bytes) {
        Err(_) => return Err(invalid(vec![Violation::new("max_output_bytes", "must not be negative")])),
        Ok(0) => DEFAULT_OUTPUT,
        Ok(bytes) => bytes.min(MAX_OUTPUT),
    };
    let work = async {
        let mut place = target::place(gateway, caller, &request.sandbox_id, &request.container).await?;
        let start = ask(Ask::Start(start(request.command, request.env, None)));
        let mut answers = match place.agent.exec(stream::iter([start, ask(Ask::Close(CloseStdin {}))])).await {
            Ok(answers) => answers.into_inner(),
            Err(error) => return Err(place.lost(&error).await),
        };
        let (mut stdout, mut stderr) = (Collected::default(), Collected::default());
        let exit_code = loop {
            match next(&mut answers, &place).await? {
                Told::Ready(_) => {}
                Told::Stdout(data) => stdout.add(&data, limit),
                Told::Stderr(data) => stderr.add(&data, limit),
                Told::Exit(code) => break code,
                // As a shell would say it.
                Told::Error(error) => {
                    stderr.add(error.message.as_bytes(), limit);
                    break error.exit_code;
                }
            }
            // The command has begun: where there is no room for its output it is cut, and said to be.
            let kept = stdout.kept.len() + stderr.kept.len();
            if Room::for_answer(room.as_ref(), kept, Duration::ZERO).await.is_err() {
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
        () = gateway.draining.cancelled() => Err(draining()),
    }
}

/// StreamExec.
///
/// # Errors
/// As [`exec`].
pub async fn stream_exec(
    gateway: &Gateway,
    caller: &Caller,
    request: Request<Streaming<pb::ExecStreamRequest>>,
) -> Result<Answers<pb::ExecStreamResponse>, Status> {
    let deadline = Deadline::of(request.metadata());
    let broken = BrokenOff::of(&request);
    let mut inputs = request.into_inner();
    let work = async {
        let first = inputs.message().await?.and_then(|first| first.message);
        let Some(Input::Init(init)) = first else {
            return Err(invalid(vec![Violation::new("init", "must come first")]));
        };
        about(&init.sandbox_id);
        check(&init.sandbox_id, &init.command, &init.env)?;
        let terminal = init.tty.then(|| size(init.tty_width, init.tty_height)).transpose()?;
        let mut place = target::place(gateway, caller, &init.sandbox_id, &init.container).await?;
        let start = start(init.command, init.env, terminal);
        let (wrong, wrongs) = mpsc::channel(1);
        let mut request = Request::new(requests(start, inputs, broken, wrong));
        let cut_off = CancellationToken::new();
        request.extensions_mut().insert(CutOff(cut_off.clone()));
        let cut_off = cut_off.drop_guard();
        let answers = match place.agent.exec(request).await {
            Ok(answers) => answers.into_inner(),
            Err(error) => return Err(place.lost(&error).await),
        };
        Ok(Session {
            answers,
            place,
            deadline,
            draining: gateway.draining.clone(),
            wrongs,
            over: false,
            _cut_off: cut_off,
        })
    };
    let session = tokio::select! {
        session = deadline.within(work) => session?,
        () = gateway.draining.cancelled() => return Err(draining()),
    };
    Ok(Box::pin(stream::unfold(session, Session::answer)))
}

/// A command under way. Dropping it ends the command.
struct Session {
    answers: Streaming<ExecResponse>,
    place: Place,
    deadline: Deadline,
    draining: CancellationToken,
    /// What is wrong with the input.
    wrongs: mpsc::Receiver<Status>,
    over: bool,
    _cut_off: DropGuard,
}

impl Session {
    /// The next answer: one for each of the agent's, as it comes.
    async fn answer(mut self) -> Option<(Result<pb::ExecStreamResponse, Status>, Session)> {
        if self.over {
            return None;
        }
        let answer = tokio::select! {
            told = next(&mut self.answers, &self.place) => told.map(output),
            passed = self.deadline.passed() => Err(passed),
            Some(wrong) = self.wrongs.recv() => Err(wrong),
            () = self.draining.cancelled() => Err(draining()),
        };
        self.over = !matches!(answer, Ok(Output::Ready(_) | Output::Output(_)));
        Some((answer.map(|message| pb::ExecStreamResponse { message: Some(message) }), self))
    }
}

/// The agent's next word. Its stream must not end before the command has.
async fn next(answers: &mut Streaming<ExecResponse>, place: &Place) -> Result<Told, Status> {
    loop {
        match answers.message().await {
            Ok(Some(ExecResponse { message: Some(told) })) => return Ok(told),
            Ok(Some(ExecResponse { message: None })) => {}
            Ok(None) => return Err(place.lost(&Status::unknown("ended early")).await),
            Err(error) => return Err(place.lost(&error).await),
        }
    }
}

fn output(told: Told) -> Output {
    let frame = |channel: Channel, data| {
        Output::Output(pb::ExecStreamOutput {
            stream: channel.into(),
            data,
        })
    };
    let now = Some(Timestamp::from(SystemTime::now()));
    match told {
        Told::Ready(_) => Output::Ready(pb::ExecStreamReady { ready_time: now }),
        Told::Stdout(data) => frame(Channel::Stdout, data),
        Told::Stderr(data) => frame(Channel::Stderr, data),
        Told::Exit(exit_code) => Output::Exit(pb::ExecStreamExit {
            exit_code,
            completed_time: now,
        }),
        Told::Error(error) => Output::Error(pb::ExecStreamError {
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

/// What of a request can be seen to be wrong.
fn check(sandbox_id: &str, command: &[String], env: &HashMap<String, String>) -> Result<(), Status> {
    let mut violations = vec![];
    let mut wrong = |field: &str, text: &str| violations.push(Violation::new(field, text));
    if sandbox_id.is_empty() {
        wrong("sandbox_id", "must be set");
    }
    if command.first().is_none_or(String::is_empty) {
        wrong("command", "must name a program");
    }
    if command.iter().any(|word| word.contains('\0')) {
        wrong("command", "must not contain NUL");
    }
    if env
        .iter()
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        wrong("env", "names must not be empty or contain `=`, and nothing may contain NUL");
    }
    // Each string has a few bytes of its own on the way.
    let bytes: usize = command.iter().chain(env.keys()).chain(env.values()).map(|s| s.len() + 8).sum();
    if bytes > MAX_COMMAND {
        wrong("command", "command and env must have at most 1 MiB together");
    }
    if violations.is_empty() { Ok(()) } else { Err(invalid(violations)) }
}

/// Output up to a limit.
#[derive(Default)]
struct Collected {
    kept: Vec<u8>,
    produced: i64,
}

impl Collected {
    fn add(&mut self, data: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.kept.len()).min(data.len());
        self.kept.extend_from_slice(&data[..room]);
        self.produced += i64::try_from(data.len()).unwrap_or(i64::MAX);
    }

    fn truncated(&self) -> bool {
        i64::try_from(self.kept.len()).is_ok_and(|kept| kept < self.produced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_is_refused_by_field() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let none = HashMap::new();
        assert!(check("a", &words(&["ls", ""]), &none).is_ok());
        for (id, command, env, field) in [
            ("", words(&["ls"]), none.clone(), "sandbox_id"),
            ("a", words(&[]), none.clone(), "command"),
            ("a", words(&[""]), none.clone(), "command"),
            ("a", words(&["a\0b"]), none.clone(), "command"),
            ("a", vec!["x".repeat(MAX_COMMAND)], none.clone(), "command"),
            ("a", words(&["ls"]), HashMap::from([("A=".to_owned(), String::new())]), "env"),
            ("a", words(&["ls"]), HashMap::from([(String::new(), String::new())]), "env"),
        ] {
            assert!(check(id, &command, &env).unwrap_err().message().starts_with(field), "{field}");
        }
    }

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
