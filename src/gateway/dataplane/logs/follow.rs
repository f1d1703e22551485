//! What one StreamLogs call reads, from the state of the container.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

use super::log::{Entry, Log, TRUNCATED, error_entry, no_pod};
use super::read_error::ReadError;
use super::render::Start;
use crate::api::{Sandbox, State};
use crate::gateway::error::{of_kube, sandbox_not_found};
use crate::gateway::sandboxes::lookup::{container_state, no_container};
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::MAIN;

/// Between two reads of the state of a container that has not started or has just ended.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Connections that may fail one after another.
const FAILURES: u32 = 5;
/// Between two checks whether the sandbox of a followed log has ended. Callers learn of the end of a stop later than
/// that: see `Caches`.
const END_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time between two reads of the pod while its container has not started and its sandbox does not change.
const UNCHANGED: Duration = Duration::from_secs(10);
/// The same for a sidecar.
const UNCHANGED_SIDECAR: Duration = Duration::from_secs(3);
/// The longest time from the end of a container's log to its end in the pod's status.
const STATUS_DELAY: Duration = Duration::from_secs(10);

/// A container, as far as its log is concerned.
enum Phase {
    NotStarted,
    Running(Pod),
    Ended(Pod),
    /// Its pod was deleted, or it never started.
    Gone,
}

impl Log {
    /// Delivers the log, with `follow` until the container has ended. An error is the last entry.
    pub(super) async fn run(&mut self, follow: bool, resumed: bool) -> Result<(), Entry> {
        if resumed {
            self.resume().await?;
        }
        if follow {
            return self.follow().await;
        }
        match self.phase().await.map_err(Err)? {
            Phase::NotStarted => no_pod(&self.sandbox).map_err(Err),
            Phase::Gone => Ok(()),
            Phase::Running(pod) | Phase::Ended(pod) => self.read(&pod).await.map_err(|error| match error {
                ReadError::Gap => Ok(self.truncated()),
                ReadError::Failed(status) => Err(status),
            }),
        }
    }

    /// Delivers what the log has after the caller's offset. The node must still have the line at the offset.
    async fn resume(&mut self) -> Result<(), Entry> {
        let (Phase::Running(pod) | Phase::Ended(pod)) = self.phase().await.map_err(Err)? else {
            return Err(Ok(self.truncated()));
        };
        match self.read(&pod).await {
            Ok(()) => {}
            Err(ReadError::Gap) => return Err(Ok(self.truncated())),
            Err(ReadError::Failed(status)) => return Err(Err(status)),
        }
        match self.start {
            Start::Resume { skip, .. } if self.past_end => Err(Ok(error_entry(
                "INVALID_RESUME_OFFSET",
                &format!("the log has fewer than {skip} bytes"),
            ))),
            _ => Ok(()),
        }
    }

    async fn follow(&mut self) -> Result<(), Entry> {
        let (mut failures, mut pause) = (0, PAUSE);
        loop {
            let before = self.offset;
            let failed = match self.phase().await {
                Ok(Phase::Gone) => return Ok(()),
                Ok(Phase::NotStarted) => {
                    failures = 0;
                    pause = match self.change(pause).await {
                        true => PAUSE,
                        false => (pause * 2).min(LONGEST_PAUSE),
                    };
                    continue;
                }
                Ok(Phase::Running(pod)) if !self.is_final() => self.read_and_follow(&pod).await.err(),
                Ok(Phase::Running(pod) | Phase::Ended(pod)) => match self.read(&pod).await {
                    // All of it only if that was nothing new: the end of a connection is not always the end of a log.
                    Ok(()) if self.offset == before => return Ok(()),
                    other => other.err(),
                },
                Err(status) if status.code() != Code::Unavailable => return Err(Err(status)),
                Err(status) => Some(ReadError::Failed(status)),
            };
            if self.offset > before {
                (failures, pause) = (0, PAUSE);
            }
            match failed {
                Some(ReadError::Gap) => return Err(Ok(self.truncated())),
                Some(ReadError::Failed(status)) => {
                    failures += 1;
                    if failures >= FAILURES {
                        return Err(Ok(error_entry("STREAM_INTERRUPTED", status.message())));
                    }
                }
                None => {
                    failures = 0;
                    if self.offset > before || self.has_ended() {
                        continue;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the start of the container, for at least `pause`. It sends no requests to the API server while the
    /// cached sandbox is unchanged and not RUNNING. Returns whether the sandbox has changed.
    async fn change(&mut self, pause: Duration) -> bool {
        let (begun, before) = (tokio::time::Instant::now(), self.sandbox.resource_version());
        // The start of a sidecar does not change the sandbox.
        let longest = if self.container == MAIN {
            UNCHANGED
        } else {
            UNCHANGED_SIDECAR
        };
        tokio::time::sleep(pause).await;
        loop {
            let is_cached = self.refresh();
            let has_changed = self.sandbox.resource_version() != before;
            // The container of a RUNNING sandbox may start at any moment.
            if has_changed || !is_cached || self.sandbox.state() == State::Running || begun.elapsed() >= longest {
                return has_changed;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns when the sandbox has ended, after a pause: kubelets end a log that is followed up to a second after they
    /// reported the end.
    pub(super) async fn end(&mut self) {
        tokio::time::sleep(END_CHECK_INTERVAL).await;
        while !self.has_ended() {
            tokio::time::sleep(END_CHECK_INTERVAL).await;
        }
    }

    /// Whether the container's end is reported within the time that this may take.
    pub(super) async fn container_ends(&mut self) -> Result<bool, Status> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < STATUS_DELAY {
            if matches!(self.phase().await?, Phase::Ended(_) | Phase::Gone) {
                return Ok(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }

    fn has_ended(&mut self) -> bool {
        self.refresh();
        self.is_final()
    }

    /// Updates the sandbox from the cache, if the cache has it.
    fn refresh(&mut self) -> bool {
        let (namespace, name) = (self.sandbox.namespace().unwrap_or_default(), self.sandbox.name_any());
        if let Some(sandbox) = self
            .sandboxes
            .cache
            .get(&namespace, &name)
            .filter(|s| s.uid() == self.sandbox.uid())
        {
            self.sandbox = sandbox;
            return true;
        }
        false
    }

    async fn phase(&mut self) -> Result<Phase, Status> {
        self.refresh();
        let (namespace, name) = (self.sandbox.namespace().unwrap_or_default(), self.sandbox.name_any());
        let has_pod = self.sandbox.status.as_ref().is_some_and(|s| s.pod_name.is_some());
        if let Some(pod) = self.sandboxes.pod(&self.sandbox).await? {
            let state = container_state(&pod, &self.container).ok_or_else(|| no_container(&self.container))?;
            return Ok(match (state.running, state.terminated) {
                (Some(_), _) => Phase::Running(pod),
                (None, Some(_)) => Phase::Ended(pod),
                (None, None) if self.is_final() => Phase::Gone,
                (None, None) => Phase::NotStarted,
            });
        }
        if has_pod || self.is_final() {
            return Ok(Phase::Gone);
        }
        // No pod yet; the record may have been deleted.
        let found = self.sandboxes.api.get::<Sandbox>(&namespace, &name).await;
        match found.map_err(|e| of_kube("reading the sandbox", &e))? {
            Some(sandbox) if sandbox.uid() == self.sandbox.uid() => {
                self.sandbox = Arc::new(sandbox);
                Ok(Phase::NotStarted)
            }
            _ => Err(sandbox_not_found(&name)),
        }
    }

    fn is_final(&self) -> bool {
        self.sandbox.is_final()
    }

    /// The last entry of a log of which something is missing.
    pub(super) fn truncated(&self) -> pb::LogEntry {
        let text = match self.start {
            Start::Resume { line, .. } => format!("lines of the log after {} are missing", line.at),
            _ => "lines of the log are missing".into(),
        };
        error_entry(
            TRUNCATED,
            &format!("{text}: the node does not keep them any more, since it rotated the log"),
        )
    }
}

#[cfg(test)]
mod tests;
