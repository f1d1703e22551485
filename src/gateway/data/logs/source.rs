//! A log as its bytes come in.

use bytes::{Bytes, BytesMut};
use futures::{AsyncBufRead, AsyncBufReadExt, FutureExt};
use std::time::Duration;

/// Most bytes of one entry.
pub const ENTRY: usize = 32 * 1024;
/// Without a byte for this long a connection is made anew: nothing else tells that its other end is gone.
const IDLE: Duration = Duration::from_secs(60);
/// The same for a connection that brought much: a kubelet that is behind when a log is rotated waits at the end of the old file.
const IDLE_AFTER_MUCH: Duration = Duration::from_secs(20);
const MUCH: usize = 1 << 20;

/// The next bytes of a log.
pub enum Next {
    /// At most [`ENTRY`].
    Bytes(Bytes),
    /// There are no more.
    End,
    /// None came for long.
    Idle,
    /// The connection broke; why.
    Failed(String),
}

/// A log as it is read.
pub struct Source<R> {
    read: R,
    brought: usize,
    /// What was found when more was looked for.
    after: Option<Next>,
}

impl<R: AsyncBufRead + Unpin> Source<R> {
    /// Nothing was read yet.
    pub fn new(read: R) -> Source<R> {
        Source {
            read,
            brought: 0,
            after: None,
        }
    }

    /// What comes next, with what is there behind it: a log that is followed comes line by line.
    pub async fn next(&mut self) -> Next {
        if let Some(after) = self.after.take() {
            return after;
        }
        let idle = if self.brought < MUCH { IDLE } else { IDLE_AFTER_MUCH };
        let Ok(first) = tokio::time::timeout(idle, self.some(ENTRY)).await else {
            return Next::Idle;
        };
        let Next::Bytes(first) = first else {
            return first;
        };
        let mut all = BytesMut::from(first);
        while all.len() < ENTRY {
            match self.some(ENTRY - all.len()).now_or_never() {
                Some(Next::Bytes(more)) => all.extend_from_slice(&more),
                other => {
                    self.after = other;
                    break;
                }
            }
        }
        Next::Bytes(all.freeze())
    }

    async fn some(&mut self, most: usize) -> Next {
        match self.read.fill_buf().await {
            Ok([]) => Next::End,
            Ok(bytes) => {
                let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(most)]);
                self.read.consume_unpin(bytes.len());
                self.brought += bytes.len();
                Next::Bytes(bytes)
            }
            Err(error) => Next::Failed(format!("the log broke off: {error}")),
        }
    }
}
