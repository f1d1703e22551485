//! Ports, connections, and which services are behind them.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use super::auth::Entrance;
use super::discovery::Discovery;
use super::methods::{self, LARGEST};
use super::metrics::Metrics;
use super::service::Sandboxes;
use super::state::Gateway;
use super::volumes::Volumes;
use crate::net::tls::MaybeTls;
use crate::net::{self, UnauthenticatedConn, UnauthenticatedLimit};
use crate::proto::sandbox::discovery_service_server::DiscoveryServiceServer;
use crate::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneServiceServer;
use crate::proto::sandbox::sandbox_service_server::SandboxServiceServer;
use crate::proto::sandbox::volume_service_server::VolumeServiceServer;

/// Longest time of a connection without an authenticated call.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Most unauthenticated connections of one address, once half of all connections are in use.
const MAX_UNAUTHENTICATED: usize = 256;
/// Pings on every connection: long streams are quiet, and a peer that is gone must not hold its place.
const PING: Duration = Duration::from_secs(30);
/// Longest wait for the answer to a ping.
const PONG: Duration = Duration::from_secs(20);
/// A connection that is this old is asked to be made anew, so that callers spread over replicas that came later. Its calls go on.
const AGE: Duration = Duration::from_secs(30 * 60);
/// Calls at once on one connection.
const STREAMS: u32 = 256;
/// Bytes under way of one call and of one connection.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of headers: credentials are the most of them.
const HEADERS: u32 = 32 << 10;

/// Health, as `grpc.health.v1` tells it.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Not serving yet.
    pub async fn new() -> Health {
        let health = Health(HealthReporter::new());
        health.set(false).await;
        health
    }

    /// Tells whether this replica serves.
    pub async fn set(&self, serves: bool) {
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVED.iter().chain(&[""]) {
            self.0.set_service_status(service, status).await;
        }
    }

    /// Ends the calls that watch it.
    pub async fn end(mut self) {
        for service in SERVED.iter().chain(&[""]) {
            self.0.clear_service_status(service).await;
        }
    }
}

/// The services that are served. Health and reflection tell of these.
const SERVED: &[&str] = &[
    "coreweave.sandbox.v1.SandboxService",
    "coreweave.sandbox.v1.SandboxDataPlaneService",
    "coreweave.sandbox.v1.DiscoveryService",
    "coreweave.sandbox.v1.VolumeService",
];

/// All services. One more is one more line here, and its name in [`SERVED`].
pub fn routes(gateway: &Arc<Gateway>, health: &Health) -> Routes {
    let sandboxes = Sandboxes(gateway.clone());
    let mut routes = Routes::builder();
    // The first layer knows what each method takes; this is the most that any does.
    routes.add_service(SandboxServiceServer::new(sandboxes.clone()).max_decoding_message_size(LARGEST));
    routes.add_service(SandboxDataPlaneServiceServer::new(sandboxes).max_decoding_message_size(LARGEST));
    routes.add_service(DiscoveryServiceServer::new(Discovery(gateway.clone())));
    routes.add_service(VolumeServiceServer::new(Volumes(gateway.clone())));
    let health = HealthService::from_health_reporter(health.0.clone());
    routes.add_service(tonic_health::pb::health_server::HealthServer::new(health));
    reflect(&mut routes);
    routes.routes()
}

fn reflect(routes: &mut RoutesBuilder) {
    let builder = || tonic_reflection::server::Builder::configure().register_file_descriptor_set(methods::reflected(SERVED));
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes.add_service(v1).add_service(v1alpha);
        }
        // Descriptors of our own build that do not fit each other: a test would have said so.
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
    }
}

/// Serves until `stop`, and then until the calls under way have ended.
///
/// # Errors
/// The transport's.
pub async fn serve(
    entrance: Entrance,
    routes: Routes,
    connections: mpsc::Receiver<io::Result<Connection>>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .layer(entrance)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PONG))
        .max_connection_age(AGE)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .serve_with_incoming_shutdown(routes.prepare(), ReceiverStream::new(connections), stop.cancelled_owned())
        .await
}

/// Accepts connections until `stop`, and sends those that are ready for HTTP/2.
pub async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    slots: Arc<Semaphore>,
    metrics: Metrics,
    connections: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let (unauthenticated, few) = (UnauthenticatedLimit::default(), slots.available_permits() / 2);
    let warn = |error: &io::Error| tracing::warn!(%error, "a connection could not be accepted");
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = net::accept(&listener, &slots, warn) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else {
            return;
        };
        // Behind a proxy all clients have one address: the limit holds only when free slots become few.
        let most = if slots.available_permits() < few {
            MAX_UNAUTHENTICATED
        } else {
            usize::MAX
        };
        let Some(counted) = unauthenticated.acquire(peer.ip(), most) else {
            metrics.connections_refused.inc();
            continue;
        };
        let deadline = UnauthenticatedConn::new(AUTHENTICATION_TIMEOUT, Some(counted));
        let open = Open::new(&metrics, slot);
        let (tls, connections) = (tls.clone(), connections.clone());
        tokio::spawn(async move {
            match MaybeTls::accept(stream, tls.as_ref()).await {
                // Fails only when the server has ended.
                Ok(io) => drop(connections.send(Ok(net::Connection::new(io, peer, deadline, open))).await),
                Err(error) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            }
        });
    }
}

/// A connection that counts as open.
pub type Connection = net::Connection<MaybeTls, Open>;

/// Counts an open connection, and holds its slot.
pub struct Open {
    metrics: Metrics,
    _slot: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: &Metrics, slot: OwnedSemaphorePermit) -> Open {
        metrics.connections.inc();
        Open {
            metrics: metrics.clone(),
            _slot: slot,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}
