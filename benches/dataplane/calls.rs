//! Calls to the gateway as the SDK makes them, and the alternatives without it: `kubectl exec`, and `pods/exec` over a
//! WebSocket.

use bytes::Bytes;
use futures::{Stream, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tonic::Streaming;

use crate::callers::Caller;
use crate::fixture::Failure;
use pb::exec_stream_request::Message as Input;
use pb::exec_stream_response::Message as Output;
use sandbox_operator::proto::sandbox as pb;

/// Size of the buffer for reads from `kubectl` and from a WebSocket.
const READ: usize = 256 * 1024;
/// Size of an input message, as in the SDK.
const PIECE: usize = 64 * 1024;
/// The container of a sandbox's pod.
const MAIN: &str = "main";

/// Receives output.
pub type Sink<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// A request as the SDK sends it, for a sandbox so small that many fit on one node.
pub fn create() -> pb::CreateSandboxRequest {
    let resources = |cpu: &str, memory: &str| {
        Some(pb::Resources {
            cpu: cpu.into(),
            memory: memory.into(),
            gpu: None,
        })
    };
    let container = pb::Container {
        name: MAIN.into(),
        image: "python:3.11".into(),
        command: "/bin/sh".into(),
        args: words(&["-c", "trap \"exit 0\" TERM INT; sleep infinity & wait"]),
        resource_requirements: Some(pb::ResourceRequirements {
            requests: resources("10m", "32Mi"),
            limits: resources("2", "1Gi"),
        }),
        ..pb::Container::default()
    };
    let spec = pb::SandboxSpec {
        containers: vec![container],
        max_lifetime_seconds: 7200,
        ..pb::SandboxSpec::default()
    };
    pb::CreateSandboxRequest {
        sandbox: Some(pb::Sandbox {
            spec: Some(spec),
            ..pb::Sandbox::default()
        }),
        request_id: uuid::Uuid::new_v4().to_string(),
    }
}

/// A command.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Exec: the unary call, which the SDK does not use.
pub async fn exec(caller: &mut Caller, sandbox_id: &str, command: Vec<String>) -> Result<(), Failure> {
    let request = pb::ExecRequest {
        sandbox_id: sandbox_id.into(),
        command,
        ..pb::ExecRequest::default()
    };
    succeeded(caller.exec(request).await?.into_inner().exit_code)
}

/// Starts a command and returns once it is ready. As in the SDK, an empty input is closed at once.
pub async fn begin(
    caller: &mut Caller,
    sandbox_id: &str,
    command: Vec<String>,
    input: impl Stream<Item = Input> + Send + 'static,
) -> Result<Streaming<pb::ExecStreamResponse>, Failure> {
    let init = Input::Init(pb::ExecStreamInit {
        sandbox_id: sandbox_id.into(),
        command,
        ..pb::ExecStreamInit::default()
    });
    let messages = stream::StreamExt::chain(stream::iter([init]), input);
    let requests = stream::StreamExt::map(messages, |message| pb::ExecStreamRequest { message: Some(message) });
    let mut answers = caller.stream_exec(requests).await?.into_inner();
    match next(&mut answers).await? {
        Output::Ready(_) => Ok(answers),
        other => Err(format!("not ready: {other:?}").into()),
    }
}

/// Runs a command with StreamExec to its end.
pub async fn stream_exec(
    caller: &mut Caller,
    sandbox_id: &str,
    command: Vec<String>,
    input: impl Stream<Item = Input> + Send + 'static,
    sink: Sink<'_>,
) -> Result<(), Failure> {
    let mut answers = begin(caller, sandbox_id, command, input).await?;
    loop {
        match next(&mut answers).await? {
            Output::Output(output) => sink(&output.data),
            Output::Exit(exit) => return succeeded(exit.exit_code),
            other => return Err(format!("unexpected message: {other:?}").into()),
        }
    }
}

/// Input of a command, as the SDK sends it.
pub fn input(mut content: Bytes) -> impl Stream<Item = Input> + Send + 'static {
    let pieces = std::iter::from_fn(move || {
        let piece = content.split_to(content.len().min(PIECE));
        (!piece.is_empty()).then_some(Input::Stdin(piece))
    });
    stream::iter(pieces.chain([Input::Close(pb::ExecStreamClose {})]))
}

async fn next(answers: &mut Streaming<pb::ExecStreamResponse>) -> Result<Output, Failure> {
    Ok(answers
        .message()
        .await?
        .and_then(|answer| answer.message)
        .ok_or("the stream ended without an exit code")?)
}

fn succeeded(exit_code: i32) -> Result<(), Failure> {
    match exit_code {
        0 => Ok(()),
        code => Err(format!("the command exited with {code}").into()),
    }
}

/// WriteFile.
pub async fn write_file(caller: &mut Caller, sandbox_id: &str, path: &str, content: Bytes) -> Result<(), Failure> {
    let request = pb::WriteFileRequest {
        sandbox_id: sandbox_id.into(),
        path: path.into(),
        content,
        ..pb::WriteFileRequest::default()
    };
    caller.write_file(request).await?;
    Ok(())
}

/// ReadFile.
pub async fn read_file(caller: &mut Caller, sandbox_id: &str, path: &str) -> Result<Bytes, Failure> {
    let request = pb::ReadFileRequest {
        sandbox_id: sandbox_id.into(),
        path: path.into(),
        ..pb::ReadFileRequest::default()
    };
    Ok(caller.read_file(request).await?.into_inner().content)
}

/// GetSandbox, which the gateway answers itself.
pub async fn get(caller: &mut Caller, sandbox_id: &str) -> Result<pb::Sandbox, Failure> {
    let request = pb::GetSandboxRequest {
        sandbox_id: sandbox_id.into(),
    };
    Ok(caller.get_sandbox(request).await?.into_inner())
}

/// `pods/exec` over a WebSocket.
pub async fn websocket(pods: &Api<Pod>, pod: &str, command: Vec<String>, sink: Sink<'_>) -> Result<(), Failure> {
    let params = AttachParams::default()
        .container(MAIN)
        .stderr(false)
        .max_stdout_buf_size(READ);
    let mut process = pods.exec(pod, command, &params).await?;
    let status = process.take_status().ok_or("no status")?;
    read(process.stdout().ok_or("no output")?, sink).await?;
    match status.await.and_then(|status| status.status).as_deref() {
        Some("Success") => Ok(()),
        other => Err(format!("pods/exec ended with {other:?}").into()),
    }
}

/// `kubectl exec`, as a process.
pub async fn kubectl(namespace: &str, pod: &str, command: Vec<String>, sink: Sink<'_>) -> Result<(), Failure> {
    let mut process = Command::new("kubectl")
        .args(["exec", "--namespace", namespace, pod, "--container", MAIN, "--"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    read(process.stdout.take().ok_or("no output")?, sink).await?;
    match process.wait().await? {
        status if status.success() => Ok(()),
        status => Err(format!("kubectl exec: {status}").into()),
    }
}

async fn read(mut from: impl AsyncRead + Unpin, sink: Sink<'_>) -> Result<(), Failure> {
    let mut buffer = vec![0; READ];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => sink(&buffer[..bytes]),
        }
    }
}
