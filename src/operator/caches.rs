//! What is kept in memory of the cluster, and the watches that keep it fresh. Every replica watches, so that a new leader starts warm.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::sandbox::pod::PodView;
use crate::api::{LABEL_SANDBOX, Sandbox, SandboxSession};
use crate::kube::{ApiClient, Unreadable, readable};
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
pub async fn run(client: &ApiClient, namespace: Option<&str>, writers: Writers, listener: impl Listener) {
    let l = &listener;
    let ours = labels::managed_selector();
    let sandboxes = follow(client, namespace, "", writers.sandboxes, slim_sandbox, l, |event| match event {
        Event::Apply(s) | Event::InitApply(s) => l.sandbox(s),
        Event::Delete(s) => l.sandbox_gone(s),
        Event::InitDone => {
            l.sandboxes_relisted();
            l.relisted();
        }
        Event::Init => {}
    });
    let sessions = follow(
        client,
        namespace,
        "",
        writers.sessions,
        |_| {},
        l,
        |event| match event {
            Event::Apply(s) | Event::InitApply(s) | Event::Delete(s) => l.session(s),
            Event::InitDone => l.relisted(),
            Event::Init => {}
        },
    );
    let pods = follow(
        client,
        namespace,
        &ours,
        writers.pods,
        |_| {},
        l,
        |event: &Event<CachedPod>| child(l, event),
    );
    let policies = follow(
        client,
        namespace,
        &ours,
        writers.policies,
        slim_policy,
        l,
        |event: &Event<NetworkPolicy>| child(l, event),
    );
    tokio::join!(sandboxes, sessions, pods, policies);
}

/// Keeps one cache up to date. Unreadable objects are skipped, pods and policies too: anyone who may create one can give it our labels.
async fn follow<K>(
    client: &ApiClient,
    namespace: Option<&str>,
    labels: &str,
    mut writer: reflector::store::Writer<K>,
    slim: fn(&mut K),
    listener: &impl Listener,
    notify: impl Fn(&Event<K>),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let unreadable = |object: &Unreadable| listener.unreadable(&object.metadata.clone().into_request_partial::<K>(), &object.error);
    let handle = |event| {
        let Some(mut event) = readable(event, unreadable) else { return };
        if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &mut event {
            slim(object);
        }
        writer.apply_watcher_event(&event);
        notify(&event);
    };
    client.watch(namespace, labels, handle).await;
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
