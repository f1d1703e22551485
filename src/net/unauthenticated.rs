//! Limits for connections that have not carried an authenticated call yet: their number and their time are bounded, so
//! that they cannot take all connections of a server.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

use super::keyed_limit::{KeyedLimit, KeyedSlot};

/// Whether a connection has carried an authenticated call, and the owner for whom it counts since then.
#[derive(Clone, Debug, Default)]
pub(super) struct Authenticated(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_set: AtomicBool,
    owner: Mutex<Option<KeyedSlot<String>>>,
}

impl Authenticated {
    pub(super) fn set(&self) {
        self.0.is_set.store(true, Ordering::Release);
    }

    /// Marks the connection, unless `owner` has `max` connections already. It counts for its first owner.
    pub(super) fn set_for(&self, owner: &str, limit: &KeyedLimit<String>, max: usize) -> bool {
        if self.is_set() {
            return true;
        }
        let mut slot = self.0.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none() {
            *slot = limit.acquire(owner.to_owned(), max);
        }
        if slot.is_some() {
            self.set();
        }
        slot.is_some()
    }

    fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::Acquire)
    }
}

/// The time that a connection has for its first authenticated call.
pub struct UnauthenticatedConn {
    authenticated: Authenticated,
    /// None once it has passed.
    deadline: Option<Pin<Box<Sleep>>>,
    slot: Option<KeyedSlot<IpAddr>>,
}

impl UnauthenticatedConn {
    /// The time starts now. `slot` is released with the first authenticated call.
    pub fn new(timeout: Duration, slot: Option<KeyedSlot<IpAddr>>) -> UnauthenticatedConn {
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
    async fn an_authenticated_connection_counts_for_its_owner_instead_of_its_network() {
        let (networks, owners) = (KeyedLimit::default(), KeyedLimit::default());
        let address = IpAddr::from([10, 0, 0, 1]);
        let mut conn = UnauthenticatedConn::new(TIMEOUT, networks.acquire(address, 1));
        assert!(networks.acquire(address, 1).is_none());
        assert!(conn.authenticated().set_for("team-a", &owners, 1));
        assert!(
            conn.authenticated().set_for("team-b", &owners, 0),
            "the first owner counts"
        );
        assert!(check(&mut conn).is_ok());
        assert!(networks.acquire(address, 1).is_some());
        let other = UnauthenticatedConn::new(TIMEOUT, None);
        assert!(!other.authenticated().set_for("team-a", &owners, 1));
        drop(conn);
        assert!(other.authenticated().set_for("team-a", &owners, 1));
    }
}
