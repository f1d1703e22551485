//! What is kept in memory of the cluster, and the watches that keep it fresh. Every replica watches, so that a new leader starts warm.

use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::metrics::Metrics;
use crate::api::{ANNOTATION_AGENT_KEY, LABEL_SANDBOX, Sandbox, SandboxSession};
use crate::resources::{labels, network_policy};

/// The caches of one scope.
#[derive(Clone)]
pub struct Caches {
    /// Sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// Sessions.
    pub sessions: Store<SandboxSession>,
    /// Our pods, slimmed.
    pub pods: Store<Pod>,
    /// Our policies without their spec; with the hash of it only while it is what we made.
    pub policies: Store<NetworkPolicy>,
}

/// The write ends, for [`run`].
pub struct Writers {
    sandboxes: reflector::store::Writer<Sandbox>,
    sessions: reflector::store::Writer<SandboxSession>,
    pods: reflector::store::Writer<Pod>,
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
        guarded(api(&client, namespace), l),
        writers.sandboxes,
        slim,
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
        guarded(api(&client, namespace), l),
        writers.sessions,
        slim,
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
        watch(api(&client, namespace), ours()).default_backoff(),
        writers.pods,
        slim_pod,
        &metrics,
        |event: &Event<Pod>| child(l, event),
    );
    let policies = follow(
        "NetworkPolicy",
        watch(api(&client, namespace), ours()).default_backoff(),
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

/// A watch of what users write.
fn guarded<K>(api: Api<DeserializeGuard<K>>, listener: &impl Listener) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let unreadable = |bad: &InvalidObject| listener.unreadable(&bad.metadata.clone().into_request_partial::<K>(), &bad.error);
    watch(api, config()).default_backoff().filter_map(move |event| {
        let event = event.map(|event| readable(event, unreadable)).transpose();
        std::future::ready(event)
    })
}

/// One object that cannot be understood must not hide all others, as it would in a list.
fn readable<K>(event: Event<DeserializeGuard<K>>, unreadable: impl Fn(&InvalidObject)) -> Option<Event<K>> {
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

fn slim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = object.meta_mut().annotations.as_mut() {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Of a policy its metadata, and the hash of its spec only while it is true.
fn slim_policy(policy: &mut NetworkPolicy) {
    slim(policy);
    let hash = network_policy::spec_hash(policy).filter(|_| network_policy::is_as_made(policy)).cloned();
    policy.metadata.annotations = hash.map(|hash| [(labels::SPEC_HASH.into(), hash)].into());
    policy.spec = None;
}

/// Of a pod only what a decision looks at: a full one costs 40 KB in memory.
fn slim_pod(pod: &mut Pod) {
    slim(pod);
    if let Some(annotations) = pod.metadata.annotations.as_mut() {
        annotations.retain(|key, _| key == ANNOTATION_AGENT_KEY);
    }
    if let Some(spec) = pod.spec.take() {
        let (node_name, active_deadline_seconds) = (spec.node_name, spec.active_deadline_seconds);
        pod.spec = Some(k8s_openapi::api::core::v1::PodSpec {
            node_name,
            active_deadline_seconds,
            ..Default::default()
        });
    }
    if let Some(status) = pod.status.as_mut() {
        status.pod_ips = None;
        status.host_ip = None;
        status.host_ips = None;
        for s in status
            .container_statuses
            .iter_mut()
            .chain(status.init_container_statuses.iter_mut())
            .flatten()
        {
            s.image = String::new();
            s.image_id = String::new();
            s.volume_mounts = None;
            s.resources = None;
            s.allocated_resources = None;
            s.user = None;
        }
    }
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
        let seen = |event: fn(DeserializeGuard<Sandbox>) -> Event<DeserializeGuard<Sandbox>>, command: Value| {
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
