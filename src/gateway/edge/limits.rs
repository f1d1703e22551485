//! Limits on what one caller may use of this replica, so that it cannot starve the others.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::gateway::config;
use crate::gateway::edge::body_budget::BodyBudget;
use crate::gateway::edge::log_search::LogSearchPermits;
use crate::gateway::error::{rate_limited, reason, retry};

/// Entries above which those without a call in flight are dropped.
const MAX_IDLE: usize = 1024;
/// Concurrent calls without credentials, over all peers: health checks, and streams (health watches, reflection).
const UNAUTHENTICATED_CALLS: usize = 512;
const UNAUTHENTICATED_STREAMS: usize = 128;
/// Concurrent log searches of one tenant.
const LOG_SEARCHES: usize = 4;

/// The limits of this replica, and their use.
pub struct Limits {
    rate: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    users: Mutex<HashMap<String, Arc<User>>>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    body_bytes: Arc<Semaphore>,
    unauthenticated_calls: Arc<Semaphore>,
    unauthenticated_streams: Arc<Semaphore>,
    config: config::Limits,
}

/// What one user may still start.
struct User {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    tenant: Arc<Tenant>,
}

/// What all users of a tenant share: a tenant can create as many ServiceAccounts as it likes.
struct Tenant {
    body_bytes: Arc<Semaphore>,
    log_searches: LogSearchPermits,
}

/// An admitted call. It counts against the limits until this is dropped.
pub(crate) struct Admission {
    /// Memory for the call's large bodies.
    pub(crate) budget: BodyBudget,
    /// Permits to search logs.
    pub(crate) log_searches: LogSearchPermits,
    _user: Arc<User>,
    _permit: OwnedSemaphorePermit,
}

impl Limits {
    /// Limits of which nothing is used.
    pub fn new(config: &config::Limits) -> Limits {
        let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(positive(config.requests_per_second)).allow_burst(positive(config.burst));
        Limits {
            rate: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            users: Mutex::default(),
            tenants: Mutex::default(),
            unauthenticated_calls: Arc::new(Semaphore::new(UNAUTHENTICATED_CALLS)),
            unauthenticated_streams: Arc::new(Semaphore::new(UNAUTHENTICATED_STREAMS)),
            body_bytes: semaphore(config.large_body_bytes),
            config: config.clone(),
        }
    }

    /// Admits a call of `user`, who belongs to `tenant`.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with a retry delay.
    pub(crate) fn admit(&self, user: &str, tenant: &str, streaming: bool) -> Result<Admission, Status> {
        self.rate.check_key(&user.to_owned()).map_err(|until| {
            let text = format!("more than {} calls per second", self.config.requests_per_second);
            let delay = until.wait_time_from(self.clock.now());
            retry(Code::ResourceExhausted, reason::RATE_LIMITED, text, delay)
        })?;
        let user = self.user(user, tenant);
        let (permits, limit, what) = if streaming {
            (&user.streams, self.config.concurrent_streams, "streams")
        } else {
            (&user.calls, self.config.concurrent_calls, "calls")
        };
        let permit = permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| rate_limited(format!("more than {limit} concurrent {what}")))?;
        Ok(self.admission(user, permit))
    }

    /// Admits a call of a method that needs no credentials.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub(crate) fn admit_unauthenticated(&self, streaming: bool) -> Result<Admission, Status> {
        let permits = if streaming {
            &self.unauthenticated_streams
        } else {
            &self.unauthenticated_calls
        };
        let permit = permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| rate_limited("too many concurrent calls without credentials"))?;
        Ok(self.admission(self.user("", ""), permit))
    }

    fn admission(&self, user: Arc<User>, permit: OwnedSemaphorePermit) -> Admission {
        let Tenant {
            body_bytes,
            log_searches,
        } = &*user.tenant;
        Admission {
            budget: BodyBudget::new(body_bytes.clone(), self.tenant_body_bytes(), self.body_bytes.clone()),
            log_searches: log_searches.clone(),
            _user: user,
            _permit: permit,
        }
    }

    /// Drops the rates of users that are idle.
    pub(crate) fn prune(&self) {
        self.rate.retain_recent();
        self.rate.shrink_to_fit();
    }

    /// Bytes for large bodies that are not reserved.
    #[cfg(test)]
    pub(crate) fn free_body_bytes(&self) -> usize {
        self.body_bytes.available_permits()
    }

    fn tenant_body_bytes(&self) -> u32 {
        self.config.large_body_bytes / 2
    }

    fn user(&self, user: &str, tenant: &str) -> Arc<User> {
        get_or_insert(&self.users, user, || User {
            calls: semaphore(self.config.concurrent_calls),
            streams: semaphore(self.config.concurrent_streams),
            tenant: get_or_insert(&self.tenants, tenant, || Tenant {
                body_bytes: semaphore(self.tenant_body_bytes()),
                log_searches: LogSearchPermits::new(LOG_SEARCHES),
            }),
        })
    }
}

/// The value of `key`. Drops unused values when there are many.
fn get_or_insert<V>(all: &Mutex<HashMap<String, Arc<V>>>, key: &str, new: impl FnOnce() -> V) -> Arc<V> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() > MAX_IDLE {
        all.retain(|_, value| Arc::strong_count(value) > 1);
    }
    all.entry(key.to_owned()).or_insert_with(|| Arc::new(new())).clone()
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits as usize))
}

#[cfg(test)]
mod tests;
