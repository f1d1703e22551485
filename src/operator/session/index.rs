//! Which sandboxes each session has, so that no reconcile has to search all sandboxes.
//!
//! A sandbox belongs to a session by UID: the UID in its status, or that of its reservation. So it never belongs to a
//! later session of the same name. A sandbox that has not been admitted yet waits for any session of that name. Owner
//! references do not count: anyone who creates a sandbox can set them.

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::{Sandbox, SandboxSession, State};

/// Namespace and name of a session.
type Key = (String, String);

/// UID of the session that a sandbox joined, even if that session no longer exists. Only the operator writes the
/// status.
fn pinned(sandbox: &Sandbox) -> Option<&str> {
    sandbox.status.as_ref()?.session_uid.as_deref()
}

/// The session that a sandbox has yet to join. One that has a pod or has ended without joining never will.
fn awaited(sandbox: &Sandbox) -> Option<Key> {
    let status = sandbox.status.as_ref();
    let never = pinned(sandbox).is_some() || status.is_some_and(|s| s.state.is_final() || s.pod_name.is_some());
    Some((sandbox.namespace()?, sandbox.spec.session_name.clone()?)).filter(|_| !never)
}

fn state(sandbox: &Sandbox) -> State {
    sandbox.status.as_ref().map(|s| s.state).unwrap_or_default()
}

/// The sandboxes of all sessions.
#[derive(Default)]
pub(crate) struct SessionIndex(Mutex<Members>);

#[derive(Default)]
struct Members {
    /// By the sandbox's UID.
    sandboxes: HashMap<String, Member>,
    /// UIDs of the sandboxes by the UID of the session to which they belong.
    joined: HashMap<String, HashSet<String>>,
    /// UIDs of the sandboxes by the session that they wait for. Those with a reservation are in both maps.
    waiting: HashMap<Key, HashSet<String>>,
}

/// A sandbox of a session.
struct Member {
    object: ObjectRef<Sandbox>,
    state: State,
    /// UID of its session. It may be a reservation: the sandbox was admitted, and its status does not show it yet.
    session: Option<String>,
    awaits: Option<Key>,
}

/// What to reconcile after a change of a sandbox.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Affected {
    pub session: Option<ObjectRef<SandboxSession>>,
    /// Sandboxes that wait for room in it.
    pub sandboxes: Vec<ObjectRef<Sandbox>>,
}

/// How many sandboxes of a session are in which state.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Of those that belong to the session, and of those that wait to join it.
    pub by_state: HashMap<State, i32>,
    /// Belong to the session and have not ended: what `maxSandboxes` limits.
    pub active: i32,
    /// Have not ended, those that wait to join included.
    pub unfinished: i32,
}

impl SessionIndex {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the watch of the sandboxes. `exists` tells which UIDs are still there after a new list.
    pub(crate) fn apply(&self, event: &Event<Sandbox>, exists: impl FnOnce() -> HashSet<String>) -> Affected {
        match event {
            Event::Apply(sandbox) | Event::InitApply(sandbox) => self.lock().upsert(sandbox),
            Event::Delete(sandbox) => self.lock().delete(sandbox),
            Event::InitDone => {
                let (mut members, exists) = (self.lock(), exists());
                let gone: Vec<String> = members
                    .sandboxes
                    .keys()
                    .filter(|uid| !exists.contains(*uid))
                    .cloned()
                    .collect();
                for uid in gone {
                    members.remove(&uid);
                }
                Affected::default()
            }
            Event::Init => Affected::default(),
        }
    }

    /// Whether the session has room for this sandbox. If so, the place is reserved at once: two that ask at the same
    /// time do not both get the last one.
    pub(crate) fn admit(&self, sandbox: &Sandbox, session: &SandboxSession) -> bool {
        let (Some(uid), Some(session_uid)) = (sandbox.uid(), session.uid()) else {
            return false;
        };
        let mut members = self.lock();
        let others = members.active(&session_uid).filter(|other| **other != uid).count();
        let max = session
            .spec
            .max_sandboxes
            .and_then(|m| usize::try_from(m).ok())
            .unwrap_or(usize::MAX);
        let has_room = others < max;
        if has_room {
            members.insert(uid, sandbox, Some(session_uid));
        }
        has_room
    }

    /// UID of the session that has admitted the sandbox of this UID.
    pub(crate) fn session_of(&self, uid: &str) -> Option<String> {
        self.lock().sandboxes.get(uid)?.session.clone()
    }

    /// Reserves a slot even if the session is full: another replica admitted the sandbox and created its pod.
    pub(crate) fn restore(&self, sandbox: &Sandbox, session: &SandboxSession) {
        if let (Some(uid), Some(session_uid), true) = (sandbox.uid(), session.uid(), awaited(sandbox).is_some()) {
            self.lock().insert(uid, sandbox, Some(session_uid));
        }
    }

    /// Sandboxes that have not ended and belong to the session, or wait to join it.
    pub(crate) fn unfinished(&self, session: &SandboxSession) -> Vec<ObjectRef<Sandbox>> {
        let members = self.lock();
        members
            .of(session)
            .filter(|member| !member.state.is_final())
            .map(|member| member.object.clone())
            .collect()
    }

    pub(crate) fn counts(&self, session: &SandboxSession) -> Counts {
        let (members, mut counts, uid) = (self.lock(), Counts::default(), session.uid());
        for member in members.of(session) {
            *counts.by_state.entry(member.state).or_default() += 1;
            if !member.state.is_final() {
                counts.unfinished += 1;
                counts.active += i32::from(member.session == uid);
            }
        }
        counts
    }

    /// Drops sandboxes that were admitted but have not joined. Another replica may have been the leader since.
    pub(crate) fn drop_reservations(&self) {
        let mut members = self.lock();
        let reserved: Vec<(String, String)> = members
            .sandboxes
            .iter()
            .filter(|(_, member)| member.awaits.is_some())
            .filter_map(|(uid, member)| Some((uid.clone(), member.session.clone()?)))
            .collect();
        for (uid, session) in reserved {
            take(&mut members.joined, &session, &uid);
            if let Some(member) = members.sandboxes.get_mut(&uid) {
                member.session = None;
            }
        }
    }
}

impl Members {
    fn upsert(&mut self, sandbox: &Sandbox) -> Affected {
        let Some(uid) = sandbox.uid() else {
            return Affected::default();
        };
        let before = self.sandboxes.get(&uid);
        let has_ended = state(sandbox).is_final() && before.is_some_and(|member| !member.state.is_final());
        // A reservation holds until the sandbox has joined.
        let reserved = before
            .and_then(|member| member.session.clone())
            .filter(|_| awaited(sandbox).is_some());
        self.insert(uid, sandbox, pinned(sandbox).map(Into::into).or(reserved));
        self.affected(sandbox, has_ended)
    }

    fn delete(&mut self, sandbox: &Sandbox) -> Affected {
        self.remove(&sandbox.uid().unwrap_or_default());
        self.affected(sandbox, true)
    }

    fn affected(&self, sandbox: &Sandbox, makes_room: bool) -> Affected {
        let (Some(namespace), Some(name)) = (sandbox.namespace(), sandbox.spec.session_name.clone()) else {
            return Affected::default();
        };
        let session = Some(ObjectRef::new(&name).within(&namespace));
        let waiting = self.waiting.get(&(namespace, name)).filter(|_| makes_room);
        let sandboxes = waiting
            .into_iter()
            .flatten()
            .filter_map(|uid| Some(self.sandboxes.get(uid)?.object.clone()));
        Affected {
            session,
            sandboxes: sandboxes.collect(),
        }
    }

    fn insert(&mut self, uid: String, sandbox: &Sandbox, session: Option<String>) {
        self.remove(&uid);
        let awaits = awaited(sandbox);
        if session.is_none() && awaits.is_none() {
            return;
        }
        if let Some(session) = &session {
            self.joined.entry(session.clone()).or_default().insert(uid.clone());
        }
        if let Some(key) = &awaits {
            self.waiting.entry(key.clone()).or_default().insert(uid.clone());
        }
        let member = Member {
            // Without resourceVersion and UID, which would cost memory.
            object: ObjectRef::new(&sandbox.name_any()).within(&sandbox.namespace().unwrap_or_default()),
            state: state(sandbox),
            session,
            awaits,
        };
        self.sandboxes.insert(uid, member);
    }

    fn remove(&mut self, uid: &str) {
        let Some(member) = self.sandboxes.remove(uid) else {
            return;
        };
        if let Some(session) = &member.session {
            take(&mut self.joined, session, uid);
        }
        if let Some(key) = &member.awaits {
            take(&mut self.waiting, key, uid);
        }
    }

    /// UIDs of the session's sandboxes that have not ended.
    fn active(&self, session_uid: &str) -> impl Iterator<Item = &String> {
        let joined = self.joined.get(session_uid).into_iter().flatten();
        joined.filter(|uid| self.sandboxes.get(*uid).is_some_and(|member| !member.state.is_final()))
    }

    /// Sandboxes that belong to the session or wait to join it.
    fn of(&self, session: &SandboxSession) -> impl Iterator<Item = &Member> {
        let uid = session.uid();
        let joined = uid.as_ref().and_then(|uid| self.joined.get(uid));
        let waiting = session
            .namespace()
            .and_then(|namespace| self.waiting.get(&(namespace, session.name_any())));
        let members = |uids: Option<&'_ HashSet<String>>| -> Vec<&Member> {
            let uids = uids.into_iter().flatten();
            uids.filter_map(|uid| self.sandboxes.get(uid)).collect()
        };
        let unreserved = members(waiting).into_iter().filter(move |member| member.session != uid);
        members(joined).into_iter().chain(unreserved)
    }
}

/// Removes a value from a set. An empty set takes no memory.
fn take<K: std::hash::Hash + Eq>(sets: &mut HashMap<K, HashSet<String>>, key: &K, uid: &str) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(uid);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
