//! Reads a log and sends it to the caller.

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

use super::log::Log;
use super::read_error::ReadError;
use super::render::{RenderError, Renderer, Start, whole_characters};
use super::rotation::Files;
use super::session::Session;
use super::source::{Chunk, ENTRY, IDLE, LogReader, Part, PodLog, STALLED, unavailable};
use super::tail;
use crate::proto::sandbox as pb;

/// Bytes after which a session gets a new id. Nodes give out the newest file of a log only, of 10 MiB by default: the
/// later the line in an id, the longer a session can be resumed. Not more often: most sessions have one id.
const CHECKPOINT: u64 = 256 << 10;
/// Bytes that wait until it is known to which file they belong.
const HELD: usize = 512 << 10;
/// Longest wait for a caller after which the files of a log are checked, however small it is.
const BLOCKED: Duration = Duration::from_millis(500);
/// A container runtime goes on writing to the old file for a moment after it has created the next one.
const SWITCH: Duration = Duration::from_millis(200);
/// The kubelet looks once a second for more at the end of a file, or goes on in the next file at once: a file from
/// which nothing comes for longer than this, twice, was read to its end.
const QUIET: Duration = Duration::from_millis(1_100);
const QUIET_READS: u32 = 2;
/// Most bytes that fit between a kubelet and an unread connection here: 4 MiB of HTTP/2's window in the API server and
/// 4 MiB of its socket. A kubelet that has sent more was not at the end of the file before the connection was read.
const BUFFERS: usize = 8 << 20;
/// Wait for more of what the kubelet is sending.
const NO_MORE: Duration = Duration::from_millis(20);

/// How a read of the newest file ended.
enum Newest {
    /// There is a newer file.
    Rotated,
    /// With the log, the sandbox or the connection.
    End,
}

impl Log {
    /// Reads what the newest file has after `start`, which is then where the next read begins.
    pub(super) async fn read(&mut self, pod: &Pod) -> Result<(), ReadError> {
        let log = self.pod_log(pod);
        self.files = None;
        self.find_tail(&log).await?;
        let mut reader = log.open(self.part(false)).await?;
        let mut renderer = Renderer::new(self.start, self.timestamps);
        let result = loop {
            match reader.next(IDLE).await {
                Chunk::Bytes(bytes) => {
                    if let Err(error) = renderer.feed(&bytes) {
                        break Err(error.into());
                    }
                    self.deliver(&mut renderer, false, pod).await;
                }
                Chunk::End => break renderer.end().map_err(ReadError::from),
                Chunk::Idle => break Err(unavailable(STALLED).into()),
                Chunk::Failed(text) => break Err(unavailable(&text).into()),
            }
        };
        self.settle(&mut renderer, pod).await;
        result
    }

    /// Reads the log after `start` through its files, until it ends, the connection ends, or nothing comes for long.
    pub(super) async fn read_and_follow(&mut self, pod: &Pod) -> Result<(), ReadError> {
        let log = self.pod_log(pod);
        self.find_tail(&log).await?;
        let is_rotated = self.identify_files(&log).await?;
        let mut newest = if is_rotated {
            None
        } else {
            Some(log.open(self.part(true)).await?)
        };
        loop {
            if let Some(reader) = newest
                && let Newest::End = self.read_newest(reader, pod).await?
            {
                return Ok(());
            }
            let last = self.read_rotated(pod).await?;
            let files = self.files.as_mut().ok_or(ReadError::Gap)?;
            files.advance(last)?;
            self.start = Start::File(files.first());
            newest = files.follow_newest().await?;
        }
    }

    /// Identifies the file that is read next. Returns whether there is a newer one: the files that are known from the
    /// last connection are still open.
    async fn identify_files(&mut self, log: &PodLog) -> Result<bool, ReadError> {
        if let Some(files) = self.files.as_mut().filter(|files| files.is_watching()) {
            files.check().await?;
            return Ok(files.is_rotated());
        }
        let mut files = Files::new(log.clone());
        if self.start != Start::Beginning {
            files.identify().await?;
        }
        self.files = Some(files);
        Ok(false)
    }

    /// Reads the newest file, and sends what is in it while it is the newest.
    async fn read_newest(&mut self, mut reader: LogReader, pod: &Pod) -> Result<Newest, ReadError> {
        let mut renderer = Renderer::new(self.start, self.timestamps);
        let result = self.render_newest(&mut reader, &mut renderer, pod).await;
        drop(reader);
        self.settle(&mut renderer, pod).await;
        result
    }

    async fn render_newest(
        &mut self,
        reader: &mut LogReader,
        renderer: &mut Renderer,
        pod: &Pod,
    ) -> Result<Newest, ReadError> {
        let mut held = BytesMut::new();
        loop {
            let due = self.files.as_ref().and_then(|files| match held.len() {
                0 => files.next_check(),
                HELD.. => Some(Instant::now()),
                _ => Some(files.next_release()),
            });
            // What still comes comes first: it may be of a file that cannot be read again.
            let next = tokio::select! {
                biased;
                next = reader.next(IDLE), if held.len() < HELD => Some(next),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                () = self.end(), if held.is_empty() => return Ok(Newest::End),
            };
            let files = self.files.as_mut().ok_or(ReadError::Gap)?;
            if let Some(Chunk::Bytes(bytes)) = &next {
                held.extend_from_slice(bytes);
                files.received(bytes.len());
                if files.is_watching() {
                    continue;
                }
            }
            if files.is_watching() {
                files.check().await?;
                if files.is_rotated() {
                    return Ok(Newest::Rotated);
                }
                if let (Start::File(None), Some(first)) = (self.start, files.first()) {
                    renderer.expect_file(first);
                }
            }
            renderer.feed(&held)?;
            held.clear();
            self.deliver(renderer, false, pod).await;
            if self.files.as_ref().is_some_and(Files::is_large) {
                self.watch_files();
            }
            match next {
                Some(Chunk::Bytes(_)) | None => {}
                Some(Chunk::End) => return Ok(renderer.end().map(|()| Newest::End)?),
                Some(Chunk::Idle) => return Ok(Newest::End),
                Some(Chunk::Failed(text)) => return Err(unavailable(&text).into()),
            }
        }
    }

    /// Sends the rest of a file that was rotated. Returns the timestamp of its last line.
    async fn read_rotated(&mut self, pod: &Pod) -> Result<Option<Timestamp>, ReadError> {
        let files = self.files.as_mut().ok_or(ReadError::Gap)?;
        let mut reader = files.take_reserve().ok_or(ReadError::Gap)?;
        let mut renderer = Renderer::new(self.start, self.timestamps);
        if let Some(first) = files.first() {
            renderer.expect_file(first);
        }
        sleep(SWITCH).await;
        let result = self.render_rotated(&mut reader, &mut renderer, pod).await;
        self.settle(&mut renderer, pod).await;
        result?;
        renderer.end()?;
        if renderer.unskipped() > 0 {
            return Err(ReadError::Gap);
        }
        Ok(renderer.last_timestamp())
    }

    async fn render_rotated(
        &mut self,
        reader: &mut LogReader,
        renderer: &mut Renderer,
        pod: &Pod,
    ) -> Result<(), ReadError> {
        let (mut held, mut quiet, mut read) = (BytesMut::new(), 0, 0);
        loop {
            let mut end = None;
            while held.len() < HELD && end.is_none() {
                match reader.next(if held.is_empty() { QUIET } else { NO_MORE }).await {
                    Chunk::Bytes(bytes) => held.extend_from_slice(&bytes),
                    other => end = Some(other),
                }
            }
            let files = self.files.as_mut().ok_or(ReadError::Gap)?;
            files.check().await?;
            let later = files.later();
            let next_has_lines = !later.is_empty();
            renderer.stop_at_files(later);
            match renderer.feed(&held) {
                // It was at the end of this file after the rotation, and then went on.
                Err(RenderError::NextFile) if read >= BUFFERS => return Ok(()),
                result => result?,
            }
            read += held.len();
            quiet = if held.is_empty() { quiet + 1 } else { 0 };
            held.clear();
            self.deliver(renderer, false, pod).await;
            match end {
                Some(Chunk::Failed(_)) => return Err(ReadError::Gap),
                Some(Chunk::End) if self.container_ends().await? => return Ok(()),
                Some(Chunk::End) => return Err(ReadError::Gap),
                // A kubelet that had left this file would have sent the first line of the next one.
                _ if quiet >= QUIET_READS && next_has_lines => return Ok(()),
                _ => {}
            }
        }
    }

    fn watch_files(&mut self) {
        let first = self.session.as_ref().map(|session| session.first.at);
        if let Some(files) = &mut self.files {
            files.watch(first);
        }
    }

    /// Sends the rest, and sets where the next read begins.
    async fn settle(&mut self, renderer: &mut Renderer, pod: &Pod) {
        self.deliver(renderer, true, pod).await;
        self.past_end = renderer.unskipped() > 0;
        self.start = renderer.next();
    }

    /// Sends what is rendered, in entries that end with whole characters.
    async fn deliver(&mut self, renderer: &mut Renderer, all: bool, pod: &Pod) {
        let mut data = renderer.take(all).freeze();
        if let (None, Some(first)) = (&self.session, renderer.first()) {
            self.session = Some(Session {
                pod_uid: pod.uid().unwrap_or_default(),
                container: self.container.clone(),
                timestamps: self.timestamps,
                first,
                checkpoint: first,
                offset: 0,
            });
        }
        let mut id = self.session.as_ref().map(Session::id).unwrap_or_default();
        while !data.is_empty() {
            let piece = data.split_to(entry_length(&data));
            self.offset += piece.len() as u64;
            // With the last entry, which ends where the renderer is.
            if data.is_empty()
                && let Some(session) = &mut self.session
                && let Some((line, taken)) = renderer.current_line()
                && let Some(offset) = self
                    .offset
                    .checked_sub(taken)
                    .filter(|o| *o >= session.offset + CHECKPOINT)
            {
                (session.checkpoint, session.offset) = (line, offset);
                id = session.id();
            }
            self.send(piece, &id).await;
        }
    }

    /// Sends one entry. A caller that does not read keeps the files of the log from being read in time: they are opened
    /// meanwhile.
    async fn send(&mut self, data: Bytes, session: &str) {
        let entry = pb::LogEntry {
            data,
            log_session_id: session.into(),
            next_log_offset: self.offset,
            ..pb::LogEntry::default()
        };
        let entries = self.entries.clone();
        // Without a caller this fails, and our caller sees that as well.
        let mut sent = pin!(entries.send(Ok(entry)));
        while let Some(files) = &self.files {
            let due = if files.is_watching() {
                files.next_check_of_waiting()
            } else {
                Instant::now() + BLOCKED
            };
            tokio::select! {
                biased;
                _ = &mut sent => return,
                () = sleep_until(due) => {}
            }
            self.watch_files();
            if let Some(files) = &mut self.files {
                // The check before the next delivery sees the failure.
                let _ = files.check().await;
            }
        }
        let _ = sent.await;
    }

    /// Sets the start to the last lines, if the caller wants those.
    async fn find_tail(&mut self, log: &PodLog) -> Result<(), ReadError> {
        if let Some(lines) = self.tail {
            let tail = tail::find(log, lines, self.searches.as_ref()).await?;
            self.start = tail::later(tail, self.start);
            self.tail = None;
        }
        Ok(())
    }

    fn part(&self, follow: bool) -> Part {
        Part {
            follow,
            since: self.start.read_since(),
            tail: None,
        }
    }

    fn pod_log(&self, pod: &Pod) -> PodLog {
        PodLog {
            cluster: self.sandboxes.api.clone(),
            namespace: self.sandbox.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            container: self.container.clone(),
        }
    }
}

/// Length of the first entry of `data`: it does not cut a character.
fn entry_length(data: &[u8]) -> usize {
    if data.len() <= ENTRY {
        return data.len();
    }
    whole_characters(&data[..ENTRY])
}
