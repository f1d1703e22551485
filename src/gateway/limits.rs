//! What one caller may use of this replica, so that none starves the others.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Status};

use super::config;
use super::error::{reason, retry};

/// Callers without a call under way that are kept before they are looked for and dropped.
const IDLE: usize = 1024;
/// Longest wait for room.
pub const WAIT: Duration = Duration::from_secs(30);

/// Calls without credentials at once, over all that make them: checks of health, and what lasts (watches of it, reflection).
const OPEN_CALLS: usize = 512;
const OPEN_STREAMS: usize = 128;
/// Logs of one tenant in which the last lines are looked for at once: that reads much for little.
const SEARCHES: usize = 4;

/// The limits of this replica, and what is used of them.
pub struct Limits {
    rate: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    shares: Mutex<HashMap<String, Arc<Share>>>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    bytes: Arc<Semaphore>,
    open_calls: Arc<Semaphore>,
    open_streams: Arc<Semaphore>,
    config: config::Limits,
}

/// What one caller has left.
struct Share {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    tenant: Arc<Tenant>,
}

/// What all callers of a tenant have left together: who has one ServiceAccount can have more.
struct Tenant {
    bytes: Arc<Semaphore>,
    searches: Arc<Semaphore>,
}

/// A call that was let in; it counts until this is dropped.
pub struct Admission {
    /// Room for its large bodies.
    pub room: Room,
    _share: Arc<Share>,
    _place: OwnedSemaphorePermit,
}

/// Where the large bodies of one call take their bytes from: the tenant's share, and all there is. They are given back with the last clone
/// of this.
#[derive(Clone)]
pub struct Room {
    mine: Arc<Semaphore>,
    searches: Arc<Semaphore>,
    /// All that the tenant can have.
    share: u32,
    all: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    request: Option<Reservation>,
    answer: Option<Reservation>,
}

struct Reservation {
    mine: OwnedSemaphorePermit,
    all: OwnedSemaphorePermit,
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
            tenants: Mutex::default(),
            open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
            open_streams: Arc::new(Semaphore::new(OPEN_STREAMS)),
            bytes: Arc::new(Semaphore::new(config.large_body_bytes as usize)),
            config: config.clone(),
        }
    }

    /// Lets a call of `user`, who belongs to `tenant`, in.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, and when to try again.
    pub fn admit(&self, user: &str, tenant: &str, streaming: bool) -> Result<Admission, Status> {
        self.rate.check_key(&user.to_owned()).map_err(|until| {
            let text = format!("more than {} calls per second", self.config.requests_per_second);
            let pause = until.wait_time_from(self.clock.now());
            retry(Code::ResourceExhausted, reason::RATE_LIMITED, text, pause)
        })?;
        let share = self.share(user, tenant);
        let (places, most, what) = if streaming {
            (&share.streams, self.config.concurrent_streams, "streams")
        } else {
            (&share.calls, self.config.concurrent_calls, "calls")
        };
        let place = places.clone().try_acquire_owned();
        let place = place.map_err(|_| exhausted(format!("more than {most} {what} at once")))?;
        Ok(self.admission(share, place))
    }

    /// Lets a call of nobody in particular in.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub fn admit_open(&self, streaming: bool) -> Result<Admission, Status> {
        let places = if streaming { &self.open_streams } else { &self.open_calls };
        let place = places.clone().try_acquire_owned();
        let place = place.map_err(|_| exhausted("too many calls without credentials"))?;
        Ok(self.admission(self.share("", ""), place))
    }

    fn admission(&self, share: Arc<Share>, place: OwnedSemaphorePermit) -> Admission {
        let room = Room {
            mine: share.tenant.bytes.clone(),
            searches: share.tenant.searches.clone(),
            share: self.config.large_body_bytes / 2,
            all: self.bytes.clone(),
            taken: Arc::default(),
        };
        Admission {
            room,
            _share: share,
            _place: place,
        }
    }

    /// Drops what is kept of callers that have been quiet.
    pub fn tidy(&self) {
        self.rate.retain_recent();
        self.rate.shrink_to_fit();
    }

    /// Bytes that nobody has taken.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.bytes.available_permits()
    }

    fn share(&self, user: &str, tenant: &str) -> Arc<Share> {
        kept(&self.shares, user, || Share {
            calls: semaphore(self.config.concurrent_calls),
            streams: semaphore(self.config.concurrent_streams),
            tenant: kept(&self.tenants, tenant, || Tenant {
                bytes: semaphore(self.config.large_body_bytes / 2),
                searches: Arc::new(Semaphore::new(SEARCHES)),
            }),
        })
    }
}

/// What is kept under `key`. What nobody uses is dropped when there is much of it.
fn kept<V>(all: &Mutex<HashMap<String, Arc<V>>>, key: &str, new: impl FnOnce() -> V) -> Arc<V> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() > IDLE {
        all.retain(|_, value| Arc::strong_count(value) > 1);
    }
    all.entry(key.to_owned()).or_insert_with(|| Arc::new(new())).clone()
}

fn semaphore(n: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(n as usize))
}

impl Room {
    /// Messages above this size take room, of which there is only so much.
    pub const SMALL: usize = 256 << 10;

    /// The room of a call; none where no limits stand before it.
    pub fn of<T>(request: &Request<T>) -> Option<Room> {
        request.extensions().get().cloned()
    }

    /// Takes room for a message of the request, in place of the one before, which was passed on.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when others have it all for too long.
    pub async fn for_request(self, bytes: usize) -> Result<(), Status> {
        self.request_is_gone();
        if bytes > Room::SMALL {
            let reservation = self.acquire(bytes, WAIT).await?;
            self.taken().request = Some(reservation);
        }
        Ok(())
    }

    /// Takes room for an answer that has come to so many bytes, and for as many again: it is there twice when it is encoded. As long as it
    /// is small it takes none. Waits so long for room.
    ///
    /// # Errors
    /// As [`Room::for_request`].
    pub async fn for_answer(room: Option<&Room>, bytes: usize, wait: Duration) -> Result<(), Status> {
        let Some(room) = room.filter(|_| bytes > Room::SMALL) else {
            return Ok(());
        };
        let share = room.share as usize;
        let have = room.taken().answer.as_ref().map_or(0, |a| a.mine.num_permits());
        let wanted = 2 * bytes;
        if wanted <= have || have >= share {
            return Ok(());
        }
        // By doubling: what grows in small steps does not come back for each.
        let more = room.acquire(wanted.max(2 * have).min(share) - have, wait).await?;
        let mut taken = room.taken();
        match &mut taken.answer {
            Some(answer) => {
                answer.mine.merge(more.mine);
                answer.all.merge(more.all);
            }
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Waits for a place to look for the last lines of a log; it is taken until what is returned is dropped. None where no limits stand
    /// before the call.
    pub async fn to_search(room: Option<&Room>) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        room?.searches.clone().acquire_owned().await.ok()
    }

    /// The last message of the request was passed on.
    pub fn request_is_gone(&self) {
        self.taken().request = None;
    }

    /// The answer is no longer kept.
    pub fn answer_is_gone(&self) {
        self.taken().answer = None;
    }

    /// The tenant's share first, so that one who waits for itself holds up nobody else.
    async fn acquire(&self, bytes: usize, wait: Duration) -> Result<Reservation, Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.share);
        let both = async {
            let mine = self.mine.clone().acquire_many_owned(bytes).await.ok()?;
            let all = self.all.clone().acquire_many_owned(bytes).await.ok()?;
            Some(Reservation { mine, all })
        };
        let both = tokio::time::timeout(wait, both).await;
        both.ok().flatten().ok_or_else(|| exhausted("too many large bodies are under way"))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(limits.admit("a", "t", false).is_ok() && limits.admit("a", "t", false).is_ok());
        let refused = limits.admit("a", "t", false).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let details = refused.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason::RATE_LIMITED);
        let pause = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(pause > Duration::from_millis(500) && pause <= Duration::from_secs(1), "{pause:?}");
        assert!(limits.admit("b", "u", false).is_ok());
    }

    #[test]
    fn calls_and_streams_count_until_they_end() {
        let limits = limits(1000, 1000);
        let (one, _two) = (limits.admit("a", "t", false).unwrap(), limits.admit("a", "t", false).unwrap());
        assert_eq!(limits.admit("a", "t", false).err().unwrap().code(), Code::ResourceExhausted);
        let stream = limits.admit("a", "t", true).unwrap();
        assert!(limits.admit("a", "t", true).is_err());
        assert!(limits.admit("b", "u", false).is_ok());
        drop((one, stream));
        assert!(limits.admit("a", "t", false).is_ok() && limits.admit("a", "t", true).is_ok());
    }

    /// In units of what is small, of which there are 100, and a caller has half.
    fn roomy() -> Limits {
        let unit = u32::try_from(Room::SMALL).unwrap();
        Limits::new(&config::Limits {
            concurrent_calls: 9,
            large_body_bytes: 100 * unit,
            ..config::Limits::default()
        })
    }

    #[tokio::test]
    async fn large_bodies_wait_for_room_and_one_caller_has_half_of_it() {
        use futures::FutureExt;
        let limits = roomy();
        let room = |user: &str| limits.admit(user, &user[..1], false).unwrap().room;
        let take = |room: &Room, units: usize| room.clone().for_request(units * Room::SMALL).now_or_never();
        let (first, other) = (room("a"), room("b"));
        assert!(take(&first, 30).is_some());
        assert!(take(&room("a"), 30).is_none(), "60 of 100 are more than half");
        assert!(take(&room("a2"), 30).is_none(), "nor does another account of the tenant have it");
        assert!(take(&other, 50).is_some());
        assert!(take(&room("c"), 30).is_none(), "110 of 100");
        assert!(take(&first, 10).is_some(), "a message takes the room of the one before it");
        assert!(take(&room("c"), 30).is_some());
        assert!(take(&other, 1).is_some());
        assert!(take(&room("b"), 50).is_some(), "a small one takes none");
    }

    #[tokio::test]
    async fn an_answer_takes_twice_its_size_beside_what_its_request_has() {
        let limits = roomy();
        let (one, two) = (limits.admit("a", "t", false).unwrap().room, limits.admit("a", "t", false).unwrap().room);
        let grows = async |room: &Room, units: usize| Room::for_answer(Some(room), units * Room::SMALL, Duration::ZERO).await.is_ok();
        one.clone().for_request(10 * Room::SMALL).await.unwrap();
        assert!(grows(&one, 1).await && one.mine.available_permits() == 40 * Room::SMALL);
        assert!(grows(&one, 10).await && one.mine.available_permits() == 20 * Room::SMALL);
        assert!(
            grows(&one, 11).await && one.mine.available_permits() == 0,
            "40, of which 10 are the request's"
        );
        assert!(!grows(&two, 2).await);
        one.answer_is_gone();
        assert!(grows(&two, 2).await);
        assert!(Room::for_answer(None, usize::MAX / 4, Duration::ZERO).await.is_ok());
    }

    #[test]
    fn calls_without_credentials_have_places_of_their_own() {
        let limits = limits(1000, 1000);
        let checks: Vec<_> = (0..OPEN_CALLS).map(|_| limits.admit_open(false).unwrap()).collect();
        assert_eq!(limits.admit_open(false).err().unwrap().code(), Code::ResourceExhausted);
        assert!(limits.admit_open(true).is_ok() && limits.admit("a", "t", false).is_ok());
        drop(checks);
        assert!(limits.admit_open(false).is_ok());
    }

    #[tokio::test]
    async fn a_tenant_searches_few_logs_at_once() {
        use futures::FutureExt;
        let limits = limits(1000, 1000);
        let (one, other) = (limits.admit("a", "t", true).unwrap(), limits.admit("b", "u", true).unwrap());
        let searches: Vec<_> = (0..SEARCHES)
            .map(|_| Room::to_search(Some(&one.room)).now_or_never().flatten().unwrap())
            .collect();
        assert!(Room::to_search(Some(&one.room)).now_or_never().is_none());
        assert!(Room::to_search(Some(&other.room)).now_or_never().is_some());
        drop(searches);
        assert!(Room::to_search(Some(&one.room)).now_or_never().is_some());
    }

    #[test]
    fn callers_who_left_are_forgotten() {
        let limits = limits(1000, 1000);
        let kept = limits.admit("kept", "t", false).unwrap();
        for i in 0..5000 {
            let _ = limits.admit(&i.to_string(), &i.to_string(), false);
        }
        assert!(limits.shares.lock().unwrap().len() <= IDLE + 1 && limits.tenants.lock().unwrap().len() <= 2 * IDLE + 2);
        assert!(limits.shares.lock().unwrap().contains_key("kept"));
        drop(kept);
    }
}
