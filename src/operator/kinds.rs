//! The kinds of the operator: what is cached of each, what reconciles it, and what triggers a reconcile. A new kind is
//! one entry here.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::watch;

use super::apply::Writer;
use super::enforcement::NetworkStatus;
use super::events::Events;
use super::metrics::Metrics;
use super::runtime::{Controller, Runtime, States};
use super::sandbox::{self, ActiveIndex, CachedPod};
use super::session::{self, SessionIndex};
use crate::agent_client::{AgentClient, KeyRing};
use crate::api::{LABEL_SANDBOX, Sandbox, SandboxSession};
use crate::kube::ApiClient;
use crate::resources::AgentDelivery;
use crate::resources::addresses::Lists;
use crate::resources::{AgentKey, Settings, labels, slim};

/// What the kinds of all namespaces share.
pub(super) struct Shared {
    pub client: ApiClient,
    pub events: Events,
    pub network: NetworkStatus,
    pub metrics: Metrics,
    pub settings: Settings,
    pub lists: watch::Receiver<Lists>,
    pub agent_delivery: AgentDelivery,
    pub agent_key: watch::Receiver<AgentKey>,
    pub agents: AgentClient,
    pub keys: KeyRing,
    /// Reconciles of sandboxes at once, per watched namespace.
    pub concurrency: u16,
}

/// The kinds of one namespace, or of all. Returns the cache of the pods, too: it tells which of the agents' keys are in
/// use.
pub(super) fn kinds(namespace: Option<String>, shared: &Shared) -> (Runtime, Store<CachedPod>) {
    let mut runtime = Runtime::new(
        shared.client.clone(),
        namespace,
        shared.events.clone(),
        shared.metrics.clone(),
    );
    let writer = Writer::new(shared.client.clone());
    let children = labels::managed_selector();
    let pods = runtime.informer::<CachedPod>(&children, |_| {});
    let policies = runtime.informer::<NetworkPolicy>(&children, sandbox::slim_policy);
    let sandboxes = runtime.informer::<Sandbox>("", sandbox::slim);
    let sessions = runtime.informer::<SandboxSession>("", slim::session);
    let session_store = sessions.store();
    let (sandbox_queue, session_queue) = (runtime.queue(), runtime.queue());
    let index = Arc::<SessionIndex>::default();

    let active = Arc::<ActiveIndex>::default();
    let (followed, store) = (active.clone(), sandboxes.store());
    sandboxes.subscribe(move |event| followed.apply(event, || store.state()));
    let (counted, store) = (active.clone(), sandboxes.store());
    runtime.on_start(move || counted.drop_reservations(&store.state()));
    let states = States::of(&sandboxes);
    let context = sandbox::Context {
        active,
        writer: writer.clone(),
        caches: sandbox::Caches {
            sandboxes: sandboxes.store(),
            sessions: sessions.store(),
            pods: pods.store(),
            policies: policies.store(),
        },
        sessions: index.clone(),
        events: shared.events.clone(),
        metrics: shared.metrics.clone(),
        network: shared.network.clone(),
        lists: shared.lists.clone(),
        settings: shared.settings.clone(),
        agent_delivery: shared.agent_delivery,
        agent_key: shared.agent_key.clone(),
        agents: shared.agents.clone(),
        keys: shared.keys.clone(),
        states: states.clone(),
        policy_restores: States::of(&policies),
    };
    let members = index.clone();
    runtime
        .controller(Controller {
            informer: sandboxes.clone(),
            queue: sandbox_queue.clone(),
            reconcile: sandbox::reconcile,
            context: Arc::new(context),
            states,
            concurrency: shared.concurrency,
        })
        .on(&pods, sandbox_of)
        .on(&policies, sandbox_of)
        .on(&sessions, move |session| match session::concerns_sandboxes(session) {
            true => members.unfinished(session),
            false => vec![],
        });

    let (store, queue) = (sandboxes.store(), sandbox_queue.clone());
    shared.network.subscribe(move || {
        let waiting = store.state().into_iter().filter(|s| sandbox::has_no_pod(s));
        waiting.for_each(|sandbox| queue.push(ObjectRef::from_obj(sandbox.as_ref())));
    });

    let states = States::of(&sessions);
    let context = session::Context {
        writer,
        index: index.clone(),
        sandboxes: sandbox_queue.clone(),
        states: states.clone(),
    };
    runtime.controller(Controller {
        informer: sessions,
        queue: session_queue.clone(),
        reconcile: session::reconcile,
        context: Arc::new(context),
        states,
        concurrency: shared.concurrency.min(8),
    });
    let (reservations, known, keys) = (
        index.clone(),
        (sandboxes.store(), session_store, pods.store()),
        shared.keys.clone(),
    );
    runtime.on_start(move || {
        reservations.drop_reservations();
        restore_reservations(&reservations, &known.0, &known.1, &known.2, &keys);
    });
    let store = sandboxes.store();
    let known = move || -> HashSet<String> { store.state().iter().filter_map(|s| s.metadata.uid.clone()).collect() };
    // A sandbox that ends makes room for those that wait to join its session.
    sandboxes.subscribe(move |event| {
        let affected = index.apply(event, &known);
        affected
            .session
            .into_iter()
            .for_each(|session| session_queue.push(session));
        affected
            .sandboxes
            .into_iter()
            .for_each(|sandbox| sandbox_queue.push(sandbox));
    });

    (runtime, pods.store())
}

/// A sandbox whose pod another replica created keeps its slot in its session, although no status names the session yet.
fn restore_reservations(
    index: &SessionIndex,
    sandboxes: &Store<Sandbox>,
    sessions: &Store<SandboxSession>,
    pods: &Store<CachedPod>,
    keys: &KeyRing,
) {
    for pod in pods.state() {
        let sandbox = sandbox_of(&*pod).iter().find_map(|reference| sandboxes.get(reference));
        let Some(sandbox) = sandbox.filter(|s| sandbox::has_no_pod(s)) else {
            continue;
        };
        let session = sandbox
            .spec
            .session_name
            .as_deref()
            .zip(sandbox.metadata.namespace.as_deref());
        let session = session.and_then(|(name, namespace)| sessions.get(&ObjectRef::new(name).within(namespace)));
        if let Some(session) = session.filter(|_| sandbox::is_ours(&pod.metadata, &sandbox, keys)) {
            index.restore(&sandbox, &session);
        }
    }
}

/// The sandbox to which a child belongs by its label.
fn sandbox_of(child: &impl Resource) -> Vec<ObjectRef<Sandbox>> {
    let name = child.meta().labels.as_ref().and_then(|l| l.get(LABEL_SANDBOX));
    let namespace = child.meta().namespace.as_deref();
    name.zip(namespace)
        .map(|(name, namespace)| ObjectRef::new(name).within(namespace))
        .into_iter()
        .collect()
}
