//! What is kept in memory of the cluster, and the watches that keep it fresh. Every replica watches, so that a new leader starts warm.

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::metrics::Metrics;
use super::sandbox::observed::PodView;
use crate::api::{LABEL_SANDBOX, Sandbox, SandboxSession};
use crate::guard::{Guarded, Unreadable};
use crate::resources::{labels, network_policy};

/// The caches of one scope.
#[derive(Clone)]
pub struct Caches {
    /// Sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// Sessions.
    pub sessions: Store<SandboxSession>,
    /// Our pods.
    pub pods: Store<CachedPod>,
    /// Our policies without their spec; with the hash of it only while it is what we made.
    pub policies: Store<NetworkPolicy>,
}

/// A pod as it is kept: a whole one would cost 40 KB of memory, and one of its type, however empty, 2.4.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Pod)]
#[serde(from = "Pod")]
pub struct CachedPod {
    /// Of the labels the sandbox's only, and no annotations.
    pub metadata: ObjectMeta,
    /// What decisions look at.
    pub view: PodView,
}

impl From<Pod> for CachedPod {
    fn from(pod: Pod) -> CachedPod {
        let view = PodView::new(&pod);
        let mut metadata = pod.metadata;
        metadata.annotations = None;
        if let Some(labels) = metadata.labels.as_mut() {
            labels.retain(|key, _| key == LABEL_SANDBOX);
        }
        CachedPod { metadata, view }
    }
}

/// The write ends, for [`run`].
pub struct Writers {
    sandboxes: reflector::store::Writer<Sandbox>,
    sessions: reflector::store::Writer<SandboxSession>,
    pods: reflector::store::Writer<CachedPod>,
    policies: reflector::store::Writer<NetworkPolicy>,
}

/// What the watches tell.
pub trait Listener: Clone + Send + Sync + 'static {
    /// A sandbox is new or changed.
    fn sandbox(&self, sandbox: &Sandbox);
    /// A sandbox is gone.
    fn sandbox_gone(&self, sandbox: &Sandbox);
    /// A session is new, changed or gone.
    fn session(&self, session: &SandboxSession);
    /// A child of a sandbox is new, changed or gone.
    fn child(&self, sandbox: ObjectRef<Sandbox>);
    /// Sandboxes may be gone of which nothing was told.
    fn sandboxes_relisted(&self);
    /// An object that cannot be understood is passed over.
    fn unreadable<K: Resource<DynamicType = ()>>(&self, object: &PartialObjectMeta<K>, error: &str);
    /// Much may have changed: deletions that happened while a watch was broken are not told one by one.
    fn relisted(&self);
}

/// Empty caches.
pub fn new() -> (Caches, Writers) {
    let (sandboxes, w1) = reflector::store();
    let (sessions, w2) = reflector::store();
    let (pods, w3) = reflector::store();
    let (policies, w4) = reflector::store();
    (
        Caches {
            sandboxes,
            sessions,
            pods,
            policies,
        },
        Writers {
            sandboxes: w1,
            sessions: w2,
            pods: w3,
            policies: w4,
        },
    )
}

impl Caches {
    /// Waits for the first list of each kind.
    pub async fn ready(&self) {
        // An error means that the watch ended, which ends the process elsewhere.
        let _ = self.sandboxes.wait_until_ready().await;
        let _ = self.sessions.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.policies.wait_until_ready().await;
    }
}

/// Watches until the end of the process. `namespace`: none for all.
pub async fn run(client: Client, namespace: Option<&str>, writers: Writers, listener: impl Listener, metrics: Metrics) {
    let l = &listener;
    let sandboxes = follow(
        "Sandbox",
        guarded(api(&client, namespace), config(), l),
        writers.sandboxes,
        slim_sandbox,
        &metrics,
        |event| match event {
            Event::Apply(s) | Event::InitApply(s) => l.sandbox(s),
            Event::Delete(s) => l.sandbox_gone(s),
            Event::InitDone => {
                l.sandboxes_relisted();
                l.relisted();
            }
            Event::Init => {}
        },
    );
    let sessions = follow(
        "SandboxSession",
        guarded(api(&client, namespace), config(), l),
        writers.sessions,
        |_| {},
        &metrics,
        |event| match event {
            Event::Apply(s) | Event::InitApply(s) | Event::Delete(s) => l.session(s),
            Event::InitDone => l.relisted(),
            Event::Init => {}
        },
    );
    let ours = || config().labels(&labels::managed_selector());
    let pods = follow(
        "Pod",
        guarded(api(&client, namespace), ours(), l),
        writers.pods,
        |_| {},
        &metrics,
        |event: &Event<CachedPod>| child(l, event),
    );
    let policies = follow(
        "NetworkPolicy",
        guarded(api(&client, namespace), ours(), l),
        writers.policies,
        slim_policy,
        &metrics,
        |event: &Event<NetworkPolicy>| child(l, event),
    );
    tokio::join!(sandboxes, sessions, pods, policies);
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// From the API server's watch cache: a list of all must not cost etcd a full read.
fn config() -> watcher::Config {
    watcher::Config::default().any_semantic()
}

/// A watch that passes over what cannot be understood. Also of pods and policies: whoever may make one can give it our labels.
fn guarded<K>(api: Api<Guarded<K>>, config: watcher::Config, listener: &impl Listener) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let unreadable = |bad: &Unreadable| listener.unreadable(&bad.metadata.clone().into_request_partial::<K>(), &bad.error);
    watch(api, config).default_backoff().filter_map(move |event| {
        let event = event.map(|event| readable(event, unreadable)).transpose();
        std::future::ready(event)
    })
}

fn readable<K>(event: Event<Guarded<K>>, unreadable: impl Fn(&Unreadable)) -> Option<Event<K>> {
    Some(match event {
        Event::Apply(guard) => Event::Apply(guard.0.inspect_err(unreadable).ok()?),
        Event::InitApply(guard) => Event::InitApply(guard.0.inspect_err(unreadable).ok()?),
        Event::Delete(guard) => Event::Delete(guard.0.ok()?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

/// Errors are logged, counted and survived, each watch with a backoff of its own: kube's Controller would stop all its watches for one.
async fn follow<K>(
    kind: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    writer: reflector::store::Writer<K>,
    slim: fn(&mut K),
    metrics: &Metrics,
    tell: impl Fn(&Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone,
{
    let stream = events.modify(slim).reflect(writer);
    let mut stream = std::pin::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                tell(&event);
            }
            Err(error) => {
                metrics.watch_error(kind);
                tracing::warn!(kind, %error, "watch broke; it is begun anew");
            }
        }
    }
}

fn child<K: Resource>(listener: &impl Listener, event: &Event<K>) {
    match event {
        Event::Apply(o) | Event::InitApply(o) | Event::Delete(o) => {
            let name = o.meta().labels.as_ref().and_then(|l| l.get(LABEL_SANDBOX));
            if let (Some(name), Some(namespace)) = (name, o.meta().namespace.as_deref()) {
                listener.child(ObjectRef::new(name).within(namespace));
            }
        }
        Event::InitDone => listener.relisted(),
        Event::Init => {}
    }
}

/// Of a sandbox whose pod was made, or never will be, no more what only its making needs: that is the most of it, and users decide how much.
fn slim_sandbox(sandbox: &mut Sandbox) {
    if sandbox.status.as_ref().is_some_and(|s| s.pod_name.is_some() || s.state.is_final()) {
        let w = &mut sandbox.spec.workload;
        let c = &mut w.container;
        (c.command, c.args, c.env, c.env_from, c.files) = (None, None, None, None, None);
        w.pod.sidecars = None;
    }
}

/// Of a policy its metadata, and the hash of its spec only while it is true.
fn slim_policy(policy: &mut NetworkPolicy) {
    let hash = network_policy::spec_hash(policy)
        .filter(|_| network_policy::is_unmodified(policy))
        .cloned();
    policy.metadata.annotations = hash.map(|hash| [(labels::SPEC_HASH.into(), hash)].into());
    policy.spec = None;
}

/// The reference by which a cached object is found.
pub fn reference<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> ObjectRef<K> {
    ObjectRef::new(name).within(namespace)
}

/// The reference of an object.
pub fn reference_of<K: Resource<DynamicType = ()>>(object: &K) -> ObjectRef<K> {
    reference(&object.namespace().unwrap_or_default(), &object.name_any())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn an_object_that_cannot_be_understood_is_told_and_passed_over() {
        let seen = |event: fn(Guarded<Sandbox>) -> Event<Guarded<Sandbox>>, command: Value| {
            let object = json!({"metadata": {"name": "a"}, "spec": {"command": command}});
            let told = std::cell::Cell::new(false);
            let event = readable(event(serde_json::from_value(object).unwrap()), |_| told.set(true));
            (event.is_some(), told.get())
        };
        for event in [Event::Apply, Event::InitApply] {
            assert_eq!(seen(event, json!(["ls"])), (true, false));
            assert_eq!(seen(event, json!("ls")), (false, true));
        }
        assert_eq!(
            (seen(Event::Delete, json!(["ls"])), seen(Event::Delete, json!("ls"))),
            ((true, false), (false, false))
        );
    }
}
