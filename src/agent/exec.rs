//! Commands beside the main one.

use super::fd::Fd;
use super::output::{Kind, leave_behind, pump};
use super::reaper::{NOT_EXECUTABLE, Reaper, Started, not_started};
use super::terminal;
use crate::agent_contract::POD_UID_VARIABLE;
use crate::net::grpc_timeout;
use crate::proto::agent::exec_request::Message as Ask;
use crate::proto::agent::exec_response::Message as Tell;
use crate::proto::agent::{ExecError, ExecRequest, ExecResponse, ExecStart, Ready, TerminalSize};
use futures::future::{FutureExt, Shared, join, join_all, pending};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Most bytes of the reason why a command could not become what it should.
const MAX_REASON: u64 = 1024;

type Sender = mpsc::Sender<Result<ExecResponse, Status>>;
/// The answer to [`exec`].
pub type Answers = ReceiverStream<Result<ExecResponse, Status>>;

/// Starts a command and passes on what comes and goes, until it has ended or nobody listens.
pub async fn exec(reaper: &Reaper, request: Request<Streaming<ExecRequest>>) -> Result<Response<Answers>, Status> {
    let deadline = grpc_timeout(request.metadata());
    let mut requests = request.into_inner();
    let Some(Ask::Start(start)) = requests.message().await?.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message must be start"));
    };
    // Room for one frame: output waits in the pipe, and with it the command, until it is taken.
    let (answers, stream) = mpsc::channel(1);
    match Running::start(reaper, &start).await {
        Ok(running) => drop(tokio::spawn(serve(running, requests, answers, deadline))),
        Err(error) => drop(answers.try_send(Ok(answer(Tell::Error(error))))),
    }
    Ok(Response::new(ReceiverStream::new(stream)))
}

async fn serve(running: Running, requests: Streaming<ExecRequest>, answers: Sender, deadline: Option<Duration>) {
    let Running { process, input, outputs } = running;
    let exit = process.exit.clone();
    let output = async {
        answers.send(Ok(answer(Tell::Ready(Ready {})))).await.ok();
        let outputs = outputs
            .into_iter()
            .map(|Output { fd, kind, tell }| pump(fd, kind, &answers, move |data| Ok(answer(tell(data))), exit.clone()));
        join(exit.clone(), join_all(outputs)).await
    };
    let input = feed(requests, input);
    let timer = async {
        match deadline {
            Some(left) => tokio::time::sleep(left).await,
            None => pending().await,
        }
    };
    tokio::select! {
        (exit, left) = output => {
            left.into_iter().flatten().for_each(leave_behind);
            let code = exit.map_or(i32::from(u8::MAX), i32::from);
            answers.send(Ok(answer(Tell::Exit(code)))).await.ok();
        }
        never = input => match never {},
        () = answers.closed() => {}
        () = timer => {
            drop(process);
            answers.send(Err(Status::deadline_exceeded("the command took too long"))).await.ok();
        }
    }
}

/// Passes input on. Requests that end without `close` are broken off: the command is about to be killed, and must not take half of its
/// input for all of it. A cancelled call looks just like one that has ended.
async fn feed(mut requests: Streaming<ExecRequest>, mut input: Input) -> Infallible {
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            // With the input still open.
            Ok(None) | Err(_) => return pending().await,
        };
        match request.message {
            Some(Ask::Stdin(data)) => input.write(&data).await,
            Some(Ask::Resize(size)) => input.resize(&size),
            Some(Ask::Close(_)) => input.close().await,
            Some(Ask::Start(_)) | None => {}
        }
    }
}

/// Where input goes.
struct Input {
    /// Until it is closed, by either side.
    stdin: Option<Fd>,
    terminal: Option<Fd>,
    /// The last byte was none that ends a line.
    mid_line: bool,
}

impl Input {
    /// What a command does not want is dropped.
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
            // In the middle of a line the first one only hands over what there is of it.
            for _ in 0..=usize::from(self.mid_line) {
                let _ = stdin.write_all(terminal::END_OF_INPUT).await;
            }
        }
    }
}

/// Where output comes from.
struct Output {
    fd: Fd,
    kind: Kind,
    tell: fn(bytes::Bytes) -> Tell,
}

/// A command that has been started.
struct Running {
    process: Process,
    input: Input,
    outputs: Vec<Output>,
}

impl Running {
    async fn start(reaper: &Reaper, start: &ExecStart) -> Result<Running, ExecError> {
        let Some((program, args)) = start.command.split_first() else {
            return Err(exec_error(NOT_EXECUTABLE, "there is no command"));
        };
        if !start.working_dir.is_empty()
            && let Err(error) = std::fs::metadata(&start.working_dir)
        {
            return Err(exec_error(NOT_EXECUTABLE, format!("working directory {}: {error}", start.working_dir)));
        }
        let failed = |error: io::Error| exec_error(not_started(&error), format!("{program}: {error}"));
        match &start.terminal {
            None => {
                let mut command = Command::new(program);
                command.args(args).process_group(0);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                Running::with_pipes(reaper, command, start).map_err(failed)
            }
            Some(size) => {
                let (terminal, command) = terminal::open(size, &start.command).map_err(failed)?;
                let (running, reason) = Running::with_terminal(reaper, command, start, terminal).map_err(failed)?;
                match said(reason).await.split_first() {
                    None => Ok(running),
                    Some((code, reason)) => Err(exec_error(*code, format!("{program}: {}", String::from_utf8_lossy(reason)))),
                }
            }
        }
    }

    fn with_pipes(reaper: &Reaper, command: Command, start: &ExecStart) -> io::Result<Running> {
        let (process, mut child) = Process::spawn(reaper, command, start)?;
        let stdin = child.stdin.take().map(Fd::new).transpose()?;
        let mut outputs = vec![];
        for (fd, tell) in [
            (child.stdout.take().map(Fd::new), Tell::Stdout as fn(_) -> _),
            (child.stderr.take().map(Fd::new), Tell::Stderr),
        ] {
            outputs.extend(fd.transpose()?.map(|fd| Output { fd, kind: Kind::Pipe, tell }));
        }
        let input = Input {
            stdin,
            terminal: None,
            mid_line: false,
        };
        Ok(Running { process, input, outputs })
    }

    fn with_terminal(reaper: &Reaper, command: Command, start: &ExecStart, terminal: Fd) -> io::Result<(Running, Option<Fd>)> {
        let (process, mut child) = Process::spawn(reaper, command, start)?;
        let input = Input {
            stdin: Some(terminal.try_clone()?),
            terminal: Some(terminal.try_clone()?),
            mid_line: false,
        };
        let output = Output {
            fd: terminal,
            kind: Kind::Terminal,
            tell: Tell::Stdout,
        };
        let reason = child.stdout.take().map(Fd::new).transpose()?;
        let outputs = vec![output];
        Ok((Running { process, input, outputs }, reason))
    }
}

/// What the child says instead of becoming the command.
async fn said(pipe: Option<Fd>) -> Vec<u8> {
    let mut reason = vec![];
    if let Some(pipe) = pipe {
        let _ = pipe.take(MAX_REASON).read_to_end(&mut reason).await;
    }
    reason
}

/// A command's process: killed, with all that it started, when nobody waits for it any more.
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
        self.reaper.while_running(self.pid, |pid| {
            if self.session {
                terminal::kill_session(pid);
            }
            let _ = kill_process_group(pid, Signal::KILL);
            // A process that was to become the leader of a session may not be one yet.
            let _ = kill_process(pid, Signal::KILL);
        });
    }
}

fn answer(message: Tell) -> ExecResponse {
    ExecResponse { message: Some(message) }
}

fn exec_error(code: u8, message: impl Into<String>) -> ExecError {
    ExecError {
        exit_code: code.into(),
        message: message.into(),
    }
}
