//! Ports, connections, and which services are behind them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, HealthService};

use super::auth::Entrance;
use super::discovery::Discovery;
use super::methods::{self, LARGEST};
use super::metrics::Metrics;
use super::service::Sandboxes;
use super::state::Gateway;
use super::volumes::Volumes;
use crate::proto::sandbox::discovery_service_server::DiscoveryServiceServer;
use crate::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneServiceServer;
use crate::proto::sandbox::sandbox_service_server::SandboxServiceServer;
use crate::proto::sandbox::volume_service_server::VolumeServiceServer;
use crate::stranger::{Known, Stranger, Strangers};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time of a connection without a caller that is known: places are for those who are let in.
const STRANGER: Duration = Duration::from_secs(10);
/// Most such connections of one address, once half of the places are taken.
const STRANGERS: usize = 256;
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

/// Listens on `address`; where there is no IPv6, "any address" is that of IPv4.
///
/// # Errors
/// The address cannot be used.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await,
        other => other,
    }
}

/// Takes connections and hands them on, until `stop`.
pub async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    metrics: Metrics,
    connections: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let (strangers, few) = (Strangers::default(), places.available_permits() / 2);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>((stream, peer, place))
        };
        let (stream, peer, place) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => match next {
                Ok(next) => next,
                Err(error) => {
                    // Out of file descriptors, for instance: what is open may end.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        // Behind a proxy all have one address: it counts only when places become few.
        let most = if places.available_permits() < few { STRANGERS } else { usize::MAX };
        let Some(stranger) = strangers.enter(peer.ip(), most) else {
            metrics.connections_refused.inc();
            continue;
        };
        let stranger = Stranger::new(STRANGER, Some(stranger));
        let open = Open::new(&metrics, place);
        let (tls, connections) = (tls.clone(), connections.clone());
        let hand_on = async move {
            let io: Io = match tls {
                None => Io::Plain(stream),
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => Io::Tls(Box::new(stream)),
                    Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake"),
                    Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
                },
            };
            // The server is gone only when all is.
            let _ = connections
                .send(Ok(Connection {
                    io,
                    peer,
                    stranger,
                    _open: open,
                }))
                .await;
        };
        tokio::spawn(hand_on);
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// To be told of a caller who was let in.
    pub known: Known,
}

/// A connection, with its place among all of them.
pub struct Connection {
    io: Io,
    peer: SocketAddr,
    stranger: Stranger,
    _open: Open,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct Open {
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn new(metrics: &Metrics, place: OwnedSemaphorePermit) -> Open {
        metrics.connections.inc();
        Open {
            metrics: metrics.clone(),
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer {
            address: self.peer,
            known: self.stranger.known(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stranger.check(cx)?;
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
