//! The operator: reconciles Sandbox and SandboxSession resources into pods.

mod admin;
mod agent_keys;
mod apply;
mod caches;
pub mod config;
mod context;
mod error;
mod events;
mod lease;
mod metrics;
mod sandbox;
mod session;
mod session_index;

use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{Action as Next, Config as ControllerConfig, ReconcileRequest, applier};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::config::Config;
use self::context::{Context, Feed, Memory, Queue};
use self::error::Error;
use crate::agent_client::AgentClient;
use crate::kube::ApiClient;
use crate::process;
use crate::resources::pod::AgentDelivery;
use crate::resources::{AgentKey, Settings};

/// Reconciles at once where the configuration says nothing: about that many connections to the API server.
const CONCURRENCY: u16 = 64;

/// How the operator is started.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Namespace of the operator, where its lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sandbox-operator")]
    namespace: String,
    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value = "local")]
    identity: String,
    /// Name of the lease.
    #[arg(long, default_value = "sandbox-operator")]
    lease_name: String,
    /// Name of the Secret with the keys of those who may call the agents.
    #[arg(long, default_value = "sandbox-operator-agent-keys")]
    agent_keys_secret: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// Logs as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Why the operator ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be used.
    #[error("configuration")]
    Config(#[from] process::ConfigError),
    /// Sandboxes could reach the API server.
    #[error(transparent)]
    Unprotected(#[from] config::Unprotected),
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] crate::kube::ConnectError),
    /// The admin server or the runtime cannot start.
    #[error("start")]
    Start(#[from] std::io::Error),
    /// The lease was lost: another replica may lead now, so this process must not write any more.
    #[error(transparent)]
    Lease(#[from] lease::Lost),
    /// A task that must not end has ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until SIGTERM, or until something that must not end has ended.
pub fn run(options: Options) -> Result<(), Failure> {
    crate::telemetry::init(options.log_json);
    let config: Config = options.config.as_deref().map(process::read_config).transpose()?.unwrap_or_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(options, config))
}

async fn serve(options: Options, mut config: Config) -> Result<(), Failure> {
    let client = crate::kube::connect().await?;
    let metrics = metrics::Metrics::default();
    let api = ApiClient::new(client.clone(), metrics.api.clone());
    config::discover_addresses(&client, &mut config.sandboxes).await?;
    let agent_by = config::agent_by(&client, &config.sandboxes).await;
    tracing::info!(?agent_by, never = ?config.sandboxes.network.never, "starting");
    let leading = Arc::new(AtomicBool::new(false));
    let names: Vec<Option<String>> = if config.watch_namespaces.is_empty() {
        vec![None]
    } else {
        config.watch_namespaces.iter().cloned().map(Some).collect()
    };
    let keyring = agent_keys::Keyring::new(api.clone(), &options.namespace, &options.agent_keys_secret);
    let shared = Shared {
        client: api.clone(),
        metrics: metrics.clone(),
        settings: config.sandboxes.clone(),
        agent_by,
        agent_key: keyring.newest(),
        agents: AgentClient::new(keyring.private()),
        leading: leading.clone(),
        identity: options.identity.clone(),
    };
    let scopes: Vec<Scope> = names.into_iter().map(|name| Scope::new(name, &shared)).collect();
    let caches: Vec<_> = scopes.iter().map(|s| s.context.caches.clone()).collect();
    let concurrency = config.concurrency.unwrap_or(CONCURRENCY);
    let stop = CancellationToken::new();
    let elector = lease::Elector::new(api, &options.namespace, &options.lease_name, &options.identity);

    let admin = tokio::spawn(admin::serve(options.admin_address, caches.clone(), metrics.clone()));
    let (watches, controllers): (Vec<_>, Vec<_>) = scopes.into_iter().map(|s| (s.watches, (s.context, s.sandboxes, s.sessions))).unzip();
    let watching = tokio::spawn(futures::future::join_all(watches));
    let leadership = async {
        elector.acquire().await;
        futures::future::join_all(caches.iter().map(caches::Caches::ready)).await;
        // Before the first pod: without a key nobody could call its agent.
        keyring.refresh(&caches).await;
        tracing::info!("leading");
        metrics.lease_held.set(1);
        leading.store(true, Ordering::Release);
        let running = controllers.into_iter().map(|(context, sandboxes, sessions)| {
            context.queue.push_all();
            control(context, sandboxes, sessions, concurrency, stop.clone())
        });
        let lost = elector.hold();
        let controllers = futures::future::join_all(running);
        tokio::select! {
            lost = lost => Err(Failure::from(lost)),
            () = keyring.keep(&caches) => Err(Failure::Ended("the keeper of the agents' keys")),
            _ = controllers => if stop.is_cancelled() { Ok(()) } else { Err(Failure::Ended("a controller")) },
        }
    };
    let stopping = async {
        process::terminated().await;
        tracing::info!("stopping");
        stop.cancel();
        // A standby has nothing to finish; a leader finishes what is under way within its pod's grace period.
        if leading.load(Ordering::Acquire) {
            tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        }
    };
    let result = tokio::select! {
        result = leadership => result,
        ended = admin => Err(match ended { Ok(Err(error)) => Failure::Start(error), Ok(Ok(())) | Err(_) => Failure::Ended("the admin server") }),
        _ = watching => Err(Failure::Ended("a watch")),
        () = stopping => Ok(()),
    };
    if result.is_ok() && leading.load(Ordering::Acquire) {
        elector.release().await;
    }
    result
}

/// What the scopes have in common.
struct Shared {
    client: ApiClient,
    metrics: metrics::Metrics,
    settings: Settings,
    agent_by: AgentDelivery,
    agent_key: watch::Receiver<AgentKey>,
    agents: AgentClient,
    leading: Arc<AtomicBool>,
    identity: String,
}

/// One namespace, or all.
struct Scope {
    context: Arc<Context>,
    watches: futures::future::BoxFuture<'static, ()>,
    sandboxes: mpsc::UnboundedReceiver<ObjectRef<crate::api::Sandbox>>,
    sessions: mpsc::UnboundedReceiver<ObjectRef<crate::api::SandboxSession>>,
}

impl Scope {
    fn new(namespace: Option<String>, shared: &Shared) -> Scope {
        let Shared { client, metrics, .. } = shared;
        let (caches, writers) = caches::new();
        let (send_sandbox, sandboxes) = mpsc::unbounded_channel();
        let (send_session, sessions) = mpsc::unbounded_channel();
        let index = Arc::<session_index::SessionIndex>::default();
        let memory = Memory::default();
        let queue = Queue::new(
            shared.leading.clone(),
            send_sandbox,
            send_session,
            index.clone(),
            caches.clone(),
            metrics.clone(),
        );
        let events = events::Events::start(client.clone(), metrics.clone(), &shared.identity);
        let feed = Feed {
            queue: queue.clone(),
            memory: memory.clone(),
            events: events.clone(),
        };
        let watch_client = client.clone();
        let watches = async move { Box::pin(caches::run(&watch_client, namespace.as_deref(), writers, feed)).await }.boxed();
        let context = Arc::new(Context {
            writer: apply::Writer::new(client.clone()),
            caches,
            events,
            metrics: metrics.clone(),
            settings: shared.settings.clone(),
            lists: shared.settings.lists(),
            agent_by: shared.agent_by,
            agent_key: shared.agent_key.clone(),
            agents: shared.agents.clone(),
            sessions: index,
            queue,
            memory,
        });
        Scope {
            context,
            watches,
            sandboxes,
            sessions,
        }
    }
}

/// Both controllers of one scope, until `stop`.
async fn control(
    context: Arc<Context>,
    sandboxes: mpsc::UnboundedReceiver<ObjectRef<crate::api::Sandbox>>,
    sessions: mpsc::UnboundedReceiver<ObjectRef<crate::api::SandboxSession>>,
    concurrency: u16,
    stop: CancellationToken,
) {
    let (sandbox_store, session_store) = (context.caches.sandboxes.clone(), context.caches.sessions.clone());
    let sandboxes = controller(
        "Sandbox",
        sandboxes,
        sandbox_store,
        context.clone(),
        concurrency,
        stop.clone(),
        sandbox::reconcile,
    );
    let sessions = controller(
        "SandboxSession",
        sessions,
        session_store,
        context,
        concurrency.min(8),
        stop,
        session::reconcile,
    );
    tokio::join!(sandboxes, sessions);
}

async fn controller<K, F>(
    kind: &'static str,
    triggers: mpsc::UnboundedReceiver<ObjectRef<K>>,
    store: Store<K>,
    context: Arc<Context>,
    concurrency: u16,
    stop: CancellationToken,
    reconcile: fn(Arc<K>, Arc<Context>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Next, Error>> + Send + 'static,
{
    let depth = (kind == "Sandbox").then(|| context.metrics.queue_depth.clone());
    let queue = futures::stream::unfold(triggers, |mut t| async { t.recv().await.map(|r| (r, t)) });
    let queue = Box::pin(queue.take_until(stop.cancelled_owned()).map(move |reference| {
        if let Some(depth) = &depth {
            depth.dec();
        }
        Ok::<_, std::convert::Infallible>(ReconcileRequest::from(reference))
    }));
    let contained = move |object: Arc<K>, context: Arc<Context>| {
        let run = async move {
            let began = Instant::now();
            let uid = object.uid().unwrap_or_default();
            context.metrics.in_flight.inc();
            // kube re-raises a panic, which would end the controller for all objects.
            let result = match AssertUnwindSafe(reconcile(object, context.clone())).catch_unwind().await {
                Ok(result) => result,
                Err(panic) => Err(Error::Panic(panic_text(panic.as_ref()))),
            };
            context.metrics.in_flight.dec();
            context
                .metrics
                .reconciled(kind, began.elapsed(), result.as_ref().err().map(Error::reason));
            if result.is_ok() {
                context.memory.note(&uid, |n| n.failures = 0);
            }
            result
        };
        run.boxed()
    };
    let failed = |object: Arc<K>, error: &Error, context: Arc<Context>| {
        let pause = context.memory.back_off(&object.uid().unwrap_or_default());
        tracing::warn!(
            kind,
            object = object.name_any(),
            namespace = object.namespace(),
            error = crate::telemetry::chain(error),
            ?pause,
            "reconcile failed"
        );
        Next::requeue(pause)
    };
    let config = ControllerConfig::default().concurrency(concurrency);
    applier(contained, failed, context, store, queue, config)
        .for_each(|_| futures::future::ready(()))
        .await;
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".into())
}
