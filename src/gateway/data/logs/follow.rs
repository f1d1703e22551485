//! Reads a log to its end, over as many connections as it takes.

use futures::AsyncBufRead;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tonic::{Code, Status};

use super::render::{Renderer, Start, Trouble};
use super::session::Session;
use super::source::{ENTRY, Next, Source};
use super::{later, no_pod, told};
use crate::api::Sandbox;
use crate::gateway::caches::Caches;
use crate::gateway::data::target;
use crate::gateway::error::{of_kube, reason, retry, sandbox_not_found};
use crate::gateway::limits::Room;
use crate::kube::ApiClient;
use crate::proto::sandbox as pb;

/// Bytes after which a session gets a new id. Nodes give out the newest file of a log only, of 10 MiB by default: what began before it
/// cannot be found again, so what was begun last is the best to go on from. Not more often: most sessions have one id.
const CHECKPOINT: u64 = 256 << 10;
/// Between two looks at a container that has not started or has just ended.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may fail one after another.
const FAILURES: u32 = 5;
/// Between two looks whether a sandbox has ended whose log is followed. Callers learn of the end of a stop later than that: see `Caches`.
const LOOK: Duration = Duration::from_millis(100);
/// Entries of the log beyond the lines that are asked for: one line may be several, and several lines may have one timestamp.
const SPARE: usize = 64;
/// Bytes of a line above which container runtimes make another entry of it.
const RUNTIME_ENTRY: usize = 16 << 10;

/// An entry, or what ends the stream instead.
type Entry = Result<pb::LogEntry, Status>;

/// A log as one caller gets it.
pub(super) struct Log {
    pub cluster: ApiClient,
    pub caches: Caches,
    pub sandbox: Arc<Sandbox>,
    pub container: String,
    /// Where the next read begins.
    pub start: Start,
    /// The session, from the first line on.
    pub session: Option<Session>,
    pub timestamps: bool,
    /// Bytes of the session that were delivered.
    pub offset: u64,
    /// Lines from the end with which to begin.
    pub tail: Option<usize>,
    /// Where the search for them takes its place from.
    pub room: Option<Room>,
    /// The last read ended before the first byte to be delivered.
    pub beyond: bool,
}

/// Why a read ended early.
enum Broken {
    Gap,
    Failed(Status),
}

/// What can be read.
enum Now {
    /// Nothing yet.
    NotStarted,
    Running(Pod),
    Ended(Pod),
    /// Nothing any more.
    Gone,
}

impl Log {
    /// Delivers everything there is, and with `follow` what is still to come. An error is the last entry.
    pub async fn run(&mut self, follow: bool, resumed: bool, entries: &Sender<Entry>) -> Result<(), Entry> {
        if resumed {
            self.resume(entries).await?;
        }
        if follow {
            return self.follow(entries).await;
        }
        match self.now().await.map_err(Err)? {
            Now::NotStarted => no_pod(&self.sandbox).map_err(Err),
            Now::Gone => Ok(()),
            Now::Running(pod) | Now::Ended(pod) => self.read(&pod, false, entries).await.map_err(|broken| match broken {
                Broken::Gap => Ok(gap()),
                Broken::Failed(status) => Err(status),
            }),
        }
    }

    /// What is already in the log after the caller's offset. All that was delivered before must be.
    async fn resume(&mut self, entries: &Sender<Entry>) -> Result<(), Entry> {
        let (Now::Running(pod) | Now::Ended(pod)) = self.now().await.map_err(Err)? else {
            return Err(Ok(gap()));
        };
        match self.read(&pod, false, entries).await {
            Ok(()) => {}
            Err(Broken::Gap) => return Err(Ok(gap())),
            Err(Broken::Failed(status)) => return Err(Err(status)),
        }
        match self.start {
            Start::Exactly { skip, .. } if self.beyond => Err(Ok(told("INVALID_RESUME_OFFSET", &format!("the log has fewer than {skip} bytes")))),
            _ => Ok(()),
        }
    }

    async fn follow(&mut self, entries: &Sender<Entry>) -> Result<(), Entry> {
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            let before = self.offset;
            let failed = match self.now().await {
                Ok(Now::Gone) => return Ok(()),
                Ok(Now::NotStarted) => None,
                Ok(Now::Running(pod)) if !self.is_final() => self.read(&pod, true, entries).await.err(),
                Ok(Now::Running(pod) | Now::Ended(pod)) => match self.read(&pod, false, entries).await {
                    // All of it only if that was nothing new: the end of a connection is not always the end of a log.
                    Ok(()) if self.offset == before => return Ok(()),
                    other => other.err(),
                },
                Err(status) if status.code() != Code::Unavailable => return Err(Err(status)),
                Err(status) => Some(Broken::Failed(status)),
            };
            if self.offset > before {
                (failures, pause) = (0, PAUSE);
                if failed.is_none() {
                    continue;
                }
            }
            match failed {
                None => failures = 0,
                Some(Broken::Gap) => return Err(Ok(gap())),
                Some(Broken::Failed(status)) => {
                    failures += 1;
                    if failures >= FAILURES {
                        return Err(Ok(told("STREAM_INTERRUPTED", status.message())));
                    }
                }
            }
            if self.has_ended() {
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Comes when the sandbox has ended, and a moment has passed. Kubelets end a log that is followed up to a second after they told of that.
    async fn end(&mut self) {
        tokio::time::sleep(LOOK).await;
        while !self.has_ended() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn has_ended(&mut self) -> bool {
        self.look();
        self.is_final()
    }

    /// What the watch has told of the sandbox meanwhile.
    fn look(&mut self) {
        let (namespace, name) = (self.sandbox.namespace().unwrap_or_default(), self.sandbox.name_any());
        if let Some(sandbox) = self.caches.sandbox(&namespace, &name).filter(|s| s.uid() == self.sandbox.uid()) {
            self.sandbox = sandbox;
        }
    }

    /// What can be read now.
    async fn now(&mut self) -> Result<Now, Status> {
        self.look();
        let (namespace, name) = (self.sandbox.namespace().unwrap_or_default(), self.sandbox.name_any());
        let has_pod = self.sandbox.status.as_ref().is_some_and(|s| s.pod_name.is_some());
        if let Some(pod) = target::pod(&self.cluster, &self.sandbox).await? {
            let state = target::container_state(&pod, &self.container).ok_or_else(|| target::no_container(&self.container))?;
            return Ok(match (state.running, state.terminated) {
                (Some(_), _) => Now::Running(pod),
                (None, Some(_)) => Now::Ended(pod),
                (None, None) if self.is_final() => Now::Gone,
                (None, None) => Now::NotStarted,
            });
        }
        if has_pod || self.is_final() {
            return Ok(Now::Gone);
        }
        // Waiting for a pod: the record itself may be gone.
        let there = self.cluster.get::<Sandbox>(&namespace, &name).await;
        match there.map_err(|e| of_kube("reading the sandbox", &e))? {
            Some(sandbox) if sandbox.uid() == self.sandbox.uid() => {
                self.sandbox = Arc::new(sandbox);
                Ok(Now::NotStarted)
            }
            _ => Err(sandbox_not_found(&name)),
        }
    }

    fn is_final(&self) -> bool {
        self.sandbox.status.as_ref().is_some_and(|s| s.state.is_final())
    }

    /// One read from `start`, which is then where the next one begins.
    async fn read(&mut self, pod: &Pod, follow: bool, entries: &Sender<Entry>) -> Result<(), Broken> {
        if let Some(lines) = self.tail.take() {
            let found = self.last_lines(pod, lines).await;
            if found.is_err() {
                self.tail = Some(lines);
            }
            self.start = later(found?, self.start);
        }
        let mut source = Source::new(self.open(pod, follow, self.start, None).await?);
        let mut renderer = Renderer::new(self.start, self.timestamps);
        let ended = loop {
            // What still comes comes first: it may be of a file that cannot be read again.
            let next = tokio::select! {
                biased;
                next = source.next() => next,
                () = self.end(), if follow => break Ok(()),
            };
            let bytes = match next {
                Next::Bytes(bytes) => bytes,
                Next::End => break renderer.end().map_err(broken),
                Next::Idle if follow => break Ok(()),
                Next::Idle => break Err(Broken::Failed(unavailable("the log did not go on"))),
                Next::Failed(text) => break Err(Broken::Failed(unavailable(&text))),
            };
            if let Err(trouble) = renderer.feed(&bytes) {
                break Err(broken(trouble));
            }
            self.deliver(&mut renderer, false, pod, entries).await;
        };
        self.deliver(&mut renderer, true, pod, entries).await;
        self.beyond = renderer.unskipped() > 0;
        // What ended well, or had nothing more for long, gave all that it had.
        self.start = renderer.next(ended.is_ok());
        ended
    }

    /// Sends what is rendered, in entries that end with whole characters.
    async fn deliver(&mut self, renderer: &mut Renderer, all: bool, pod: &Pod, entries: &Sender<Entry>) {
        let mut data = renderer.take(all).freeze();
        if let (None, Some(first)) = (&self.session, renderer.first()) {
            self.session = Some(Session {
                pod_uid: pod.uid().unwrap_or_default(),
                container: self.container.clone(),
                timestamps: self.timestamps,
                first,
                later: first,
                offset: 0,
            });
        }
        let mut id = self.session.as_ref().map(Session::id).unwrap_or_default();
        while !data.is_empty() {
            let piece = data.split_to(piece(&data));
            self.offset += piece.len() as u64;
            // With the last entry, whose end is where the renderer is.
            if data.is_empty()
                && let Some(session) = &mut self.session
                && let Some((line, back)) = renderer.begun()
                && let Some(offset) = self.offset.checked_sub(back).filter(|o| *o >= session.offset + CHECKPOINT)
            {
                (session.later, session.offset) = (line, offset);
                id = session.id();
            }
            let entry = pb::LogEntry {
                data: piece,
                log_session_id: id.clone(),
                next_log_offset: self.offset,
                ..pb::LogEntry::default()
            };
            if entries.send(Ok(entry)).await.is_err() {
                // Nobody reads any more; who runs us sees that as well.
                return;
            }
        }
    }

    /// Where the last lines begin.
    async fn last_lines(&self, pod: &Pod, lines: usize) -> Result<Start, Broken> {
        let _place = Room::to_search(self.room.as_ref()).await;
        let mut entries = lines + SPARE;
        loop {
            let (renderer, bytes) = self.last_entries(pod, lines, entries).await?;
            let whole = renderer.lines() + bytes / RUNTIME_ENTRY < entries;
            if whole || renderer.lines() > lines {
                return Ok(renderer.start_of_last());
            }
            // The lines are long ones.
            entries = entries.saturating_mul(8);
        }
    }

    /// Finds the last lines among the last entries of the log, and how many bytes those have.
    async fn last_entries(&self, pod: &Pod, lines: usize, entries: usize) -> Result<(Renderer, usize), Broken> {
        let mut source = Source::new(self.open(pod, false, Start::First, Some(entries)).await?);
        let (mut renderer, mut read) = (Renderer::last_lines(lines), 0);
        loop {
            match source.next().await {
                Next::Bytes(bytes) => {
                    read += bytes.len();
                    renderer.feed(&bytes).map_err(broken)?;
                }
                Next::End => return renderer.end().map(|()| (renderer, read)).map_err(broken),
                Next::Idle => return Err(Broken::Failed(unavailable("the log did not go on"))),
                Next::Failed(text) => return Err(Broken::Failed(unavailable(&text))),
            }
            renderer.take(true);
        }
    }

    async fn open(&self, pod: &Pod, follow: bool, start: Start, tail: Option<usize>) -> Result<impl AsyncBufRead + Send + use<>, Broken> {
        let parameters = LogParams {
            container: Some(self.container.clone()),
            follow,
            since_time: start.read_since(),
            tail_lines: tail.and_then(|n| i64::try_from(n).ok()),
            timestamps: true,
            ..LogParams::default()
        };
        let namespace = self.sandbox.namespace().unwrap_or_default();
        let source = self.cluster.logs(&namespace, &pod.name_any(), &parameters).await;
        source.map(Box::pin).map_err(|error| {
            Broken::Failed(match &error {
                // The container or its log is being made or taken away: the kubelet says which.
                kube::Error::Api(status) if matches!(status.code, 400 | 404) => unavailable(&status.message),
                error => of_kube("reading the log", error),
            })
        })
    }
}

fn broken(trouble: Trouble) -> Broken {
    match trouble {
        Trouble::Gap => Broken::Gap,
        Trouble::Remark(text) => Broken::Failed(unavailable(&text)),
    }
}

fn gap() -> pb::LogEntry {
    told("REPLAY_GAP", "the node does not keep the log from there on any more")
}

fn unavailable(text: &str) -> Status {
    retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, text, Duration::from_secs(1))
}

/// Length of the first entry of `data`: it does not cut a character.
fn piece(data: &[u8]) -> usize {
    if data.len() <= ENTRY {
        return data.len();
    }
    super::render::whole_characters(&data[..ENTRY])
}
