//! Accepted connections. Each counts against the limits of the replica and of its source address, and is closed if no
//! call on it is authorized in time.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::gateway::config;
use crate::gateway::metrics::Metrics;
use crate::net::tls::MaybeTls;
use crate::net::{self, KeyedLimit, KeyedSlot, UnauthenticatedConn, source_network};

/// Time within which a call on a new connection must be authorized.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Once half of all slots are in use, one address may have this fraction of the free ones (1/64) for connections
/// without an authorized call, so that it takes hundreds of addresses to use most of them.
const UNAUTHENTICATED_FRACTION: usize = 64;

/// Slots for open connections.
#[derive(Clone)]
pub struct ConnectionSlots {
    all: Arc<Semaphore>,
    max: usize,
    by_source: KeyedLimit<IpAddr>,
    max_by_source: usize,
    unauthenticated: KeyedLimit<IpAddr>,
    authentication_timeout: Duration,
}

impl ConnectionSlots {
    /// Free slots.
    pub fn new(limits: &config::Limits, authentication_timeout: Duration) -> ConnectionSlots {
        ConnectionSlots {
            all: Arc::new(Semaphore::new(limits.connections as usize)),
            max: limits.connections as usize,
            by_source: KeyedLimit::default(),
            max_by_source: limits.connections_per_address as usize,
            unauthenticated: KeyedLimit::default(),
            authentication_timeout,
        }
    }

    /// Counts a connection from `source` that took one of all slots; `None` if the source has too many.
    fn count(&self, source: IpAddr) -> Option<(KeyedSlot<IpAddr>, KeyedSlot<IpAddr>)> {
        let max_unauthenticated = max_unauthenticated(self.max, self.all.available_permits());
        let unauthenticated = self.unauthenticated.acquire(source, max_unauthenticated)?;
        Some((unauthenticated, self.by_source.acquire(source, self.max_by_source)?))
    }
}

/// Maximum number of connections of one address without an authorized call. Behind a proxy all clients have the same
/// address, so there is no limit while most slots are free.
fn max_unauthenticated(all: usize, free: usize) -> usize {
    if free >= all / 2 {
        usize::MAX
    } else {
        (free / UNAUTHENTICATED_FRACTION).max(1)
    }
}

/// Accepts connections until `stop`, and sends those that are ready for HTTP/2.
pub async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    slots: ConnectionSlots,
    metrics: Metrics,
    connections: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let warn = |error: &io::Error| tracing::warn!(%error, "a connection could not be accepted");
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = net::accept(&listener, &slots.all, warn) => accepted,
        };
        let Some((stream, peer, slot)) = accepted else {
            return;
        };
        let Some((unauthenticated, from_source)) = slots.count(source_network(peer.ip())) else {
            metrics.connections_refused.inc();
            continue;
        };
        let deadline = UnauthenticatedConn::new(slots.authentication_timeout, Some(unauthenticated));
        let open = Open::new(&metrics, slot, from_source);
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

/// Counts an open connection, and holds its slots.
pub struct Open {
    metrics: Metrics,
    _slot: OwnedSemaphorePermit,
    _from_source: KeyedSlot<IpAddr>,
}

impl Open {
    fn new(metrics: &Metrics, slot: OwnedSemaphorePermit, from_source: KeyedSlot<IpAddr>) -> Open {
        metrics.connections.inc();
        Open {
            metrics: metrics.clone(),
            _slot: slot,
            _from_source: from_source,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn slots(connections: u32, connections_per_address: u32) -> ConnectionSlots {
        ConnectionSlots::new(
            &config::Limits {
                connections,
                connections_per_address,
                ..config::Limits::default()
            },
            AUTHENTICATION_TIMEOUT,
        )
    }

    #[test]
    fn unauthenticated_connections_from_many_addresses_leave_free_slots() {
        let slots = slots(4096, 4096);
        let mut held = vec![];
        for address in 0..100_u8 {
            while let Ok(slot) = slots.all.clone().try_acquire_owned() {
                let Some(counted) = slots.count(IpAddr::from([10, 0, 0, address])) else {
                    break;
                };
                held.push((slot, counted));
            }
        }
        assert!(slots.all.available_permits() > 100, "{}", slots.all.available_permits());
        let _slot = slots.all.clone().try_acquire_owned().unwrap();
        assert!(slots.count(IpAddr::from([10, 0, 1, 1])).is_some());
    }

    #[test]
    fn one_address_has_its_share_of_all_connections() {
        let slots = slots(100, 3);
        let source = IpAddr::from([10, 0, 0, 1]);
        // An authorized call drops the first slot.
        let authenticated: Vec<_> = (0..3).map(|_| slots.count(source).unwrap().1).collect();
        assert!(slots.count(source).is_none());
        assert!(slots.count(IpAddr::from([10, 0, 0, 2])).is_some());
        drop(authenticated);
        assert!(slots.count(source).is_some());
    }
}
