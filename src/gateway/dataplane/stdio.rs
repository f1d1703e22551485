//! The agent of a container that runs its image's entrypoint. It is started through the API server's `pods/exec` and
//! called over standard input and output, so that exec and files work the same in every container.
//!
//! The frames are parsed here and not by kube, whose reader hangs when the connection is lost.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::api::AttachParams;
use kube::core::Request;
use serde::Deserialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tonic::{Code, Status};

use crate::agent_client::{Agent, AgentClient};
use crate::agent_contract::{AgentCommand, BINARY};
use crate::gateway::error::{of_kube, reason, retry};
use crate::kube::ApiClient;

/// Longest wait for the API server to upgrade the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(12);
/// Pings keep idle connections open through proxies.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long the agent may take to exit after its standard input is closed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes buffered in each direction.
const BUFFER: usize = 64 * 1024;
/// Bytes of a frame.
const FRAME: usize = 32 * 1024;
/// Bytes kept of stderr and of the status.
const MAX_DIAGNOSTICS: usize = 500;

// Channels of `v5.channel.k8s.io`, in the first byte of each frame.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// Closes the channel in the next byte.
const CLOSE: u8 = 255;

/// Stderr and status of the agent's process, to explain why it did not start.
#[derive(Clone, Default)]
pub(crate) struct StartupDiagnostics(Arc<Mutex<String>>);

impl StartupDiagnostics {
    /// The text, if any.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!text.is_empty()).then(|| text.trim().to_owned())
    }

    fn add(&self, text: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = MAX_DIAGNOSTICS.saturating_sub(all.len());
        all.extend(text.chars().filter(|c| !c.is_control() || *c == ' ').take(left));
    }
}

/// Starts an agent in a container. It exits when its client is dropped.
///
/// # Errors
/// UNAVAILABLE, or the API server's error for the container.
pub(crate) async fn start(
    api: &ApiClient,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<(Agent, StartupDiagnostics), Status> {
    let params = AttachParams {
        container: Some(container.into()),
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachParams::default()
    };
    let request =
        Request::new(Pod::url_path(&(), Some(namespace))).exec(pod, AgentCommand::Stdio.argv(BINARY), &params);
    let request = request.map_err(|e| of_kube("starting an agent in the container", &kube::Error::BuildRequest(e)))?;
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, api.inner().connect(request)).await;
    let timed_out = |_| {
        retry(
            Code::Unavailable,
            reason::BACKEND_UNAVAILABLE,
            "the agent did not start in time",
            Duration::from_secs(1),
        )
    };
    let connection = connection
        .map_err(timed_out)?
        .map_err(|e| of_kube("starting an agent in the container", &e))?;
    let diagnostics = StartupDiagnostics::default();
    let can_close = connection.supports_stream_close();
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    tokio::spawn(pump(connection.into_stream(), theirs, can_close, diagnostics.clone()));
    let agent = AgentClient::over(ours).await;
    let agent = agent.map_err(|e| {
        retry(
            Code::Unavailable,
            reason::BACKEND_UNAVAILABLE,
            e.to_string(),
            Duration::from_secs(1),
        )
    })?;
    Ok((agent, diagnostics))
}

/// Copies in both directions until the process exits or the connection is lost; then `stream` ends. `can_close`: the
/// protocol can close standard input. Neither direction waits for the other, and each waits for its reader.
async fn pump<S>(socket: WebSocketStream<S>, stream: DuplexStream, can_close: bool, diagnostics: StartupDiagnostics)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (mut from_us, mut to_us) = tokio::io::split(stream);
    let down = async {
        while let Some(Ok(message)) = source.next().await {
            let Message::Binary(frame) = message else { continue };
            match frame.split_first() {
                Some((&STDOUT, data)) if to_us.write_all(data).await.is_err() => break,
                Some((&STDERR, text)) => diagnostics.add(&String::from_utf8_lossy(text)),
                Some((&STATUS, status)) => {
                    diagnostics.add(&failure_message(status));
                    break;
                }
                _ => {}
            }
        }
    };
    let up = async {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        let mut frame = vec![STDIN; 1 + FRAME];
        loop {
            let message = tokio::select! {
                read = from_us.read(&mut frame[1..]) => match read {
                    Ok(n) if n > 0 => Message::Binary(Bytes::copy_from_slice(&frame[..=n])),
                    _ => break,
                },
                _ = ping.tick() => Message::Ping(Bytes::new()),
            };
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // If the protocol cannot close standard input, closing the connection does.
        if can_close
            && sink
                .send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN])))
                .await
                .is_ok()
        {
            tokio::time::sleep(EXIT_TIMEOUT).await;
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

/// The message of a status other than success.
fn failure_message(status: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Outcome {
        status: String,
        message: String,
    }
    let outcome: Outcome = serde_json::from_slice(status).unwrap_or_default();
    if outcome.status == "Success" {
        String::new()
    } else {
        outcome.message
    }
}

#[cfg(test)]
mod tests;
