//! What every reconcile of one scope shares.

use jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::apply::Writer;
use super::caches::{Caches, Listener, reference, reference_of};
use super::events::Events;
use super::metrics::Metrics;
use super::sandbox::pod_events::Polled;
use super::sandbox::{CreatedPod, LaunchFailure};
use super::session_index::{Key, SessionIndex};
use crate::agent_client::AgentClient;
use crate::api::{Sandbox, SandboxSession, SandboxStatus, reason};
use crate::resources::addresses::Lists;
use crate::resources::pod::AgentDelivery;
use crate::resources::{AgentKey, Settings};

/// What every reconcile of one scope shares.
pub struct Context {
    /// The write surface.
    pub writer: Writer,
    /// The read surface.
    pub caches: Caches,
    /// Events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// What shapes the sandboxes.
    pub settings: Settings,
    /// Its address lists.
    pub lists: Lists,
    /// How the agent gets into the pods.
    pub agent_by: AgentDelivery,
    /// Who may call the agents of new pods.
    pub agent_key: watch::Receiver<AgentKey>,
    /// Calls to agents.
    pub agents: AgentClient,
    /// Which sandboxes each session has.
    pub sessions: Arc<SessionIndex>,
    /// Triggers.
    pub queue: Queue,
    /// What is known of each object beyond the caches.
    pub memory: Memory,
}

/// Where triggers go. A standby's go nowhere; who begins to lead looks at everything.
#[derive(Clone)]
pub struct Queue {
    leading: Arc<AtomicBool>,
    sandboxes: UnboundedSender<ObjectRef<Sandbox>>,
    sessions: UnboundedSender<ObjectRef<SandboxSession>>,
    index: Arc<SessionIndex>,
    caches: Caches,
    metrics: Metrics,
}

impl Queue {
    /// A queue with its two receiving ends elsewhere.
    pub fn new(
        leading: Arc<AtomicBool>,
        sandboxes: UnboundedSender<ObjectRef<Sandbox>>,
        sessions: UnboundedSender<ObjectRef<SandboxSession>>,
        index: Arc<SessionIndex>,
        caches: Caches,
        metrics: Metrics,
    ) -> Queue {
        Queue {
            leading,
            sandboxes,
            sessions,
            index,
            caches,
            metrics,
        }
    }

    /// Has a sandbox looked at. The receiver lives as long as the process: it cannot fail.
    pub fn push(&self, sandbox: ObjectRef<Sandbox>) {
        if self.leading.load(Ordering::Acquire) && self.sandboxes.send(sandbox).is_ok() {
            self.metrics.queue_depth.inc();
        }
    }

    fn push_session(&self, session: ObjectRef<SandboxSession>) {
        if self.leading.load(Ordering::Acquire) {
            let _ = self.sessions.send(session);
        }
    }

    /// Has the session's unfinished sandboxes looked at.
    pub fn push_members(&self, key: &Key) {
        for name in self.index.active(key) {
            self.push(reference(&key.0, &name));
        }
    }

    /// Has everything looked at.
    pub fn push_all(&self) {
        self.caches.sandboxes.state().iter().for_each(|s| self.push(reference_of(s.as_ref())));
        self.caches
            .sessions
            .state()
            .iter()
            .for_each(|s| self.push_session(reference_of(s.as_ref())));
    }
}

/// The queue as the watches see it, with what must be forgotten.
#[derive(Clone)]
pub struct Feed {
    /// Triggers.
    pub queue: Queue,
    /// What is forgotten with an object.
    pub memory: Memory,
    /// Where a user is told of an object that cannot be understood.
    pub events: Events,
}

impl Listener for Feed {
    fn sandbox(&self, sandbox: &Sandbox) {
        self.queue.push(reference_of(sandbox));
        if let Some((key, ended)) = self.queue.index.update(sandbox) {
            self.queue.push_session(reference(&key.0, &key.1));
            if ended {
                self.queue.push_members(&key);
            }
        }
    }

    fn sandbox_gone(&self, sandbox: &Sandbox) {
        self.memory.forget(sandbox.metadata.uid.as_deref().unwrap_or_default());
        if let Some(key) = self.queue.index.remove(sandbox) {
            self.queue.push_session(reference(&key.0, &key.1));
            self.queue.push_members(&key);
        }
    }

    fn session(&self, session: &SandboxSession) {
        self.queue.push_session(reference_of(session));
        // Our own writes of its counts are no news to its sandboxes.
        let news = session.status.as_ref().and_then(|s| s.observed_generation) != session.metadata.generation;
        if news || session.metadata.deletion_timestamp.is_some() {
            self.queue.push_members(&(session.namespace().unwrap_or_default(), session.name_any()));
        }
    }

    fn unreadable<K: Resource<DynamicType = ()>>(&self, object: &PartialObjectMeta<K>, error: &str) {
        self.events.warn(object, reason::INVALID_SPEC, error);
    }

    fn child(&self, sandbox: ObjectRef<Sandbox>) {
        self.queue.push(sandbox);
    }

    fn relisted(&self) {
        self.queue.push_all();
    }

    fn sandboxes_relisted(&self) {
        let caches = &self.queue.caches;
        self.queue
            .index
            .retain(|namespace, name| caches.sandboxes.get(&reference(namespace, name)).is_some());
        let known: HashSet<String> = caches.sandboxes.state().iter().filter_map(|s| s.metadata.uid.clone()).collect();
        let sessions: HashSet<String> = caches.sessions.state().iter().filter_map(|s| s.metadata.uid.clone()).collect();
        self.memory.lock().retain(|uid, _| known.contains(uid) || sessions.contains(uid));
    }
}

/// What is known of an object beyond the caches, which may lag behind what we wrote.
#[derive(Clone, Default)]
pub struct Memory {
    notes: Arc<Mutex<HashMap<String, Note>>>,
}

/// What is known of one object.
#[derive(Clone, Default, PartialEq)]
pub struct Note {
    /// The newest status we wrote, until the cache has it.
    pub status: Option<Box<SandboxStatus>>,
    /// The pod that we created for it, until the cached status names it.
    pub created_pod: Option<CreatedPod>,
    /// When it was first looked at, as long as its time to start runs.
    pub seen: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// When we last wrote it, where the time between two writes is bounded: a session's counts, a policy that was edited.
    pub written: Option<Instant>,
    /// When the pod's events were last asked, and the trouble that they told.
    pub asked: Option<Polled>,
    /// Why its children could not be created, until they are.
    pub launch_failure: Option<LaunchFailure>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known.
    pub fn recall(&self, uid: &str) -> Note {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes what is known; nothing left to know takes no memory.
    pub fn note(&self, uid: &str, change: impl FnOnce(&mut Note)) {
        let mut notes = self.lock();
        let note = notes.entry(uid.into()).or_default();
        change(note);
        if *note == Note::default() {
            notes.remove(uid);
        }
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The pause before the next try: doubling from half a second to a minute, with jitter, so that many that failed together do not come back together.
    pub fn back_off(&self, uid: &str) -> Duration {
        let mut failures = 0;
        self.note(uid, |n| {
            n.failures = n.failures.saturating_add(1);
            failures = n.failures;
        });
        let longest = Duration::from_millis(500)
            .saturating_mul(1 << failures.min(8).saturating_sub(1))
            .min(Duration::from_secs(60));
        longest.mul_f64(0.5 + 0.5 * jitter())
    }
}

/// From 0 to 1, from the clock: good enough to spread retries.
pub fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    f64::from(nanos % 1000) / 1000.0
}
