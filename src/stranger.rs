//! Connections on which nobody has shown yet that it may call: their time is short, since there are only so many places.

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

/// Where it is told that a caller was let in.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    /// A caller was let in: the connection may stay.
    pub fn welcome(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The time of a connection without a caller that was let in.
pub struct Stranger {
    known: Known,
    until: Option<Pin<Box<Sleep>>>,
    place: Option<Place>,
}

impl Stranger {
    /// Its time begins now. `place`: what it takes as long as nobody was let in.
    pub fn new(time: Duration, place: Option<Place>) -> Stranger {
        Stranger {
            known: Known::default(),
            until: Some(Box::pin(tokio::time::sleep(time))),
            place,
        }
    }

    /// For the calls on this connection.
    pub fn known(&self) -> Known {
        self.known.clone()
    }

    /// To be asked at each read, and wakes the reader when the time is up.
    ///
    /// # Errors
    /// The time is up and nobody was let in.
    pub fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(until) = &mut self.until else {
            return Ok(());
        };
        if self.place.is_some() && self.known.is_so() {
            self.place = None;
        }
        if until.as_mut().poll(cx) == Poll::Pending {
            return Ok(());
        }
        self.until = None;
        if self.known.is_so() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "nobody on this connection was let in"))
    }
}

/// How many strangers there are of each address.
#[derive(Clone, Default)]
pub struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Strangers {
    /// A place, unless those of this address have `most`.
    pub fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let network = network(address);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = all.entry(network).or_default();
        if *there >= most {
            return None;
        }
        *there += 1;
        Some(Place {
            strangers: self.clone(),
            network,
        })
    }
}

/// A stranger's place, given back when this is dropped.
pub struct Place {
    strangers: Strangers,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get_mut(&self.network) {
            *there -= 1;
            if *there == 0 {
                all.remove(&self.network);
            }
        }
    }
}

/// Who has one address of IPv6 has 2⁶⁴ of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_is_known_may_stay() {
        for (welcome, stays) in [(true, true), (false, false)] {
            let mut stranger = Stranger::new(Duration::from_millis(50), None);
            let check = |stranger: &mut Stranger| {
                let mut cx = Context::from_waker(std::task::Waker::noop());
                stranger.check(&mut cx).is_ok()
            };
            assert!(check(&mut stranger));
            if welcome {
                stranger.known().welcome();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(check(&mut stranger), stays);
        }
    }
    #[tokio::test]
    async fn strangers_of_one_address_leave_room_for_others() {
        let strangers = Strangers::default();
        let enter = |address: &str| strangers.enter(address.parse().unwrap(), 2);
        let (one, two) = (enter("10.0.0.1"), enter("::ffff:10.0.0.1"));
        assert!(enter("10.0.0.1").is_none() && enter("10.0.0.2").is_some());
        let six = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(enter("2001:db8::3").is_none() && enter("2001:db8:0:1::3").is_some());
        let mut stranger = Stranger::new(Duration::from_secs(60), one);
        stranger.known().welcome();
        assert!(stranger.check(&mut Context::from_waker(std::task::Waker::noop())).is_ok());
        assert!(enter("10.0.0.1").is_some(), "who is known takes no stranger's place");
        drop((two, six, stranger));
        assert!(strangers.0.lock().unwrap().is_empty());
    }
}
