//! What one caller may use of this replica, so that none starves the others.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Status};

use super::config;
use super::error::{reason, retry};

/// Callers without a call under way that are kept before they are looked for and dropped.
const IDLE: usize = 1024;
/// Longest wait for room for an answer.
const WAIT: Duration = Duration::from_secs(30);

/// The limits of this replica, and what is used of them.
pub struct Limits {
    rate: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    shares: Mutex<HashMap<String, Arc<Share>>>,
    bytes: Arc<Semaphore>,
    config: config::Limits,
}

/// What one caller has left.
struct Share {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A call that was let in; it counts until this is dropped.
pub struct Admission {
    /// Room for its large bodies.
    pub room: Room,
    _share: Arc<Share>,
    _place: OwnedSemaphorePermit,
}

/// Where the large bodies of one call take their bytes from: the caller's share, and all there is. They are taken once, by the request or
/// for the answer, and given back with the last clone of this.
#[derive(Clone)]
pub struct Room {
    mine: Arc<Semaphore>,
    /// All that the caller can have.
    share: u32,
    all: Arc<Semaphore>,
    taken: Arc<OnceLock<Reservation>>,
}

struct Reservation {
    _mine: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Limits {
    /// Nothing is used yet.
    pub fn new(config: &config::Limits) -> Limits {
        let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(config.requests_per_second)).allow_burst(positive(config.burst));
        Limits {
            rate: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            shares: Mutex::default(),
            bytes: Arc::new(Semaphore::new(config.large_body_bytes as usize)),
            config: config.clone(),
        }
    }

    /// Lets a call of `user` in.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, and when to try again.
    pub fn admit(&self, user: &str, streaming: bool) -> Result<Admission, Status> {
        self.rate.check_key(&user.to_owned()).map_err(|until| {
            let text = format!("more than {} calls per second", self.config.requests_per_second);
            let pause = until.wait_time_from(self.clock.now());
            retry(Code::ResourceExhausted, reason::RATE_LIMITED, text, pause)
        })?;
        let share = self.share(user);
        let (places, most, what) = if streaming {
            (&share.streams, self.config.concurrent_streams, "streams")
        } else {
            (&share.calls, self.config.concurrent_calls, "calls")
        };
        let place = places.clone().try_acquire_owned();
        let place = place.map_err(|_| exhausted(format!("more than {most} {what} at once")))?;
        let room = Room {
            mine: share.bytes.clone(),
            share: self.config.large_body_bytes / 2,
            all: self.bytes.clone(),
            taken: Arc::default(),
        };
        Ok(Admission {
            room,
            _share: share,
            _place: place,
        })
    }

    /// Drops what is kept of callers that have been quiet.
    pub fn tidy(&self) {
        self.rate.retain_recent();
        self.rate.shrink_to_fit();
    }

    fn share(&self, user: &str) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.len() > IDLE {
            shares.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let new = || {
            let semaphore = |n: u32| Arc::new(Semaphore::new(n as usize));
            Arc::new(Share {
                calls: semaphore(self.config.concurrent_calls),
                streams: semaphore(self.config.concurrent_streams),
                bytes: semaphore(self.config.large_body_bytes / 2),
            })
        };
        shares.entry(user.to_owned()).or_insert_with(new).clone()
    }
}

impl Room {
    /// Messages above this size take room, of which there is only so much.
    pub const SMALL: usize = 256 << 10;

    /// The room of a call; none where no limits stand before it.
    pub fn of<T>(request: &Request<T>) -> Option<Room> {
        request.extensions().get().cloned()
    }

    /// Waits until there is room for so many bytes: the caller's share first, so that one who waits for itself holds up nobody else.
    pub async fn take(self, bytes: u32) {
        if self.taken.get().is_some() {
            return;
        }
        // Neither is ever closed.
        if let Ok(mine) = self.mine.acquire_many_owned(bytes).await
            && let Ok(all) = self.all.acquire_many_owned(bytes).await
        {
            let _ = self.taken.set(Reservation { _mine: mine, _all: all });
        }
    }

    /// Takes room for an answer that grows: nothing as long as it is small, then for `most` bytes, which it may become.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when others have it all for too long.
    pub async fn for_answer(room: Option<&Room>, now: usize, most: usize) -> Result<(), Status> {
        let Some(room) = room.filter(|room| now > Room::SMALL && room.taken.get().is_none()) else {
            return Ok(());
        };
        // It is there twice when it is encoded. All of a caller's share must be enough for any.
        let bytes = u32::try_from(2 * most).unwrap_or(u32::MAX).min(room.share);
        let taken = tokio::time::timeout(WAIT, room.clone().take(bytes)).await;
        taken.map_err(|_| exhausted("other large answers are under way"))
    }
}

/// RESOURCE_EXHAUSTED that may pass in a second.
pub fn exhausted(message: impl Into<String>) -> Status {
    retry(Code::ResourceExhausted, reason::RATE_LIMITED, message, Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    fn limits(requests_per_second: u32, burst: u32) -> Limits {
        Limits::new(&config::Limits {
            requests_per_second,
            burst,
            concurrent_calls: 2,
            concurrent_streams: 1,
            large_body_bytes: 100,
            connections: 1,
        })
    }

    #[test]
    fn a_caller_over_its_rate_is_told_when_to_come_back_and_the_others_are_not_touched() {
        let limits = limits(1, 2);
        assert!(limits.admit("a", false).is_ok() && limits.admit("a", false).is_ok());
        let refused = limits.admit("a", false).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason::RATE_LIMITED);
        let pause = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(pause > Duration::from_millis(500) && pause <= Duration::from_secs(1), "{pause:?}");
        assert!(limits.admit("b", false).is_ok());
    }

    #[test]
    fn calls_and_streams_count_until_they_end() {
        let limits = limits(1000, 1000);
        let (one, _two) = (limits.admit("a", false).unwrap(), limits.admit("a", false).unwrap());
        assert_eq!(limits.admit("a", false).err().unwrap().code(), Code::ResourceExhausted);
        let stream = limits.admit("a", true).unwrap();
        assert!(limits.admit("a", true).is_err());
        assert!(limits.admit("b", false).is_ok());
        drop((one, stream));
        assert!(limits.admit("a", false).is_ok() && limits.admit("a", true).is_ok());
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_one_caller_has_half_of_it() {
        use futures::FutureExt;
        let limits = limits(1000, 1000);
        let room = |user: &str| limits.admit(user, false).unwrap().room;
        let (first, other) = (room("a"), room("b"));
        first.clone().take(30).await;
        assert!(room("a").take(30).now_or_never().is_none(), "60 of 100 are more than half");
        other.clone().take(50).await;
        assert!(room("c").take(30).now_or_never().is_none(), "110 of 100");
        drop(first);
        assert!(room("c").take(30).now_or_never().is_some());
        drop(other);
        assert!(room("a").take(50).now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_answer_takes_room_once_it_is_large() {
        use futures::FutureExt;
        let limits = limits(1000, 1000);
        let room = |user: &str| limits.admit(user, false).unwrap().room;
        let (small, large, second) = (room("a"), room("a"), room("a"));
        let grows = |room: &Room, now: usize| Room::for_answer(Some(room), now, 50).now_or_never();
        assert!(grows(&small, Room::SMALL).is_some() && grows(&large, Room::SMALL + 1).is_some());
        assert!(grows(&large, 2 * Room::SMALL).is_some(), "it has its room already");
        assert!(grows(&second, Room::SMALL + 1).is_none());
        drop(large);
        assert!(grows(&second, Room::SMALL + 1).is_some());
    }

    #[test]
    fn callers_who_left_are_forgotten() {
        let limits = limits(1000, 1000);
        let kept = limits.admit("kept", false).unwrap();
        for i in 0..5000 {
            let _ = limits.admit(&i.to_string(), false);
        }
        assert!(limits.shares.lock().unwrap().len() <= IDLE + 1);
        assert!(limits.shares.lock().unwrap().contains_key("kept"));
        drop(kept);
    }
}
