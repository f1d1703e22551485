//! A cache of all Sandboxes, from a watch: by name in constant time, and by namespace without a scan of the others.

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::api::{ANNOTATION_STORED_BYTES, Sandbox};
use crate::kube::{ApiClient, Readable};
use crate::resources::slim;

/// How long a stopped sandbox is still reported as TERMINATING after its end was seen here. The SDK drops the logs that
/// it follows when it sees the end, and their reader then waits for ever. So the logs must end first, at every replica.
const JUST_ENDED: Duration = Duration::from_millis(500);

type ByName = HashMap<String, Entry>;

/// The cached part of a sandbox, and when its end was observed.
struct Entry {
    sandbox: Arc<Sandbox>,
    ended: Option<Instant>,
    /// Bytes that the sandbox and its Secrets take in etcd.
    stored: u64,
}

/// A namespace's usage of etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Sandboxes, ended ones included.
    pub(crate) sandboxes: usize,
    /// Bytes of these sandboxes and of their Secrets.
    pub(crate) bytes: u64,
}

/// The cache. A miss proves nothing: an object may be newer than the last event of the watch.
#[derive(Clone)]
pub struct SandboxCache {
    namespaces: Arc<RwLock<HashMap<String, ByName>>>,
    /// Scopes whose first list is not complete.
    unlisted: Arc<watch::Sender<HashSet<Option<String>>>>,
}

impl SandboxCache {
    /// An empty cache of these namespaces; without any, of all.
    pub fn new(namespaces: &[String]) -> SandboxCache {
        let scopes = if namespaces.is_empty() {
            HashSet::from([None])
        } else {
            namespaces.iter().cloned().map(Some).collect()
        };
        SandboxCache {
            namespaces: Arc::default(),
            unlisted: Arc::new(watch::Sender::new(scopes)),
        }
    }

    /// The namespace's usage of etcd, as far as this cache knows it.
    pub(crate) fn usage(&self, namespace: &str) -> Usage {
        self.read().get(namespace).map_or_else(Usage::default, |by_name| Usage {
            sandboxes: by_name.len(),
            bytes: by_name.values().map(|entry| entry.stored).sum(),
        })
    }

    /// The sandbox of this name. It may be stripped: [`slim::is_stripped`].
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Sandbox>> {
        self.read().get(namespace)?.get(name).map(|entry| entry.sandbox.clone())
    }

    /// Whether the end of this sandbox (not of another one of its name) was observed a moment ago.
    pub(crate) fn just_ended(&self, sandbox: &Sandbox) -> bool {
        let all = self.read();
        let entry = sandbox
            .metadata
            .namespace
            .as_ref()
            .and_then(|n| all.get(n)?.get(&sandbox.name_any()));
        entry.is_some_and(|e| {
            e.sandbox.uid() == sandbox.uid() && e.ended.is_some_and(|ended| ended.elapsed() < JUST_ENDED)
        })
    }

    /// All sandboxes of a namespace, in no order.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<Sandbox>> {
        self.read()
            .get(namespace)
            .map(|n| n.values().map(|e| e.sandbox.clone()).collect())
            .unwrap_or_default()
    }

    /// All sandboxes of all namespaces, in no order.
    pub(crate) fn list_all(&self) -> Vec<Arc<Sandbox>> {
        self.read()
            .values()
            .flat_map(|n| n.values().map(|e| e.sandbox.clone()))
            .collect()
    }

    /// Number of sandboxes.
    pub(crate) fn len(&self) -> usize {
        self.read().values().map(HashMap::len).sum()
    }

    /// Inserts a sandbox as a watch event would.
    #[cfg(test)]
    pub(crate) fn put(&self, sandbox: Sandbox) {
        insert(&mut self.write(), sandbox);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first lists are complete.
    pub(crate) fn is_ready(&self) -> bool {
        self.unlisted.borrow().is_empty()
    }

    /// Waits until the first lists are complete.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.unlisted.subscribe().wait_for(HashSet::is_empty).await;
    }

    /// Watches until the end of the process.
    pub(crate) async fn run(&self, api: &ApiClient) {
        let scopes = self.unlisted.borrow().clone();
        futures::future::join_all(scopes.into_iter().map(|scope| self.watch(api, scope))).await;
    }

    async fn watch(&self, api: &ApiClient, scope: Option<String>) {
        let mut listed = HashMap::new();
        let apply = |event| self.apply(scope.as_ref(), &mut listed, event);
        api.watch::<Sandbox>(scope.as_deref(), "", apply).await;
    }

    /// Applies an event of a watch. A list replaces the sandboxes only when it is complete; until then it is collected
    /// in `listed`.
    fn apply(&self, scope: Option<&String>, listed: &mut HashMap<String, ByName>, event: Event<Readable<Sandbox>>) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(Readable(Ok(sandbox))) => insert(listed, sandbox),
            Event::InitDone => {
                let list = std::mem::take(listed);
                let mut all = self.write();
                match scope {
                    Some(namespace) => {
                        all.remove(namespace);
                        all.extend(list);
                    }
                    None => *all = list,
                }
                drop(all);
                self.unlisted.send_modify(|unlisted| {
                    unlisted.remove(&scope.cloned());
                });
            }
            Event::Apply(Readable(Ok(sandbox))) => insert(&mut self.write(), sandbox),
            // The operator reports it.
            Event::InitApply(Readable(Err(_))) | Event::Apply(Readable(Err(_))) => {}
            Event::Delete(sandbox) => {
                let namespace = sandbox.namespace().unwrap_or_default();
                let mut all = self.write();
                if let Some(by_name) = all.get_mut(&namespace) {
                    by_name.remove(&sandbox.name_any());
                    if by_name.is_empty() {
                        all.remove(&namespace);
                    }
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, ByName>> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, ByName>> {
        self.namespaces.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(all: &mut HashMap<String, ByName>, mut sandbox: Sandbox) {
    drop_file_contents(&mut sandbox);
    let announced = sandbox
        .annotations()
        .get(ANNOTATION_STORED_BYTES)
        .and_then(|bytes| bytes.parse().ok());
    let weight = slim::sandbox(&mut sandbox);
    let stored = announced.unwrap_or_else(|| u64::try_from(weight).unwrap_or(u64::MAX));
    let (namespace, name) = (sandbox.namespace().unwrap_or_default(), sandbox.name_any());
    let by_name = all.entry(namespace).or_default();
    // A sandbox that had already ended when it was first seen did not end just now.
    let ended = by_name
        .get(&name)
        .filter(|_| sandbox.is_final())
        .and_then(|before| match before.sandbox.is_final() {
            true => before.ended,
            false => Some(Instant::now()),
        });
    let sandbox = Arc::new(sandbox);
    let entry = Entry { sandbox, ended, stored };
    by_name.insert(name, entry);
}

/// Nothing here reads the contents of files, and they can be large.
fn drop_file_contents(sandbox: &mut Sandbox) {
    let w = &mut sandbox.spec.workload;
    let of_sidecars = w
        .pod
        .sidecars
        .iter_mut()
        .flatten()
        .filter_map(|s| s.container.files.as_mut());
    for file in w.container.files.iter_mut().chain(of_sidecars).flatten() {
        (file.content, file.content_base64) = (None, None);
    }
}

#[cfg(test)]
mod tests;
