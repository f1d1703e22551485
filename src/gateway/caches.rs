//! What the gateway watches: the sandboxes, found by name at once and listed by namespace without a scan of the others.

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch as signal;

use crate::api::Sandbox;
use crate::kube::{ApiClient, Readable};

/// How long the end of a stop is kept back once it was seen here. The SDK drops the logs that it follows when it is told of that end, and
/// whoever reads them waits for ever: the logs must end first, at every replica.
const JUST_ENDED: Duration = Duration::from_millis(500);

type Named = HashMap<String, Kept>;

/// A sandbox, and when it was seen to end.
struct Kept {
    sandbox: Arc<Sandbox>,
    ended: Option<Instant>,
}

/// What is watched. A miss proves nothing: an object may be newer than what the watch has told.
#[derive(Clone)]
pub struct Caches {
    namespaces: Arc<RwLock<HashMap<String, Named>>>,
    /// Scopes whose first list is not complete.
    missing: Arc<signal::Sender<HashSet<Option<String>>>>,
}

impl Caches {
    /// Empty caches of these namespaces; none named: of all.
    pub fn new(namespaces: &[String]) -> Caches {
        let scopes = if namespaces.is_empty() {
            HashSet::from([None])
        } else {
            namespaces.iter().cloned().map(Some).collect()
        };
        Caches {
            namespaces: Arc::default(),
            missing: Arc::new(signal::Sender::new(scopes)),
        }
    }

    /// A sandbox by name.
    pub fn sandbox(&self, namespace: &str, name: &str) -> Option<Arc<Sandbox>> {
        self.read().get(namespace)?.get(name).map(|kept| kept.sandbox.clone())
    }

    /// Whether this very sandbox ended a moment ago.
    pub fn just_ended(&self, sandbox: &Sandbox) -> bool {
        let all = self.read();
        let kept = sandbox.metadata.namespace.as_ref().and_then(|n| all.get(n)?.get(&sandbox.name_any()));
        kept.is_some_and(|k| k.sandbox.uid() == sandbox.uid() && k.ended.is_some_and(|ended| ended.elapsed() < JUST_ENDED))
    }

    /// All sandboxes of a namespace, in no order.
    pub fn sandboxes(&self, namespace: &str) -> Vec<Arc<Sandbox>> {
        self.read()
            .get(namespace)
            .map(|n| n.values().map(|k| k.sandbox.clone()).collect())
            .unwrap_or_default()
    }

    /// All sandboxes of all namespaces, in no order.
    pub fn all_sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.read().values().flat_map(|n| n.values().map(|k| k.sandbox.clone())).collect()
    }

    /// How many objects are kept.
    pub fn len(&self) -> usize {
        self.read().values().map(HashMap::len).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first lists are complete.
    pub fn is_ready(&self) -> bool {
        self.missing.borrow().is_empty()
    }

    /// Waits until the first lists are complete.
    pub async fn ready(&self) {
        // The sender is ours, so that it cannot be gone.
        let _ = self.missing.subscribe().wait_for(HashSet::is_empty).await;
    }

    /// Watches until the end of the process.
    pub async fn run(&self, client: &ApiClient) {
        let scopes = self.missing.borrow().clone();
        futures::future::join_all(scopes.into_iter().map(|scope| self.follow(client, scope))).await;
    }

    async fn follow(&self, client: &ApiClient, scope: Option<String>) {
        let mut listed = HashMap::new();
        let handle = |event| self.take(scope.as_ref(), &mut listed, event);
        client.watch::<Sandbox>(scope.as_deref(), "", handle).await;
    }

    /// One event of a watch. What a list has before is whole goes to `listed`, so that readers never see half of one.
    fn take(&self, scope: Option<&String>, listed: &mut HashMap<String, Named>, event: Event<Readable<Sandbox>>) {
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
                self.missing.send_modify(|missing| {
                    missing.remove(&scope.cloned());
                });
            }
            Event::Apply(Readable(Ok(sandbox))) => insert(&mut self.write(), sandbox),
            // The operator tells of it.
            Event::InitApply(Readable(Err(_))) | Event::Apply(Readable(Err(_))) => {}
            Event::Delete(sandbox) => {
                let namespace = sandbox.namespace().unwrap_or_default();
                let mut all = self.write();
                if let Some(named) = all.get_mut(&namespace) {
                    named.remove(&sandbox.name_any());
                    if named.is_empty() {
                        all.remove(&namespace);
                    }
                }
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Named>> {
        self.namespaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Named>> {
        self.namespaces.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert(all: &mut HashMap<String, Named>, mut sandbox: Sandbox) {
    slim(&mut sandbox);
    let (namespace, name) = (sandbox.namespace().unwrap_or_default(), sandbox.name_any());
    let named = all.entry(namespace).or_default();
    let is_final = |s: &Sandbox| s.status.as_ref().is_some_and(|s| s.state.is_final());
    // One that had ended when it was first seen did so before.
    let ended = named
        .get(&name)
        .filter(|_| is_final(&sandbox))
        .and_then(|before| match is_final(&before.sandbox) {
            true => before.ended,
            false => Some(Instant::now()),
        });
    let sandbox = Arc::new(sandbox);
    named.insert(name, Kept { sandbox, ended });
}

/// What files contain is nobody's business here, and users decide how much it is.
fn slim(sandbox: &mut Sandbox) {
    let w = &mut sandbox.spec.workload;
    let of_sidecars = w.pod.sidecars.iter_mut().flatten().filter_map(|s| s.container.files.as_mut());
    for file in w.container.files.iter_mut().chain(of_sidecars).flatten() {
        (file.content, file.content_base64) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(namespace: &str, name: &str) -> Sandbox {
        let mut sandbox = Sandbox::new(name, crate::api::SandboxSpec::default());
        sandbox.metadata.namespace = Some(namespace.into());
        sandbox
    }

    fn names(caches: &Caches, namespace: &str) -> Vec<String> {
        let mut names: Vec<_> = caches.sandboxes(namespace).iter().map(|s| s.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_list_replaces_what_was_known_only_when_it_is_whole() {
        let caches = Caches::new(&[]);
        let mut listed = HashMap::new();
        let mut take = |event| caches.take(None, &mut listed, event);
        take(Event::Init);
        take(Event::InitApply(Readable(Ok(sandbox("a", "one")))));
        assert!(!caches.is_ready() && caches.is_empty());
        take(Event::InitDone);
        assert!(caches.is_ready());
        take(Event::Apply(Readable(Ok(sandbox("a", "two")))));
        take(Event::Apply(Readable(Ok(sandbox("b", "one")))));
        assert_eq!(
            (names(&caches, "a"), names(&caches, "b")),
            (vec!["one".into(), "two".into()], vec!["one".into()])
        );
        take(Event::Init);
        take(Event::InitApply(Readable(Ok(sandbox("a", "three")))));
        assert_eq!(names(&caches, "a"), ["one", "two"], "the old list is served meanwhile");
        take(Event::InitDone);
        assert_eq!((names(&caches, "a"), caches.len()), (vec!["three".into()], 1));
        assert!(caches.sandbox("a", "three").is_some() && caches.sandbox("b", "three").is_none());
        take(Event::Delete(Readable(Ok(sandbox("a", "three")))));
        assert!(caches.is_empty());
    }

    #[test]
    fn a_sandbox_has_just_ended_only_if_it_was_seen_before_that() {
        let (caches, mut listed) = (Caches::new(&[]), HashMap::new());
        let ended = |name: &str| {
            let mut ended = sandbox("a", name);
            ended.status.get_or_insert_default().state = crate::api::State::Terminated;
            ended
        };
        let mut take = |event| caches.take(None, &mut listed, event);
        take(Event::Init);
        take(Event::InitApply(Readable(Ok(ended("old")))));
        take(Event::InitApply(Readable(Ok(sandbox("a", "new")))));
        take(Event::InitDone);
        assert!(!caches.just_ended(&ended("old")) && !caches.just_ended(&sandbox("a", "new")));
        take(Event::Apply(Readable(Ok(ended("new")))));
        assert!(caches.just_ended(&ended("new")));
        let before = Instant::now().checked_sub(JUST_ENDED);
        caches.write().get_mut("a").unwrap().get_mut("new").unwrap().ended = before;
        take(Event::Apply(Readable(Ok(ended("new")))));
        assert!(!caches.just_ended(&ended("new")), "it does not end again");
    }

    #[test]
    fn a_list_of_one_namespace_leaves_the_others_alone() {
        let caches = Caches::new(&["a".into(), "b".into()]);
        let (a, b) = ("a".to_owned(), "b".to_owned());
        let mut listed = HashMap::new();
        for (scope, event) in [
            (&a, Event::InitApply(Readable(Ok(sandbox("a", "one"))))),
            (&a, Event::InitDone),
            (&b, Event::InitApply(Readable(Ok(sandbox("b", "one"))))),
        ] {
            caches.take(Some(scope), &mut listed, event);
        }
        assert!(!caches.is_ready(), "b is not listed yet");
        caches.take(Some(&b), &mut listed, Event::InitDone);
        assert!(caches.is_ready());
        assert_eq!(caches.len(), 2);
        caches.take(Some(&a), &mut listed, Event::Init);
        caches.take(Some(&a), &mut listed, Event::InitDone);
        assert_eq!((caches.len(), names(&caches, "b")), (1, vec!["one".into()]));
    }
}
