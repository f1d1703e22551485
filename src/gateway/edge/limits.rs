//! Limits on what one caller and one tenant may use of this replica, so that they cannot starve others. A tenant can
//! create any number of ServiceAccounts, so for each limit per caller there is one per tenant.

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status};

use crate::gateway::config;
use crate::gateway::edge::body_budget::{BodyBudget, BodyMemory};
use crate::gateway::edge::log_search::LogSearchPermits;
use crate::gateway::edge::refusals::Refusals;
use crate::gateway::error::{rate_limited, reason, retry};
use crate::net::{KeyedLimit, Peer};

/// Bytes in flight of one call: its HTTP/2 window.
pub(crate) const STREAM_WINDOW: u32 = 256 << 10;
/// Entries above which those without a call in flight are dropped.
const MAX_IDLE: usize = 1024;
/// Concurrent calls without credentials, over all peers: health checks, and streams (health watches, reflection).
const UNAUTHENTICATED_CALLS: usize = 512;
const UNAUTHENTICATED_STREAMS: usize = 128;
/// Concurrent log searches of one tenant.
const LOG_SEARCHES: usize = 4;
/// A tenant's limits of calls, as a multiple of a caller's.
const CALLERS_PER_TENANT: u32 = 4;

/// The limits of this replica, and their use.
pub struct Limits {
    rate: DefaultKeyedRateLimiter<String>,
    tenant_rate: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    users: Mutex<HashMap<String, Arc<User>>>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    connections: KeyedLimit<String>,
    windows: Arc<Semaphore>,
    bodies: Arc<BodyMemory>,
    unauthenticated_calls: Arc<Semaphore>,
    unauthenticated_streams: Arc<Semaphore>,
    /// Limits the access log's lines of refused calls.
    pub(crate) refusals: Arc<Refusals>,
    config: config::Limits,
}

/// What one user may still start.
struct User {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    tenant: Arc<Tenant>,
}

/// The limits that all users of a tenant share.
struct Tenant {
    calls: Arc<Semaphore>,
    windows: Arc<Semaphore>,
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
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Limits {
    /// Limits of which nothing is used.
    pub fn new(config: &config::Limits) -> Limits {
        let positive = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = |callers: u32| {
            Quota::per_second(positive(config.requests_per_second.saturating_mul(callers)))
                .allow_burst(positive(config.burst.saturating_mul(callers)))
        };
        Limits {
            rate: DefaultKeyedRateLimiter::keyed(quota(1)),
            tenant_rate: DefaultKeyedRateLimiter::keyed(quota(CALLERS_PER_TENANT)),
            clock: DefaultClock::default(),
            users: Mutex::default(),
            tenants: Mutex::default(),
            connections: KeyedLimit::default(),
            windows: semaphore((config.stream_bytes / STREAM_WINDOW).max(2)),
            bodies: BodyMemory::new(config.large_body_bytes),
            unauthenticated_calls: Arc::new(Semaphore::new(UNAUTHENTICATED_CALLS)),
            unauthenticated_streams: Arc::new(Semaphore::new(UNAUTHENTICATED_STREAMS)),
            refusals: Arc::default(),
            config: config.clone(),
        }
    }

    /// Admits a call of `user`, who belongs to `tenant`.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with a retry delay.
    pub(crate) fn admit(&self, user: &str, tenant: &str, streaming: bool) -> Result<Admission, Status> {
        for (rate, key, per_second) in [
            (&self.rate, user, self.config.requests_per_second),
            (
                &self.tenant_rate,
                tenant,
                self.config.requests_per_second.saturating_mul(CALLERS_PER_TENANT),
            ),
        ] {
            rate.check_key(&key.to_owned()).map_err(|until| {
                let text = format!("more than {per_second} calls per second of {key}");
                let delay = until.wait_time_from(self.clock.now());
                retry(Code::ResourceExhausted, reason::RATE_LIMITED, text, delay)
            })?;
        }
        let user = self.user(user, tenant);
        let take = |permits: &Arc<Semaphore>, limit: u32, what: &str| {
            let permit = permits.clone().try_acquire_owned();
            permit.map_err(|_| rate_limited(format!("more than {limit} concurrent {what}")))
        };
        let permits = if streaming {
            let (windows, limit) = (&user.tenant.windows, self.tenant_windows());
            vec![
                take(&user.streams, self.config.concurrent_streams, "streams")?,
                take(windows, limit, "streams of the namespace")?,
                take(&self.windows, 2 * limit, "streams of all namespaces")?,
            ]
        } else {
            let limit = self.tenant_calls();
            vec![
                take(&user.calls, self.config.concurrent_calls, "calls")?,
                take(&user.tenant.calls, limit, "calls of the namespace")?,
            ]
        };
        Ok(self.admission(user, permits))
    }

    /// Keeps the connection of an authorized call open. It counts for the tenant of its first authorized call.
    ///
    /// # Errors
    /// As [`Limits::admit`].
    pub(crate) fn admit_connection(&self, peer: Option<&Peer>, tenant: &str) -> Result<(), Status> {
        let limit = self.config.connections_per_namespace;
        match peer {
            Some(peer) if !peer.mark_authenticated_for(tenant, &self.connections, limit as usize) => {
                Err(rate_limited(format!("more than {limit} connections of the namespace")))
            }
            _ => Ok(()),
        }
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
        Ok(self.admission(self.user("", ""), vec![permit]))
    }

    fn admission(&self, user: Arc<User>, permits: Vec<OwnedSemaphorePermit>) -> Admission {
        Admission {
            budget: BodyBudget::new(user.tenant.body_bytes.clone(), self.bodies.clone()),
            log_searches: user.tenant.log_searches.clone(),
            _user: user,
            _permits: permits,
        }
    }

    /// Drops the rates of users that are idle.
    pub(crate) fn prune(&self) {
        for rate in [&self.rate, &self.tenant_rate] {
            rate.retain_recent();
            rate.shrink_to_fit();
        }
        self.refusals.prune();
    }

    /// Bytes for large bodies that are not reserved.
    #[cfg(test)]
    pub(crate) fn free_body_bytes(&self) -> usize {
        self.bodies.free()
    }

    /// At least one, so that a small configuration still admits a stream.
    fn tenant_windows(&self) -> u32 {
        (self.config.stream_bytes / STREAM_WINDOW / 2).max(1)
    }

    fn tenant_calls(&self) -> u32 {
        self.config.concurrent_calls.saturating_mul(CALLERS_PER_TENANT)
    }

    fn user(&self, user: &str, tenant: &str) -> Arc<User> {
        get_or_insert(&self.users, user, || User {
            calls: semaphore(self.config.concurrent_calls),
            streams: semaphore(self.config.concurrent_streams),
            tenant: get_or_insert(&self.tenants, tenant, || Tenant {
                calls: semaphore(self.tenant_calls()),
                windows: semaphore(self.tenant_windows()),
                body_bytes: semaphore(self.bodies.tenant_limit()),
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
