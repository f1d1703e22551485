//! The gateway serves `coreweave.sandbox.v1`, so that the public SDK works on this cluster. It has no state of its own:
//! the Kubernetes API is its only store, and any replica can serve any call.
//!
//! Rooms, each of which uses only those before it: `convert`, `cluster`, `edge`, `sandboxes`, `dataplane`, `rpc`.

pub mod cluster;
pub mod config;
mod convert;
mod dataplane;
pub mod edge;
pub mod error;
pub mod metrics;
pub mod rpc;
mod sandboxes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::cluster::api::api_client;
use self::cluster::runners::Runners;
use self::cluster::sandbox_cache::SandboxCache;
use self::config::Config;
use self::edge::auth::AuthLayer;
use self::edge::connection::{self, AUTHENTICATION_TIMEOUT, Connection, ConnectionSlots};
use self::edge::identity::Identity;
use self::edge::limits::Limits;
use self::edge::{access_log, server};
use self::metrics::Metrics;
use self::rpc::health::Health;
use self::rpc::routes::routes;
use self::rpc::services::{Services, Shared};
use crate::agent_client::{AgentClient, KeyError, KeyRing};
use crate::net::{self, tls};
use crate::process;

/// Time after SIGTERM in which new connections are still accepted, until load balancers have removed this replica.
const ENDPOINT_REMOVAL: Duration = Duration::from_secs(2);
/// Longest time from SIGTERM to the end of the process.
const MAX_DRAIN: Duration = Duration::from_secs(25);
/// Interval at which the state of idle callers is dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Options of the gateway.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address of the gRPC services without TLS.
    #[arg(long, default_value = "[::]:8080")]
    address: SocketAddr,
    /// Address of the gRPC services with TLS, used if the configuration names a certificate.
    #[arg(long, default_value = "[::]:8443")]
    tls_address: SocketAddr,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8081")]
    admin_address: SocketAddr,
    /// Write logs as JSON. The access log on stdout is always JSON.
    #[arg(long)]
    log_json: bool,
}

/// Why the gateway stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration file cannot be read.
    #[error("configuration")]
    Config(#[from] process::ConfigError),
    /// A value of the configuration is invalid.
    #[error("configuration")]
    Bounds(#[from] config::OutOfBounds),
    /// The certificate cannot be used.
    #[error("TLS")]
    Tls(#[from] tls::TlsError),
    /// The agents' keys cannot be used.
    #[error("agent keys")]
    Keys(#[from] KeyError),
    /// No API server is configured.
    #[error(transparent)]
    Client(#[from] crate::kube::ConnectError),
    /// A port or the runtime cannot be used.
    #[error("startup")]
    Start(#[from] std::io::Error),
    /// The gRPC server failed.
    #[error("gRPC server")]
    Server(#[from] tonic::transport::Error),
    /// A task ended that should run as long as the process.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until SIGTERM or a failure.
///
/// # Errors
/// The failure.
pub fn run(options: Options) -> Result<(), Failure> {
    crate::telemetry::init(options.log_json);
    let config: Config = process::read_config(options.config.as_deref())?;
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options, Arc::new(config)));
    // Does not wait for detached tasks.
    runtime.shutdown_background();
    result
}

async fn serve(options: Options, config: Arc<Config>) -> Result<(), Failure> {
    let metrics = Metrics::default();
    let api = api_client(crate::kube::connect().await?, &metrics);
    let cache = SandboxCache::new(&config.watch_namespaces);
    let runners = Runners::new(&config);
    let identity = Arc::new(Identity::new(api.clone(), &config));
    let limits = Arc::new(Limits::new(&config.limits));
    let draining = CancellationToken::new();
    let services = Services::new(Shared {
        api: api.clone(),
        cache: cache.clone(),
        runners: runners.clone(),
        identity: identity.clone(),
        agents: AgentClient::new(KeyRing::from_directory(&config.agents.keys)?),
        config: config.clone(),
        draining: draining.clone(),
    });
    let health = Health::new().await;
    let layer = AuthLayer {
        identity: identity.clone(),
        limits: limits.clone(),
        metrics: metrics.clone(),
        sink: access_log::stdout(),
    };

    let stop = CancellationToken::new();
    let stopping = Arc::new(AtomicBool::new(false));
    let connections = listen(&options, &config, &metrics, &stop).await?;
    let server = server::serve(layer, routes(services, &health), connections, stop.clone());
    let admin = {
        let (watched, nodes, stopping) = (cache.clone(), runners.clone(), stopping.clone());
        let not_ready_reason = move || match () {
            () if stopping.load(Ordering::Acquire) => Some("this replica is stopping"),
            () if !watched.is_ready() => {
                Some("waiting for the first list of sandboxes; are the CustomResourceDefinitions installed?")
            }
            () if !nodes.is_ready() => Some("waiting for the first list of nodes"),
            () => None,
        };
        let (watched, metrics) = (cache.clone(), metrics.clone());
        process::admin(options.admin_address, not_ready_reason, move || {
            metrics.text(watched.len())
        })
    };
    let watches = {
        let (cache, runners) = (cache.clone(), runners.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = cache.run(&api) => {}
                () = runners.run(&api) => {}
            }
        })
    };
    let prune = async {
        loop {
            tokio::time::sleep(PRUNE_INTERVAL).await;
            limits.prune();
            identity.prune();
        }
    };
    let set_serving = async {
        cache.ready().await;
        runners.ready().await;
        health.set_serving(true).await;
        tracing::info!("serving");
        std::future::pending::<()>().await;
    };
    let terminate = async {
        tokio::select! {
            () = process::terminated() => {}
            () = set_serving => {}
        }
        tracing::info!("stopping");
        stopping.store(true, Ordering::Release);
        health.set_serving(false).await;
        drain(
            Duration::from_secs(config.drain_seconds),
            &draining,
            health.clone(),
            &stop,
        )
        .await;
    };
    let background = async {
        tokio::select! {
            result = admin => result.map_err(Failure::from).and(Err(Failure::Ended("the admin server"))),
            _ = watches => Err(Failure::Ended("the watch")),
            () = prune => Ok(()),
        }
    };
    // The background tasks run until the last call has ended.
    let (server, terminate, background) = (
        tokio::spawn(server),
        std::pin::pin!(terminate),
        std::pin::pin!(background),
    );
    tokio::select! {
        ended = server => match ended {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::Ended("the gRPC server")),
        },
        () = terminate => Ok(()),
        failure = background => failure,
    }
}

/// Opens the ports. Returns the channel of their connections.
async fn listen(
    options: &Options,
    config: &Config,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<mpsc::Receiver<std::io::Result<Connection>>, Failure> {
    let (send, connections) = mpsc::channel(64);
    let slots = ConnectionSlots::new(&config.limits, AUTHENTICATION_TIMEOUT);
    let open = async |address, acceptor| {
        let listener = net::listen(address)?;
        let accept = connection::accept(
            listener,
            acceptor,
            slots.clone(),
            metrics.clone(),
            send.clone(),
            stop.clone(),
        );
        tokio::spawn(accept);
        Ok::<(), Failure>(())
    };
    // Requests contain tokens. With TLS, there is no port without it.
    let Some(files) = &config.tls else {
        open(options.address, None).await?;
        return Ok(connections);
    };
    let certificate = Arc::new(tls::Certificate::from_files(&files.certificate, &files.key)?);
    open(options.tls_address, Some(tls::acceptor(certificate.clone())?)).await?;
    tokio::spawn(async move { certificate.reload_periodically().await });
    Ok(connections)
}

/// Shuts down in three steps: stops accepting connections, ends long streams so that clients resume them at another
/// replica, and cuts off the calls that have not ended. The server ends earlier if all calls do.
async fn drain(drain: Duration, draining: &CancellationToken, health: Health, stop: &CancellationToken) {
    tokio::time::sleep(ENDPOINT_REMOVAL).await;
    stop.cancel();
    tokio::time::sleep(drain.saturating_sub(ENDPOINT_REMOVAL)).await;
    draining.cancel();
    health.end_watches().await;
    tokio::time::sleep(MAX_DRAIN.saturating_sub(drain.max(ENDPOINT_REMOVAL))).await;
    tracing::warn!("cutting off calls that are still in flight");
}
