//! Limits for connections that have not carried an authenticated call yet: their number and their time are bounded, so
//! that they cannot take all connections of a server.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// Whether a connection has carried an authenticated call.
#[derive(Clone, Debug, Default)]
pub(super) struct Authenticated(Arc<AtomicBool>);

impl Authenticated {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time that a connection has for its first authenticated call.
pub struct UnauthenticatedConn {
    authenticated: Authenticated,
    /// None once it has passed.
    deadline: Option<Pin<Box<Sleep>>>,
    slot: Option<UnauthenticatedSlot>,
}

impl UnauthenticatedConn {
    /// The time starts now. `slot` is released with the first authenticated call.
    pub fn new(timeout: Duration, slot: Option<UnauthenticatedSlot>) -> UnauthenticatedConn {
        UnauthenticatedConn {
            authenticated: Authenticated::default(),
            deadline: Some(Box::pin(tokio::time::sleep(timeout))),
            slot,
        }
    }

    pub(super) fn authenticated(&self) -> Authenticated {
        self.authenticated.clone()
    }

    /// Must be called before each read. Wakes the reader when the time is up.
    pub(super) fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(deadline) = &mut self.deadline else {
            return Ok(());
        };
        if self.slot.is_some() && self.authenticated.is_set() {
            self.slot = None;
        }
        if deadline.as_mut().poll(cx) == Poll::Pending {
            return Ok(());
        }
        self.deadline = None;
        if self.authenticated.is_set() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no authenticated call arrived on this connection in time",
        ))
    }
}

/// Counts the unauthenticated connections of each address.
#[derive(Clone, Default)]
pub struct UnauthenticatedLimit(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl UnauthenticatedLimit {
    /// Counts one more connection from `address`, unless there are `max` already.
    pub fn acquire(&self, address: IpAddr, max: usize) -> Option<UnauthenticatedSlot> {
        let network = network(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(UnauthenticatedSlot {
            limit: self.clone(),
            network,
        })
    }
}

/// One counted connection, until this is dropped.
pub struct UnauthenticatedSlot {
    limit: UnauthenticatedLimit,
    network: IpAddr,
}

impl Drop for UnauthenticatedSlot {
    fn drop(&mut self) {
        let mut counts = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// The address, or its /64 prefix for IPv6: a client that has one address there has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn check(conn: &mut UnauthenticatedConn) -> io::Result<()> {
        conn.check(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_authenticated_connection_outlives_the_deadline() {
        for authenticated in [true, false] {
            let mut conn = UnauthenticatedConn::new(TIMEOUT, None);
            assert!(check(&mut conn).is_ok());
            if authenticated {
                conn.authenticated().set();
            }
            tokio::time::advance(TIMEOUT).await;
            let checked = check(&mut conn).map_err(|error| error.kind());
            assert_eq!(
                checked,
                if authenticated {
                    Ok(())
                } else {
                    Err(io::ErrorKind::TimedOut)
                }
            );
        }
    }

    #[tokio::test]
    async fn one_address_cannot_take_the_connections_of_others() {
        let limit = UnauthenticatedLimit::default();
        let acquire = |address: &str| limit.acquire(address.parse().unwrap(), 2);
        let (one, two) = (acquire("10.0.0.1"), acquire("::ffff:10.0.0.1"));
        assert!(acquire("10.0.0.1").is_none() && acquire("10.0.0.2").is_some());
        let six = (acquire("2001:db8::1"), acquire("2001:db8::2"));
        assert!(acquire("2001:db8::3").is_none() && acquire("2001:db8:0:1::3").is_some());
        let mut conn = UnauthenticatedConn::new(TIMEOUT, one);
        conn.authenticated().set();
        assert!(check(&mut conn).is_ok());
        assert!(
            acquire("10.0.0.1").is_some(),
            "an authenticated connection is not counted"
        );
        drop((two, six, conn));
        assert!(limit.0.lock().unwrap().is_empty());
    }
}
