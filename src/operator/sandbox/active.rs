//! How many active sandboxes each namespace has: those that have, or are about to get, a pod, and have not ended. It
//! bounds the load that one namespace causes for the operator, the scheduler and the network plugin.

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::Sandbox;

/// UIDs of the active sandboxes, by namespace.
#[derive(Default)]
pub(crate) struct ActiveIndex(Mutex<HashMap<String, HashSet<String>>>);

fn has_pod(sandbox: &Sandbox) -> bool {
    sandbox.status.as_ref().is_some_and(|s| s.pod_name.is_some())
}

impl ActiveIndex {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an event of the watch of sandboxes. `all` are the sandboxes in the cache.
    pub(crate) fn apply(&self, event: &Event<Sandbox>, all: impl FnOnce() -> Vec<Arc<Sandbox>>) {
        match event {
            Event::Apply(sandbox) | Event::InitApply(sandbox) if sandbox.is_final() => self.remove(sandbox),
            Event::Apply(sandbox) | Event::InitApply(sandbox) if has_pod(sandbox) => self.insert(sandbox),
            Event::Delete(sandbox) => self.remove(sandbox),
            // Deletions may have been missed.
            Event::InitDone => {
                let exist: HashSet<String> = all().iter().filter_map(|s| s.uid()).collect();
                let mut namespaces = self.lock();
                namespaces
                    .values_mut()
                    .for_each(|uids| uids.retain(|uid| exist.contains(uid)));
                namespaces.retain(|_, uids| !uids.is_empty());
            }
            Event::Apply(_) | Event::InitApply(_) | Event::Init => {}
        }
    }

    /// Whether the namespace has room for this sandbox. If so, the place is reserved until it ends. One that the cache
    /// no longer has gets none: nothing would release it.
    pub(crate) fn admit(&self, sandbox: &Sandbox, max: usize, is_cached: impl FnOnce() -> bool) -> bool {
        let (namespace, uid) = (
            sandbox.namespace().unwrap_or_default(),
            sandbox.uid().unwrap_or_default(),
        );
        let mut namespaces = self.lock();
        let active = namespaces.entry(namespace).or_default();
        let has_room = active.contains(&uid) || active.len() < max;
        // Under the lock: the cache is updated before `apply` is called.
        if has_room && is_cached() {
            active.insert(uid);
        }
        has_room
    }

    /// Drops sandboxes that were admitted but have no pod yet. Another replica may have been the leader since.
    pub(crate) fn drop_reservations(&self, all: &[Arc<Sandbox>]) {
        self.lock().clear();
        let active = all.iter().filter(|s| has_pod(s) && !s.is_final());
        active.for_each(|sandbox| self.insert(sandbox));
    }

    fn insert(&self, sandbox: &Sandbox) {
        let (namespace, uid) = (
            sandbox.namespace().unwrap_or_default(),
            sandbox.uid().unwrap_or_default(),
        );
        self.lock().entry(namespace).or_default().insert(uid);
    }

    fn remove(&self, sandbox: &Sandbox) {
        let (namespace, uid) = (
            sandbox.namespace().unwrap_or_default(),
            sandbox.uid().unwrap_or_default(),
        );
        let mut namespaces = self.lock();
        if let Some(active) = namespaces.get_mut(&namespace) {
            active.remove(&uid);
            if active.is_empty() {
                namespaces.remove(&namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sandbox(name: &str, status: serde_json::Value) -> Sandbox {
        let object = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_namespace_has_a_limited_number_of_active_sandboxes() {
        let index = ActiveIndex::default();
        let pending = |name: &str| sandbox(name, json!({"state": "PENDING"}));
        let running = |name: &str| sandbox(name, json!({"state": "RUNNING", "podName": "p"}));
        let ended = |name: &str| sandbox(name, json!({"state": "COMPLETED", "podName": "p"}));
        index.apply(&Event::Apply(running("a")), Vec::new);
        index.apply(&Event::Apply(ended("b")), Vec::new);
        assert!(index.admit(&pending("c"), 2, || true));
        assert!(index.admit(&pending("c"), 2, || true), "it has its place already");
        assert!(!index.admit(&pending("d"), 2, || true));
        let mut elsewhere = pending("e");
        elsewhere.metadata.namespace = Some("m".into());
        assert!(index.admit(&elsewhere, 2, || true));
        index.apply(&Event::Apply(pending("c")), Vec::new);
        assert!(
            !index.admit(&pending("d"), 2, || true),
            "an older version of c keeps its place"
        );
        index.apply(&Event::Apply(ended("a")), Vec::new);
        assert!(index.admit(&pending("d"), 2, || true));
        index.apply(&Event::Delete(pending("d")), Vec::new);
        assert!(index.admit(&pending("f"), 2, || true));
        index.apply(&Event::InitDone, || vec![Arc::new(pending("c"))]);
        assert!(index.admit(&pending("g"), 2, || true), "the deletion of f was missed");
        assert!(index.admit(&pending("h"), 3, || false));
        assert!(!index.lock()["n"].contains("h"), "it was deleted meanwhile");
        index.drop_reservations(&[Arc::new(running("a")), Arc::new(ended("b")), Arc::new(pending("c"))]);
        assert_eq!(index.lock()["n"], HashSet::from(["a".into()]));
    }
}
