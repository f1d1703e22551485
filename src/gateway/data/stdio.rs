//! The agent in a container whose main process is another: it is started there through the API server's `pods/exec` and called over its
//! standard input and output, so that commands and files work alike everywhere.
//!
//! The frames are read here and not by kube, whose reader hangs when the connection is lost.

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

/// Longest wait for the API server to begin.
const BEGIN: Duration = Duration::from_secs(12);
/// Between two signs of life, so that nothing on the way takes the connection for dead.
const PING: Duration = Duration::from_secs(30);
/// How long the agent may take to end once nobody calls it any more.
const END: Duration = Duration::from_secs(10);
/// Bytes that wait in either direction.
const BUFFER: usize = 64 * 1024;
/// Bytes of one frame.
const FRAME: usize = 32 * 1024;
/// Bytes kept of what was said on stderr and as the status.
const SAID: usize = 500;

// Channels of `v5.channel.k8s.io`: the first byte of each frame.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
/// The next byte names a channel that has ended.
const CLOSE: u8 = 255;

/// What was said on the way, for the caller of an agent that never began.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<String>>);

impl Said {
    /// The text, if there is any.
    pub fn text(&self) -> Option<String> {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!said.is_empty()).then(|| said.trim().to_owned())
    }

    fn add(&self, text: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = SAID.saturating_sub(said.len());
        said.extend(text.chars().filter(|c| !c.is_control() || *c == ' ').take(room));
    }
}

/// Starts an agent in a container. It ends when its client is dropped.
///
/// # Errors
/// UNAVAILABLE, or what the API server says of the container.
pub async fn connect(cluster: &ApiClient, namespace: &str, pod: &str, container: &str) -> Result<(Agent, Said), Status> {
    let parameters = AttachParams {
        container: Some(container.into()),
        stdin: true,
        stdout: true,
        stderr: true,
        ..AttachParams::default()
    };
    let request = Request::new(Pod::url_path(&(), Some(namespace))).exec(pod, AgentCommand::Stdio.argv(BINARY), &parameters);
    let request = request.map_err(|e| of_kube("starting an agent in the container", &kube::Error::BuildRequest(e)))?;
    let connection = tokio::time::timeout(BEGIN, cluster.inner().connect(request)).await;
    let late = |_| {
        retry(
            Code::Unavailable,
            reason::BACKEND_UNAVAILABLE,
            "the container could not be entered in time",
            Duration::from_secs(1),
        )
    };
    let connection = connection.map_err(late)?.map_err(|e| of_kube("starting an agent in the container", &e))?;
    let said = Said::default();
    let closes = connection.supports_stream_close();
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    tokio::spawn(pump(connection.into_stream(), theirs, closes, said.clone()));
    let agent = AgentClient::over(ours).await;
    let agent = agent.map_err(|e| retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, e.to_string(), Duration::from_secs(1)))?;
    Ok((agent, said))
}

/// Copies both ways until the process has ended or the connection is lost; `stream` then ends. `closes`: the end of standard input can
/// be told. Neither way waits for the other, and each waits for its reader.
async fn pump<S>(socket: WebSocketStream<S>, stream: DuplexStream, closes: bool, said: Said)
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
                Some((&STDERR, text)) => said.add(&String::from_utf8_lossy(text)),
                Some((&STATUS, status)) => {
                    said.add(&failure(status));
                    break;
                }
                _ => {}
            }
        }
    };
    let up = async {
        let mut ping = tokio::time::interval(PING);
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
        // Without a way to tell the end, the end of the connection has to.
        if closes && sink.send(Message::Binary(Bytes::from_static(&[CLOSE, STDIN]))).await.is_ok() {
            tokio::time::sleep(END).await;
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

/// The text of a status that is no success.
fn failure(status: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Outcome {
        status: String,
        message: String,
    }
    let outcome: Outcome = serde_json::from_slice(status).unwrap_or_default();
    if outcome.status == "Success" { String::new() } else { outcome.message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::Role;

    type Socket = WebSocketStream<DuplexStream>;

    /// The API server's end of the connection, and ours of the stream.
    async fn begin(closes: bool) -> (Socket, DuplexStream, Said) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let said = Said::default();
        let client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        tokio::spawn(pump(client, theirs, closes, said.clone()));
        (WebSocketStream::from_raw_socket(far, Role::Server, None).await, ours, said)
    }

    async fn next(server: &mut Socket) -> Option<Vec<u8>> {
        loop {
            match server.next().await? {
                Ok(Message::Binary(frame)) => return Some(frame.to_vec()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    fn frame(channel: u8, data: &[u8]) -> Message {
        Message::Binary([&[channel], data].concat().into())
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_of_input_is_told() {
        let (mut server, mut ours, said) = begin(true).await;
        ours.write_all(b"hello").await.unwrap();
        assert_eq!(next(&mut server).await.unwrap(), b"\0hello");
        server.send(frame(STDOUT, b"out")).await.unwrap();
        server.send(frame(STDERR, b"war\nning")).await.unwrap();
        let mut buffer = [0; 3];
        ours.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"out");
        ours.shutdown().await.unwrap();
        assert_eq!(next(&mut server).await.unwrap(), [CLOSE, STDIN]);
        server.send(frame(STDOUT, b"last")).await.unwrap();
        server.send(frame(STATUS, br#"{"status":"Success"}"#)).await.unwrap();
        let mut rest = vec![];
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!((rest.as_slice(), said.text().as_deref()), (&b"last"[..], Some("warning")));
    }

    #[tokio::test]
    async fn a_connection_that_is_lost_ends_the_stream() {
        let (server, mut ours, said) = begin(true).await;
        drop(server);
        assert_eq!(tokio::time::timeout(END / 2, ours.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        assert_eq!(said.text(), None);
    }

    #[tokio::test]
    async fn why_nothing_was_started_is_kept() {
        let (mut server, mut ours, said) = begin(true).await;
        server
            .send(frame(STATUS, br#"{"status":"Failure","message":"no such file"}"#))
            .await
            .unwrap();
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(said.text().as_deref(), Some("no such file"));
        said.add(&"x".repeat(5000));
        assert_eq!(said.text().unwrap().len(), SAID);
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_connection() {
        for closes in [true, false] {
            let (mut server, ours, _) = begin(closes).await;
            drop(ours);
            let last = tokio::time::timeout(END / 2, next(&mut server)).await.unwrap();
            assert_eq!(last, closes.then(|| vec![CLOSE, STDIN]));
        }
    }

    #[tokio::test]
    async fn output_waits_for_its_reader_while_input_goes_on() {
        let (mut server, mut ours, _) = begin(true).await;
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while sent < 64
                && tokio::time::timeout(Duration::from_millis(300), server.send(frame(STDOUT, &[7; FRAME])))
                    .await
                    .is_ok()
            {
                sent += 1;
            }
            (server, sent)
        });
        let (mut server, sent) = flood.await.unwrap();
        assert!(sent < 64, "2 MiB cannot be in flight");
        ours.write_all(b"still").await.unwrap();
        assert_eq!(next(&mut server).await.unwrap(), b"\0still");
    }
}
