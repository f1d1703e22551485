//! A running agent and a client for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sandbox_operator::agent_contract::POD_UID_VARIABLE;
use sandbox_operator::proto::agent::agent_client::AgentClient;
use sandbox_operator::proto::agent::exec_request::Message as RequestMessage;
use sandbox_operator::proto::agent::exec_response::Message as ResponseMessage;
use sandbox_operator::proto::agent::{CloseStdin, ExecRequest, ExecResponse, ExecStart};
use sandbox_operator::token;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// Longest wait for any end state.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const POD: &str = "0b6d3c1e-pod";

pub type Client = AgentClient<InterceptedService<Channel, Bearer>>;

/// Adds a token to every call.
#[derive(Clone)]
pub struct Bearer(pub Option<String>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", MetadataValue::try_from(value.as_str()).unwrap());
        }
        Ok(request)
    }
}

pub fn key() -> Ed25519KeyPair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
}

pub fn public(key: &Ed25519KeyPair) -> String {
    BASE64.encode(key.public_key().as_ref())
}

pub fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        .try_into()
        .unwrap()
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("[::]:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A new directory, removed at the end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        let path = std::env::temp_dir().join(format!("agent-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running agent in a directory of its own.
pub struct Agent {
    pub process: Child,
    pub port: u16,
    pub key: Ed25519KeyPair,
    pub directory: TempDir,
    log: TempDir,
}

impl Agent {
    /// Serves. `command` is the main command; empty for none.
    pub fn start(command: &[&str]) -> Agent {
        Agent::with(free_port(), &[], command)
    }

    pub fn with(port: u16, options: &[&str], command: &[&str]) -> Agent {
        let (key, directory, log) = (key(), TempDir::new(), TempDir::new());
        let stderr = std::fs::File::create(log.join("stderr")).unwrap();
        let mut process = binary();
        process
            .args(["run", "--port", &port.to_string(), "--key", &public(&key)])
            .args(options)
            .arg("--")
            .args(command);
        process.env(POD_UID_VARIABLE, POD).current_dir(&directory.0);
        process.stdout(Stdio::piped()).stderr(stderr);
        Agent {
            process: process.spawn().unwrap(),
            port,
            key,
            directory,
            log,
        }
    }

    pub fn token(&self) -> String {
        format!("Bearer {}", token::sign(&self.key, POD, now()))
    }

    pub async fn client(&self) -> Client {
        self.client_with(Some(self.token())).await
    }

    pub async fn client_with(&self, token: Option<String>) -> Client {
        // Windows for commands that share a connection.
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))
            .unwrap()
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(64 * 1024 * 1024);
        let start = Instant::now();
        loop {
            match endpoint.connect().await {
                Ok(channel) => return AgentClient::with_interceptor(channel, Bearer(token)),
                Err(error) if start.elapsed() > PATIENCE => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal).unwrap();
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.log.join("stderr")).unwrap()
    }

    /// Waits for its exit. Returns exit code, stdout and stderr.
    pub async fn end(mut self) -> (i32, String, String) {
        let status = within("the agent's end", async || self.process.try_wait().unwrap()).await;
        let mut out = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        (status.code().unwrap(), out, self.stderr())
    }

    /// Private and resident memory in KiB.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (field("RssAnon:"), field("VmRSS:"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // SIGTERM first, so that its command ends too.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.process),
            rustix::process::Signal::TERM,
        );
        for _ in 0..100 {
            if self.process.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Shown if the test fails.
        eprint!("{}", self.stderr());
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-operator"));
    command.arg("agent");
    command
}

/// Polls until there is a result.
pub async fn within<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = poll().await {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process runs. A zombie does not.
pub fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn start(command: &[&str]) -> ExecStart {
    ExecStart {
        command: command.iter().map(ToString::to_string).collect(),
        ..ExecStart::default()
    }
}

pub fn shell(script: &str) -> ExecStart {
    start(&["sh", "-c", script])
}

pub fn request(message: RequestMessage) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

pub fn stdin(data: impl Into<Bytes>) -> ExecRequest {
    request(RequestMessage::Stdin(data.into()))
}

pub fn close() -> ExecRequest {
    request(RequestMessage::Close(CloseStdin {}))
}

/// A call in progress.
pub struct Call {
    pub requests: mpsc::Sender<ExecRequest>,
    pub responses: Streaming<ExecResponse>,
    /// Output after the last line that was read.
    rest: String,
}

impl Call {
    pub async fn start(client: &Client, start: ExecStart) -> Call {
        Call::request(client, start, |request| request).await
    }

    pub async fn request<S>(
        client: &Client,
        start: ExecStart,
        change: impl FnOnce(Request<ReceiverStream<ExecRequest>>) -> Request<S>,
    ) -> Call
    where
        S: tokio_stream::Stream<Item = ExecRequest> + Send + 'static,
    {
        let (requests, stream) = mpsc::channel(4);
        requests.send(request(RequestMessage::Start(start))).await.unwrap();
        let request = change(Request::new(ReceiverStream::new(stream)));
        let responses = client.clone().exec(request).await.unwrap().into_inner();
        let rest = String::new();
        Call {
            requests,
            responses,
            rest,
        }
    }

    pub async fn send(&self, request: ExecRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<ResponseMessage> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("a response in time")
            .unwrap()
            .map(|response| response.message.unwrap())
    }

    /// The next line of output.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.rest.find('\n') {
                return self.rest.drain(..=end).collect();
            }
            match self.next().await {
                Some(ResponseMessage::Stdout(data)) => self.rest.push_str(std::str::from_utf8(&data).unwrap()),
                Some(ResponseMessage::Ready(_)) => {}
                other => panic!("{other:?} after {:?}", self.rest),
            }
        }
    }

    /// Closes the input and collects the responses.
    pub async fn finish(self) -> Ended {
        // A command that has exited takes no more.
        let _ = self.requests.send(close()).await;
        self.rest().await
    }

    /// Collects the remaining responses without sending anything.
    pub async fn rest(mut self) -> Ended {
        self.requests = mpsc::channel(1).0;
        let mut ended = Ended::default();
        while let Some(message) = self.next().await {
            assert!(
                ended.exit.is_none() && ended.error.is_none(),
                "the end is the last message"
            );
            match message {
                ResponseMessage::Ready(_) => ended.ready = true,
                ResponseMessage::Stdout(data) => {
                    ended.stdout.extend_from_slice(&data);
                    ended.frames.push(data);
                }
                ResponseMessage::Stderr(data) => ended.stderr.extend_from_slice(&data),
                ResponseMessage::Exit(code) => ended.exit = Some(code),
                ResponseMessage::Error(error) => ended.error = Some((error.exit_code, error.message)),
            }
        }
        ended
    }
}

/// How a call ended.
#[derive(Debug, Default)]
pub struct Ended {
    pub ready: bool,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Each message of stdout.
    pub frames: Vec<Bytes>,
    pub exit: Option<i32>,
    pub error: Option<(i32, String)>,
}

impl Ended {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs a command without input to its end.
pub async fn run(client: &Client, start: ExecStart) -> Ended {
    Call::start(client, start).await.finish().await
}
