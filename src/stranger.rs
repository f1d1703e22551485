//! Connections on which nobody has shown yet that it may call: their time is short, since there are only so many places.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
}

/// The time of a connection without a caller that was let in.
pub struct Stranger {
    known: Known,
    until: Option<Pin<Box<Sleep>>>,
}

impl Stranger {
    /// Its time begins now.
    pub fn new(time: Duration) -> Stranger {
        Stranger {
            known: Known::default(),
            until: Some(Box::pin(tokio::time::sleep(time))),
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
        if until.as_mut().poll(cx) == Poll::Pending {
            return Ok(());
        }
        self.until = None;
        if self.known.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "nobody on this connection was let in"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_is_known_may_stay() {
        for (welcome, stays) in [(true, true), (false, false)] {
            let mut stranger = Stranger::new(Duration::from_millis(50));
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
}
