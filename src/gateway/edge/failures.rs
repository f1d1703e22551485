//! Limits failed attempts to authenticate, by source network. Each attempt costs a request to the API server or a read
//! of a file before the caller is known. Successful attempts do not count: behind a proxy, all clients share one
//! network.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures per second and network, and the burst.
const PER_SECOND: f64 = 20.0;
const BURST: f64 = 200.0;

/// Counts failures by network.
// `governor` limits the other rates; it cannot give back what an attempt took.
#[derive(Default)]
pub(super) struct FailureLimit(Mutex<HashMap<IpAddr, Failures>>);

/// The failures of one network that still count.
struct Failures {
    count: f64,
    at: Instant,
}

impl Failures {
    fn forget(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.count = (self.count - passed * PER_SECOND).max(0.0);
        self.at = self.at.max(now);
    }
}

/// An attempt in progress. It counts as a failure until it is refunded, so one that the caller cancels is a failure.
#[must_use]
pub(super) struct Attempt<'a> {
    limit: &'a FailureLimit,
    network: IpAddr,
}

impl FailureLimit {
    /// Begins an attempt, unless too many attempts of this network have failed.
    pub(super) fn attempt(&self, network: IpAddr, now: Instant) -> Option<Attempt<'_>> {
        let mut all = self.lock();
        let failures = all.entry(network).or_insert(Failures { count: 0.0, at: now });
        failures.forget(now);
        if failures.count + 1.0 > BURST {
            return None;
        }
        failures.count += 1.0;
        Some(Attempt { limit: self, network })
    }

    /// Removes networks without failures that still count.
    pub(super) fn prune(&self, now: Instant) {
        let mut all = self.lock();
        all.retain(|_, failures| {
            failures.forget(now);
            failures.count > 0.0
        });
        all.shrink_to_fit();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The attempt has not failed.
    pub(super) fn refund(self) {
        if let Some(failures) = self.limit.lock().get_mut(&self.network) {
            failures.count = (failures.count - 1.0).max(0.0);
        }
    }
}

/// A bounded set whose members expire.
pub(super) struct ExpiringSet<K> {
    members: Mutex<HashMap<K, Instant>>,
    capacity: usize,
    ttl: Duration,
}

impl<K: Hash + Eq + Clone> ExpiringSet<K> {
    pub(super) fn new(capacity: usize, ttl: Duration) -> ExpiringSet<K> {
        ExpiringSet {
            members: Mutex::default(),
            capacity,
            ttl,
        }
    }

    pub(super) fn contains(&self, key: &K, now: Instant) -> bool {
        self.lock().get(key).is_some_and(|expires| *expires > now)
    }

    /// Inserts a member, or renews it. In a full set it replaces another one.
    pub(super) fn insert(&self, key: K, now: Instant) {
        let mut members = self.lock();
        if members.len() >= self.capacity && !members.contains_key(&key) {
            members.retain(|_, expires| *expires > now);
            if members.len() >= self.capacity {
                let any = members.keys().next().cloned();
                any.and_then(|key| members.remove(&key));
            }
        }
        members.insert(key, now + self.ttl);
    }

    pub(super) fn remove(&self, key: &K) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_count_and_they_are_forgotten() {
        let (limit, now) = (FailureLimit::default(), Instant::now());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for _ in 0..1000 {
            limit.attempt(one, now).unwrap().refund();
        }
        let under_way: Vec<_> = std::iter::from_fn(|| limit.attempt(one, now)).collect();
        assert_eq!(under_way.len(), 200, "attempts under way count, since they may fail");
        // They are cancelled, or have failed.
        drop(under_way);
        assert!(limit.attempt(one, now).is_none() && limit.attempt(other, now).is_some());
        let later = now + Duration::from_secs(1);
        assert_eq!(std::iter::from_fn(|| limit.attempt(one, later)).count(), 20);
        limit.prune(later + Duration::from_secs(60));
        assert!(limit.lock().is_empty());
    }

    #[test]
    fn a_set_is_bounded_and_its_members_expire() {
        let (set, now) = (ExpiringSet::new(2, Duration::from_secs(5)), Instant::now());
        set.insert(1, now);
        assert!(set.contains(&1, now) && !set.contains(&1, now + Duration::from_secs(5)));
        (2..100).for_each(|i| set.insert(i, now));
        assert!(set.lock().len() == 2 && set.contains(&99, now));
        set.remove(&99);
        assert!(!set.contains(&99, now));
    }
}
