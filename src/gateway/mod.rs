//! The gateway: `coreweave.sandbox.v1`, so that the public SDK runs on this cluster. It keeps nothing: the Kubernetes API is its only
//! store, and any replica serves any call.

mod answer_body;
pub mod audit;
pub mod auth;
pub mod caches;
pub mod cluster;
pub mod config;
mod convert;
mod create;
mod credentials;
pub mod data;
pub mod discovery;
pub mod error;
pub mod identity;
pub mod limits;
pub mod manage;
pub mod methods;
pub mod metrics;
mod public;
mod request_body;
pub mod runners;
pub mod server;
pub mod service;
pub mod state;
pub mod volumes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use self::config::Config;
use self::state::Gateway;
use crate::agent_client::{AgentClient, KeyError, KeyRing};
use crate::net::{self, tls};
use crate::process;

/// Time after SIGTERM in which new connections are still taken: so long may it take until nobody is sent here any more.
const NEWS: Duration = Duration::from_secs(2);
/// Longest time from SIGTERM to the end of the process.
const DRAIN: Duration = Duration::from_secs(25);
/// Between two times of dropping what is kept of callers that have been quiet.
const TIDY: Duration = Duration::from_secs(60);

/// How the gateway is started.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address of the gRPC services without TLS.
    #[arg(long, default_value = "[::]:8080")]
    address: SocketAddr,
    /// Address of the gRPC services with TLS, where the configuration names a certificate.
    #[arg(long, default_value = "[::]:8443")]
    tls_address: SocketAddr,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, default_value = "0.0.0.0:8081")]
    admin_address: SocketAddr,
    /// Logs as JSON. The access log on stdout always is.
    #[arg(long)]
    log_json: bool,
}

/// Why the gateway ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be read.
    #[error("configuration")]
    Config(#[from] process::ConfigError),
    /// A value of the configuration cannot be used.
    #[error("configuration")]
    Bounds(#[from] config::OutOfBounds),
    /// The certificate cannot be used.
    #[error("tls")]
    Tls(#[from] tls::TlsError),
    /// The agents' keys cannot be used.
    #[error("keys of the agents")]
    Keys(#[from] KeyError),
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] crate::kube::ConnectError),
    /// A port or the runtime cannot be used.
    #[error("start")]
    Start(#[from] std::io::Error),
    /// The gRPC server failed.
    #[error("gRPC server")]
    Server(#[from] tonic::transport::Error),
    /// A task that must not end has ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until SIGTERM, or until something that must not end has ended.
///
/// # Errors
/// Says why it ended otherwise.
pub fn run(options: Options) -> Result<(), Failure> {
    crate::telemetry::init(options.log_json);
    let config: Config = options.config.as_deref().map(process::read_config).transpose()?.unwrap_or_default();
    config.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options, config));
    // Not a moment more for what is on its own by now.
    runtime.shutdown_background();
    result
}

async fn serve(options: Options, config: Config) -> Result<(), Failure> {
    let client = crate::kube::connect().await?;
    let metrics = metrics::Metrics::default();
    let caches = caches::Caches::new(&config.watch_namespaces);
    let cluster = cluster::api_client(client, &metrics);
    let agents = AgentClient::new(KeyRing::from_directory(&config.agents.keys)?);
    let gateway = Arc::new(Gateway::new(cluster.clone(), caches.clone(), agents, config));
    let limits = Arc::new(limits::Limits::new(&gateway.config.limits));
    let health = server::Health::new().await;
    let entrance = auth::Entrance {
        gateway: gateway.clone(),
        limits: limits.clone(),
        metrics: metrics.clone(),
        sink: audit::stdout(),
    };

    let stop = CancellationToken::new();
    let leaving = Arc::new(AtomicBool::new(false));
    let connections = ports(&options, &gateway.config, &metrics, &stop).await?;
    let served = server::serve(entrance, server::routes(&gateway, &health), connections, stop.clone());
    let admin = {
        let (ready, runners, leaving) = (caches.clone(), gateway.runners.clone(), leaving.clone());
        let waits_for = move || match () {
            () if leaving.load(Ordering::Acquire) => Some("this replica is about to end"),
            () if !ready.is_ready() => Some("waiting for the first list of sandboxes; are the CustomResourceDefinitions there?"),
            () if !runners.is_ready() => Some("waiting for the first list of nodes"),
            () => None,
        };
        let (cached, metrics) = (caches.clone(), metrics.clone());
        process::admin(options.admin_address, waits_for, move || metrics.text(cached.len()))
    };
    let watching = {
        let (caches, runners) = (caches.clone(), gateway.runners.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = caches.run(&cluster) => {}
                () = runners.run(&cluster) => {}
            }
        })
    };
    let tidying = async {
        loop {
            tokio::time::sleep(TIDY).await;
            limits.tidy();
            gateway.identity.tidy();
        }
    };
    let leave = async {
        caches.ready().await;
        gateway.runners.ready().await;
        health.set(true).await;
        tracing::info!("serving");
        std::future::pending::<()>().await;
    };
    let stopping = async {
        tokio::select! {
            () = process::terminated() => {}
            () = leave => {}
        }
        tracing::info!("stopping");
        leaving.store(true, Ordering::Release);
        health.set(false).await;
        drain(&gateway, health.clone(), &stop).await;
    };
    let background = async {
        tokio::select! {
            result = admin => result.map_err(Failure::from).and(Err(Failure::Ended("the admin server"))),
            _ = watching => Err(Failure::Ended("the watch")),
            () = tidying => Ok(()),
        }
    };
    // What listens, watches and tidies goes on while the last calls end.
    let (served, stopping, background) = (tokio::spawn(served), std::pin::pin!(stopping), std::pin::pin!(background));
    tokio::select! {
        ended = served => match ended {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::Ended("the gRPC server")),
        },
        () = stopping => Ok(()),
        failure = background => failure,
    }
}

/// Opens the ports. Their connections come out of one channel.
async fn ports(
    options: &Options,
    config: &Config,
    metrics: &metrics::Metrics,
    stop: &CancellationToken,
) -> Result<mpsc::Receiver<std::io::Result<server::Connection>>, Failure> {
    let (send, connections) = mpsc::channel(64);
    let places = Arc::new(Semaphore::new(config.limits.connections as usize));
    let open = async |address, acceptor| {
        let listener = net::listen(address)?;
        let accepting = server::accept(listener, acceptor, places.clone(), metrics.clone(), send.clone(), stop.clone());
        tokio::spawn(accepting);
        Ok::<(), Failure>(())
    };
    // Callers send tokens: not in clear where there is another way.
    let Some(files) = &config.tls else {
        open(options.address, None).await?;
        return Ok(connections);
    };
    let certificate = Arc::new(tls::Certificate::from_files(&files.certificate, &files.key)?);
    open(options.tls_address, Some(tls::acceptor(certificate.clone())?)).await?;
    tokio::spawn(async move { certificate.reload_periodically().await });
    Ok(connections)
}

/// From SIGTERM to the end: first nobody is sent here any more, then nobody is taken, then long streams are sent to another replica.
/// The calls under way end by themselves, which ends the server; this ends when they have not.
async fn drain(gateway: &Gateway, health: server::Health, stop: &CancellationToken) {
    tokio::time::sleep(NEWS).await;
    stop.cancel();
    let pause = Duration::from_secs(gateway.config.drain_seconds);
    tokio::time::sleep(pause.saturating_sub(NEWS)).await;
    gateway.draining.cancel();
    health.end().await;
    tokio::time::sleep(DRAIN.saturating_sub(pause.max(NEWS))).await;
    tracing::warn!("calls under way are cut off");
}
