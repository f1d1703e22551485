//! Accepted connections. Each counts against the replica's limit, and is closed if no caller authenticates on it in
//! time.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::gateway::metrics::Metrics;
use crate::net::tls::MaybeTls;
use crate::net::{self, UnauthenticatedConn, UnauthenticatedLimit};

/// Time in which a caller must authenticate on a new connection.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Unauthenticated connections per address, once half of all connections are in use.
const MAX_UNAUTHENTICATED: usize = 256;

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
                Ok(io) => drop(
                    connections
                        .send(Ok(net::Connection::new(io, peer, deadline, open)))
                        .await,
                ),
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
