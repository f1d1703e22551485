//! Commands beside the main one.

use super::fd::Fd;
use super::output::{OutputKind, drain_in_background, forward};
use super::reaper::{Reaper, Started};
use super::start_error::StartError;
use super::terminal;
use crate::agent_contract::POD_UID_VARIABLE;
use crate::net::grpc_timeout;
use crate::proto::agent::exec_request::Message as RequestMessage;
use crate::proto::agent::exec_response::Message as ResponseMessage;
use crate::proto::agent::{ExecError, ExecRequest, ExecResponse, ExecStart, Ready, TerminalSize};
use futures::future::{FutureExt, Shared, join, join_all, pending};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Most bytes of the text with which a child reports that it could not execute its command.
const MAX_REPORT: u64 = 1024;

type Sender = mpsc::Sender<Result<ExecResponse, Status>>;
/// The response to [`exec`].
pub(super) type ResponseStream = ReceiverStream<Result<ExecResponse, Status>>;

/// Starts a command and forwards its input and output until it ends or the caller is gone.
pub(super) async fn exec(
    reaper: &Reaper,
    request: Request<Streaming<ExecRequest>>,
) -> Result<Response<ResponseStream>, Status> {
    let timeout = grpc_timeout(request.metadata());
    let mut requests = request.into_inner();
    let Some(RequestMessage::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message must be start"));
    };
    // Capacity for one frame: further output stays in the pipe, and blocks the command, until the caller reads.
    let (responses, stream) = mpsc::channel(1);
    match Running::start(reaper, &start).await {
        Ok(running) => drop(tokio::spawn(serve(running, requests, responses, timeout))),
        Err(error) => drop(responses.try_send(Ok(response(ResponseMessage::Error(error.into()))))),
    }
    Ok(Response::new(ReceiverStream::new(stream)))
}

async fn serve(running: Running, requests: Streaming<ExecRequest>, responses: Sender, timeout: Option<Duration>) {
    let Running {
        process,
        input,
        outputs,
    } = running;
    let exit = process.exit.clone();
    let output = async {
        responses
            .send(Ok(response(ResponseMessage::Ready(Ready {}))))
            .await
            .ok();
        let outputs = outputs.into_iter().map(|Output { fd, kind, message }| {
            forward(
                fd,
                kind,
                &responses,
                move |data| Ok(response(message(data))),
                exit.clone(),
            )
        });
        join(exit.clone(), join_all(outputs)).await
    };
    let mut input = pin!(forward_input(requests, input));
    // Declared after the input, and so dropped before it: a command that is killed must not see its input end first,
    // and take a part of it for all of it. `select!` drops the futures that it owns before it runs a branch, so it only
    // borrows the input.
    let process = process;
    let timed_out = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => pending().await,
        }
    };
    tokio::select! {
        (exit, still_open) = output => {
            still_open.into_iter().flatten().for_each(drain_in_background);
            let code = exit.map_or(i32::from(u8::MAX), i32::from);
            responses.send(Ok(response(ResponseMessage::Exit(code)))).await.ok();
        }
        never = &mut input => match never {},
        () = responses.closed() => {}
        () = timed_out => {
            drop(process);
            responses.send(Err(Status::deadline_exceeded("the command took too long"))).await.ok();
        }
    }
}

/// Forwards input for as long as the command runs. Requests that end without `close` leave the input open: a cancelled
/// call looks just like one that has ended, and the command must not take part of its input for all of it before it is
/// killed.
async fn forward_input(mut requests: Streaming<ExecRequest>, mut input: Input) -> Infallible {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) | Err(_) => return pending().await,
        };
        match request.message {
            Some(RequestMessage::Stdin(data)) => input.write(&data).await,
            Some(RequestMessage::Resize(size)) => input.resize(&size),
            Some(RequestMessage::Close(_)) => input.close().await,
            Some(RequestMessage::Start(_)) | None => {}
        }
    }
}

/// A command's standard input.
struct Input {
    /// None once either side has closed it.
    stdin: Option<Fd>,
    terminal: Option<Fd>,
    /// Whether the last byte did not end a line.
    mid_line: bool,
}

impl Input {
    /// Drops the data if the command has closed its input.
    async fn write(&mut self, data: &[u8]) {
        if let Some(last) = data.last() {
            self.mid_line = !matches!(last, b'\n' | b'\r');
        }
        if let Some(stdin) = &self.stdin
            && stdin.write_all(data).await.is_err()
        {
            self.stdin = None;
        }
    }

    fn resize(&self, size: &TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let _ = terminal::resize(terminal, size);
        }
    }

    async fn close(&mut self) {
        if let Some(stdin) = self.stdin.take()
            && self.terminal.is_some()
        {
            // In the middle of a line the first one only passes on the unfinished line.
            for _ in 0..=usize::from(self.mid_line) {
                let _ = stdin.write_all(terminal::END_OF_INPUT).await;
            }
        }
    }
}

/// One of a command's outputs, and the message that carries it.
struct Output {
    fd: Fd,
    kind: OutputKind,
    message: fn(bytes::Bytes) -> ResponseMessage,
}

/// A command that has been started.
struct Running {
    process: Process,
    input: Input,
    outputs: Vec<Output>,
}

impl Running {
    async fn start(reaper: &Reaper, start: &ExecStart) -> Result<Running, StartError> {
        let Some((program, args)) = start.command.split_first() else {
            return Err(StartError::new("the command is empty"));
        };
        if !start.working_dir.is_empty()
            && let Err(error) = std::fs::metadata(&start.working_dir)
        {
            return Err(StartError::new(format!(
                "working directory {}: {error}",
                start.working_dir
            )));
        }
        let failed = |error: io::Error| StartError::from_io(&error, &start.command, environment(start));
        match &start.terminal {
            None => {
                let mut command = Command::new(program);
                command.args(args).process_group(0);
                command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                Running::with_pipes(reaper, command, start).map_err(failed)
            }
            Some(size) => {
                let (terminal, command) = terminal::open(size, &start.command).map_err(failed)?;
                let (running, report) = Running::with_terminal(reaper, command, start, terminal).map_err(failed)?;
                match read_report(report).await {
                    None => Ok(running),
                    Some(error) => Err(failed(error)),
                }
            }
        }
    }

    fn with_pipes(reaper: &Reaper, command: Command, start: &ExecStart) -> io::Result<Running> {
        let (process, mut child) = Process::spawn(reaper, command, start)?;
        let stdin = child.stdin.take().map(Fd::new).transpose()?;
        let mut outputs = vec![];
        for (fd, message) in [
            (child.stdout.take().map(Fd::new), ResponseMessage::Stdout as fn(_) -> _),
            (child.stderr.take().map(Fd::new), ResponseMessage::Stderr),
        ] {
            outputs.extend(fd.transpose()?.map(|fd| Output {
                fd,
                kind: OutputKind::Pipe,
                message,
            }));
        }
        let input = Input {
            stdin,
            terminal: None,
            mid_line: false,
        };
        Ok(Running {
            process,
            input,
            outputs,
        })
    }

    fn with_terminal(
        reaper: &Reaper,
        command: Command,
        start: &ExecStart,
        terminal: Fd,
    ) -> io::Result<(Running, Option<Fd>)> {
        let (process, mut child) = Process::spawn(reaper, command, start)?;
        let input = Input {
            stdin: Some(terminal.try_clone()?),
            terminal: Some(terminal.try_clone()?),
            mid_line: false,
        };
        let output = Output {
            fd: terminal,
            kind: OutputKind::Terminal,
            message: ResponseMessage::Stdout,
        };
        let report = child.stdout.take().map(Fd::new).transpose()?;
        let outputs = vec![output];
        Ok((
            Running {
                process,
                input,
                outputs,
            },
            report,
        ))
    }
}

/// The complete environment of a command.
fn environment(start: &ExecStart) -> impl Iterator<Item = (OsString, OsString)> {
    let inherited = std::env::vars_os().filter(|(name, _)| {
        name != POD_UID_VARIABLE && !name.to_str().is_some_and(|name| start.env.contains_key(name))
    });
    inherited.chain(start.env.iter().map(|(name, value)| (name.into(), value.into())))
}

/// The error with which the child could not execute its command; none once it has.
async fn read_report(pipe: Option<Fd>) -> Option<io::Error> {
    let mut report = vec![];
    if let Some(pipe) = pipe {
        let _ = pipe.take(MAX_REPORT).read_to_end(&mut report).await;
    }
    terminal::parse_report(&report)
}

/// A command's process. Dropping it kills the process and everything that it has started.
struct Process {
    reaper: Reaper,
    pid: Pid,
    /// Whether it leads a session, not only a group.
    session: bool,
    exit: Shared<oneshot::Receiver<u8>>,
}

impl Process {
    fn spawn(reaper: &Reaper, mut command: Command, start: &ExecStart) -> io::Result<(Process, Child)> {
        command.env_remove(POD_UID_VARIABLE).envs(&start.env);
        if !start.working_dir.is_empty() {
            command.current_dir(&start.working_dir);
        }
        let Started { pid, child, exit } = reaper.spawn(&mut command)?;
        let process = Process {
            reaper: reaper.clone(),
            pid,
            session: start.terminal.is_some(),
            exit: exit.shared(),
        };
        Ok((process, child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reaper.if_running(self.pid, |pid| {
            if self.session {
                terminal::kill_session(pid);
            }
            let _ = kill_process_group(pid, Signal::KILL);
            // The process that will lead a session may not lead one yet.
            let _ = kill_process(pid, Signal::KILL);
        });
    }
}

fn response(message: ResponseMessage) -> ExecResponse {
    ExecResponse { message: Some(message) }
}

impl From<StartError> for ExecError {
    fn from(error: StartError) -> ExecError {
        ExecError {
            exit_code: error.exit_code.into(),
            message: error.message,
        }
    }
}
