//! The operator: reconciles Sandbox and SandboxSession resources into pods.

mod admin;
mod agent_keys;
mod apply;
mod config;
mod discovery;
mod enforcement;
mod error;
mod events;
mod kinds;
mod lease;
mod metrics;
mod node_addresses;
mod runtime;
mod sandbox;
mod session;
mod verify_network;

use futures::future::{Either, join_all, select};
use kube::runtime::reflector::Store;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use self::agent_keys::Keyring;
use self::config::Config;
use self::enforcement::Checker;
use self::events::Events;
use self::kinds::{Shared, kinds};
use self::lease::Elector;
use self::metrics::Metrics;
use self::node_addresses::NodeAddresses;
use self::runtime::{Cache, Controllers};
use self::sandbox::CachedPod;
pub use self::verify_network::{VerifyNetworkOptions, verify_network};
use crate::agent_client::AgentClient;
use crate::kube::ApiClient;
use crate::process;

/// Reconciles of sandboxes at once, if the configuration does not set it. Each uses about one connection to the API
/// server.
const CONCURRENCY: u16 = 64;

/// How long a leader may finish reconciles after SIGTERM, within its pod's grace period.
const DRAIN: Duration = Duration::from_secs(20);

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
    /// Name of the ConfigMap that shows whether the cluster enforces NetworkPolicy.
    #[arg(long, default_value = "sandbox-operator-network")]
    network_config_map: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// Logs as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Why the operator exits.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is invalid.
    #[error("configuration")]
    Config(#[from] process::ConfigError),
    /// Sandboxes could reach the API server.
    #[error(transparent)]
    Unprotected(#[from] discovery::Unprotected),
    /// No client for the API server can be built.
    #[error(transparent)]
    Client(#[from] crate::kube::ConnectError),
    /// The admin server or the runtime cannot start.
    #[error("start")]
    Start(#[from] std::io::Error),
    /// A task that must not end has ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until SIGTERM, or until a task that must not end has ended.
pub fn run(options: Options) -> Result<(), RunError> {
    crate::telemetry::init(options.log_json);
    let config: Config = process::read_config(options.config.as_deref())?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(options, config))
}

async fn serve(options: Options, config: Config) -> Result<(), RunError> {
    let metrics = Metrics::default();
    let client = ApiClient::new(crate::kube::connect().await?, metrics.api.clone());
    let caches = Arc::new(OnceLock::new());
    // First of all: a probe must not restart a replica that waits for the API server.
    let admin = tokio::spawn(admin::serve(options.admin_address, caches.clone(), metrics.clone()));
    let (stop, leads) = (CancellationToken::new(), AtomicBool::new(false));
    let replica = replicate(&options, config, client, metrics, &caches, &stop, &leads);
    let stopping = async {
        process::terminated().await;
        tracing::info!("stopping");
        stop.cancel();
        // A standby has nothing to finish.
        if leads.load(Ordering::Acquire) {
            tokio::time::sleep(DRAIN).await;
        }
    };
    tokio::select! {
        result = Box::pin(replica) => result,
        ended = admin => Err(match ended {
            Ok(Err(error)) => RunError::Start(error),
            Ok(Ok(())) | Err(_) => RunError::Ended("the admin server"),
        }),
        () = stopping => Ok(()),
    }
}

/// Watches, and reconciles while it leads, until `stop`.
async fn replicate(
    options: &Options,
    config: Config,
    client: ApiClient,
    metrics: Metrics,
    caches: &OnceLock<Vec<Cache>>,
    stop: &CancellationToken,
    leads: &AtomicBool,
) -> Result<(), RunError> {
    let discovered = discovery::addresses(&client, &config.sandboxes.network).await?;
    let agent_delivery = discovery::agent_delivery(&client, &config.sandboxes).await;
    tracing::info!(?agent_delivery, never = ?config.sandboxes.network.never, api_server = ?discovered.api_server, "starting");
    let nodes = NodeAddresses::new(config.sandboxes.network.clone(), discovered);
    let (lists, complete) = (nodes.lists(), nodes.complete());
    let mut nodes = tokio::spawn(nodes.run(client.clone()));
    tokio::select! {
        () = complete.cancelled() => {}
        () = stop.cancelled() => return Ok(()),
        _ = &mut nodes => return Err(RunError::Ended("the watch of the nodes")),
    }
    let keyring = Keyring::new(client.clone(), &options.namespace, &options.agent_keys_secret);
    let events = Events::start(client.clone(), metrics.clone(), &options.identity);
    let checker = Checker::new(
        client.clone(),
        config.probe_settings(),
        config.sandboxes.network.enforcement,
        events.clone(),
        metrics.clone(),
        (&options.namespace, &options.network_config_map),
    );
    let shared = Shared {
        client: client.clone(),
        events,
        network: checker.status(),
        metrics: metrics.clone(),
        lists,
        settings: config.sandboxes,
        agent_delivery,
        agent_key: keyring.newest(),
        agents: AgentClient::new(keyring.private()),
        keys: keyring.private(),
        concurrency: config.concurrency.unwrap_or(CONCURRENCY),
    };
    let namespaces: Vec<Option<String>> = match config.watch_namespaces.is_empty() {
        true => vec![None],
        false => config.watch_namespaces.into_iter().map(Some).collect(),
    };
    let (mut watches, mut cached, mut controllers, mut pods) = (vec![], vec![], vec![], vec![]);
    for namespace in namespaces {
        let (runtime, pods_of_scope) = kinds(namespace, &shared);
        let (watch, cache, control) = runtime.into_parts();
        watches.extend(watch);
        cached.extend(cache);
        controllers.push(control);
        pods.push(pods_of_scope);
    }
    let cached = caches.get_or_init(|| cached);
    let replica = Replica {
        elector: Elector::new(client, &options.namespace, &options.lease_name, &options.identity),
        keyring,
        checker,
        caches: cached,
        controllers,
        pods,
        metrics,
        stop,
        leads,
    };
    let watching = tokio::spawn(futures::future::select_all(watches));
    tokio::select! {
        result = replica.run() => result,
        _ = watching => Err(RunError::Ended("a watch")),
        _ = nodes => Err(RunError::Ended("the watch of the nodes")),
    }
}

/// A replica, which leads at times.
struct Replica<'a> {
    elector: Elector,
    keyring: Keyring,
    checker: Checker,
    caches: &'a [Cache],
    controllers: Vec<Controllers>,
    pods: Vec<Store<CachedPod>>,
    metrics: Metrics,
    stop: &'a CancellationToken,
    leads: &'a AtomicBool,
}

impl Replica<'_> {
    /// A leader that loses its lease steps down and becomes a candidate again. It does not exit: that would count into
    /// the restart backoff of its container, and the caches of the next leader would have to be filled anew.
    async fn run(&self) -> Result<(), RunError> {
        loop {
            tokio::select! {
                () = self.elector.acquire() => {}
                () = self.stop.cancelled() => return Ok(()),
            }
            self.leads.store(true, Ordering::Release);
            // Dropping the term ends all reconciles at once.
            let lost = tokio::select! {
                lost = self.elector.hold() => Some(lost),
                () = self.term() => None,
            };
            self.metrics.lease_held.set(0);
            let Some(lost) = lost else {
                self.elector.release().await;
                return match self.stop.is_cancelled() {
                    true => Ok(()),
                    false => Err(RunError::Ended("a controller")),
                };
            };
            self.leads.store(false, Ordering::Release);
            tracing::warn!(?lost, "lost the lease; standing by");
        }
    }

    /// One term as leader: until `stop`, or until the lease is lost.
    async fn term(&self) {
        runtime::ready(self.caches).await;
        // Before the first pod: without a key nobody could call its agent.
        self.keyring.refresh(&self.pods).await;
        tracing::info!("leading");
        self.metrics.lease_held.set(1);
        let controllers = pin!(join_all(self.controllers.iter().map(|c| c.run(self.stop))));
        let checks = pin!(self.checker.run(self.stop));
        let work = async {
            match select(controllers, checks).await {
                // A running check deletes its pods first.
                Either::Left((_, checks)) if self.stop.is_cancelled() => checks.await,
                // It ended although nothing stopped it.
                Either::Left(_) => {}
                Either::Right(((), controllers)) => drop(controllers.await),
            }
        };
        tokio::select! {
            () = self.keyring.refresh_hourly(&self.pods) => {}
            () = work => {}
        }
    }
}
