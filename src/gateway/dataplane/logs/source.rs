//! A container's log as the kubelet gives it, through the API server.

use bytes::{Bytes, BytesMut};
use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use jiff::Timestamp;
use kube::api::LogParams;
use std::pin::Pin;
use std::time::Duration;
use tonic::{Code, Status};

use super::render::first_timestamp;
use crate::gateway::error::{of_kube, reason, retry};
use crate::kube::ApiClient;

/// Most bytes of one entry.
pub(super) const ENTRY: usize = 32 * 1024;
/// A connection that brings nothing for this long is replaced: nothing else shows that its other end is gone.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Bytes with which a log is read to find its first timestamp, and the longest time for that.
const FIRST_BYTES: usize = 48;
const FIRST_TIMEOUT: Duration = Duration::from_secs(5);

/// The log of one container of a pod.
#[derive(Clone)]
pub(super) struct PodLog {
    pub(super) cluster: ApiClient,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// Which part of a log is read.
#[derive(Clone, Copy, Default)]
pub(super) struct Part {
    /// Continues as the log grows.
    pub(super) follow: bool,
    /// Whole seconds.
    pub(super) since: Option<Timestamp>,
    /// Entries of the container runtime from the end.
    pub(super) tail: Option<usize>,
}

impl PodLog {
    /// Opens the newest file of the log.
    ///
    /// # Errors
    /// UNAVAILABLE: the container or its log does not exist yet or any more. Otherwise the API server's.
    pub(super) async fn open(&self, part: Part) -> Result<LogReader, Status> {
        self.request(LogParams {
            follow: part.follow,
            since_time: part.since,
            tail_lines: part.tail.and_then(|n| i64::try_from(n).ok()),
            ..LogParams::default()
        })
        .await
    }

    /// The first timestamp in the newest file of the log, `None` while it is empty. It identifies the file.
    ///
    /// # Errors
    /// As [`PodLog::open`].
    pub(super) async fn first_timestamp(&self) -> Result<Option<Timestamp>, Status> {
        Ok(self.measure(FIRST_BYTES).await?.0)
    }

    /// The first timestamp in the newest file of the log, and the number of its bytes up to `most`.
    ///
    /// # Errors
    /// As [`PodLog::open`].
    pub(super) async fn measure(&self, most: usize) -> Result<(Option<Timestamp>, usize), Status> {
        let read = async {
            let mut reader = self
                .request(LogParams {
                    limit_bytes: i64::try_from(most).ok(),
                    ..LogParams::default()
                })
                .await?;
            let (mut head, mut bytes) = (Vec::new(), 0);
            loop {
                match reader.next(IDLE).await {
                    Chunk::Bytes(more) => {
                        bytes += more.len();
                        head.extend_from_slice(&more[..more.len().min(FIRST_BYTES.saturating_sub(head.len()))]);
                    }
                    Chunk::End if head.is_empty() => return Ok((None, 0)),
                    Chunk::End => {
                        let first = first_timestamp(&head).map(|first| (Some(first), bytes));
                        return first.ok_or_else(|| unavailable(String::from_utf8_lossy(&head).trim()));
                    }
                    Chunk::Idle => return Err(unavailable(STALLED)),
                    Chunk::Failed(text) => return Err(unavailable(&text)),
                }
            }
        };
        tokio::time::timeout(FIRST_TIMEOUT, read)
            .await
            .unwrap_or_else(|_| Err(unavailable(STALLED)))
    }

    async fn request(&self, parameters: LogParams) -> Result<LogReader, Status> {
        let parameters = LogParams {
            container: Some(self.container.clone()),
            timestamps: true,
            ..parameters
        };
        let opened = self.cluster.logs(&self.namespace, &self.pod, &parameters).await;
        opened
            .map(|log| LogReader::new(Box::pin(log)))
            .map_err(|error| match &error {
                // The container or its log is being created or deleted: the kubelet says which.
                kube::Error::Api(status) if matches!(status.code, 400 | 404) => unavailable(&status.message),
                error => of_kube("reading the log", error),
            })
    }
}

/// What is said of a connection that brings nothing for too long.
pub(super) const STALLED: &str = "the kubelet stopped sending the log";

/// UNAVAILABLE with a reason to try again.
pub(super) fn unavailable(text: &str) -> Status {
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        text,
        Duration::from_secs(1),
    )
}

/// The next bytes of a log.
pub(super) enum Chunk {
    /// At most [`ENTRY`] bytes.
    Bytes(Bytes),
    /// There are no more.
    End,
    /// None came in time.
    Idle,
    /// The connection failed; why.
    Failed(String),
}

/// One connection to a kubelet's log. The kubelet stops reading the file while nothing is read here, and keeps it open.
pub(super) struct LogReader {
    read: Pin<Box<dyn AsyncBufRead + Send>>,
    /// What was found when more was read ahead.
    ahead: Option<Chunk>,
}

impl LogReader {
    fn new(read: Pin<Box<dyn AsyncBufRead + Send>>) -> LogReader {
        LogReader { read, ahead: None }
    }

    /// The next bytes, joined with those that are there behind them: a log that is followed comes line by line. May be
    /// cancelled.
    pub(super) async fn next(&mut self, idle: Duration) -> Chunk {
        if let Some(ahead) = self.ahead.take() {
            return ahead;
        }
        let Ok(first) = tokio::time::timeout(idle, self.read(ENTRY)).await else {
            return Chunk::Idle;
        };
        let Chunk::Bytes(first) = first else {
            return first;
        };
        let mut all = BytesMut::from(first);
        while all.len() < ENTRY {
            match self.read(ENTRY - all.len()).now_or_never() {
                Some(Chunk::Bytes(more)) => all.extend_from_slice(&more),
                other => {
                    self.ahead = other;
                    break;
                }
            }
        }
        Chunk::Bytes(all.freeze())
    }

    async fn read(&mut self, most: usize) -> Chunk {
        match self.read.fill_buf().await {
            Ok([]) => Chunk::End,
            Ok(bytes) => {
                let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(most)]);
                self.read.consume_unpin(bytes.len());
                Chunk::Bytes(bytes)
            }
            Err(error) => Chunk::Failed(format!("the log broke off: {error}")),
        }
    }
}
