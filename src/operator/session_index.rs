//! Which sandboxes each session has, so that no reconcile must look through all.

use kube::ResourceExt;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::{GROUP, Sandbox, SandboxSession, State};

/// A session by namespace and name.
pub type Key = (String, String);

/// The sandboxes of every session.
#[derive(Default)]
pub struct SessionIndex {
    members: Mutex<HashMap<Key, HashMap<String, Member>>>,
}

/// A sandbox of a session.
#[derive(Clone, Copy, Debug)]
struct Member {
    state: State,
    joined: bool,
}

impl SessionIndex {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, HashMap<String, Member>>> {
        // A panic elsewhere leaves a map that is still whole: every change is a single insert or remove.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sandbox is new or changed. Also says whether it has just ended, which makes room for another.
    pub fn update(&self, sandbox: &Sandbox) -> Option<(Key, bool)> {
        let key = key(sandbox)?;
        let state = sandbox.status.as_ref().map(|s| s.state).unwrap_or_default();
        let joined = owner_uid(sandbox).is_some();
        let mut all = self.lock();
        let member = all
            .entry(key.clone())
            .or_default()
            .entry(sandbox.name_any())
            .or_insert(Member { state, joined });
        // Admission is known here before the API server tells of it.
        let ended = state.is_final() && !member.state.is_final();
        *member = Member {
            state,
            joined: joined || member.joined,
        };
        Some((key, ended))
    }

    /// Forgets sandboxes of which no deletion was told.
    pub fn retain(&self, there: impl Fn(&str, &str) -> bool) {
        self.lock().retain(|(namespace, _), members| {
            members.retain(|name, _| there(namespace, name));
            !members.is_empty()
        });
    }

    /// A sandbox is gone.
    pub fn remove(&self, sandbox: &Sandbox) -> Option<Key> {
        let key = key(sandbox)?;
        let mut all = self.lock();
        if let Some(members) = all.get_mut(&key) {
            members.remove(&sandbox.name_any());
            if members.is_empty() {
                all.remove(&key);
            }
        }
        Some(key)
    }

    /// Whether the session has room for this sandbox. If so, its place is taken at once: two that ask at the same time do not both get the last one.
    pub fn admit(&self, sandbox: &Sandbox, session: &SandboxSession) -> bool {
        let Some(key) = key(sandbox) else { return true };
        let mut all = self.lock();
        let members = all.entry(key).or_default();
        let name = sandbox.name_any();
        let others = members.iter().filter(|(n, m)| **n != name && m.joined && !m.state.is_final()).count();
        let most = session.spec.max_sandboxes.and_then(|m| usize::try_from(m).ok()).unwrap_or(usize::MAX);
        let room = others < most;
        if room {
            members
                .entry(name)
                .or_insert(Member {
                    state: State::Pending,
                    joined: true,
                })
                .joined = true;
        }
        room
    }

    /// Names of the session's sandboxes that have not ended.
    pub fn active(&self, key: &Key) -> Vec<String> {
        let all = self.lock();
        all.get(key)
            .into_iter()
            .flatten()
            .filter(|(_, m)| !m.state.is_final())
            .map(|(n, _)| n.clone())
            .collect()
    }

    /// How many sandboxes of the session are in each state.
    pub fn counts(&self, key: &Key) -> HashMap<State, i32> {
        let mut counts = HashMap::new();
        for member in self.lock().get(key).into_iter().flat_map(HashMap::values) {
            *counts.entry(member.state).or_default() += 1;
        }
        counts
    }
}

/// The session that a sandbox names.
pub fn key(sandbox: &Sandbox) -> Option<Key> {
    Some((sandbox.namespace()?, sandbox.spec.session_name.clone()?))
}

/// UID of the session that owns a sandbox.
pub fn owner_uid(sandbox: &Sandbox) -> Option<&str> {
    let prefix = format!("{GROUP}/");
    let owners = sandbox.metadata.owner_references.iter().flatten();
    owners
        .filter(|o| o.kind == "SandboxSession" && o.api_version.starts_with(&prefix))
        .map(|o| o.uid.as_str())
        .next()
}
