//! A bounded cache whose entries expire. Concurrent lookups of a missing key share one fetch.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

type Slot<V> = Arc<OnceCell<(V, Instant)>>;

/// Values by key. Each expires at a time of its own.
pub struct TtlCache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    capacity: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> TtlCache<K, V> {
    /// An empty cache for at most `capacity` values.
    pub fn new(capacity: usize) -> TtlCache<K, V> {
        TtlCache {
            slots: Mutex::default(),
            capacity,
        }
    }

    /// The value of `key`, or what `fetch` returns: a value and its time to live. Errors are not cached.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub async fn get_or_fetch<E>(
        &self,
        key: &K,
        now: Instant,
        fetch: impl Future<Output = Result<(V, Duration), E>>,
    ) -> Result<V, E> {
        let slot = self.slot(key, now);
        let fetch = async { fetch.await.map(|(value, ttl)| (value, now + ttl)) };
        slot.get_or_try_init(|| fetch).await.map(|(value, _)| value.clone())
    }

    fn slot(&self, key: &K, now: Instant) -> Slot<V> {
        // An empty slot that somebody holds is being filled.
        let valid = |slot: &Slot<V>| match slot.get() {
            Some((_, expires)) => *expires > now,
            None => Arc::strong_count(slot) > 1,
        };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(key).filter(|s| valid(s)) {
            return slot.clone();
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| valid(slot));
        }
        if slots.len() >= self.capacity {
            // Any one will do: it is only fetched again.
            let any = slots.keys().next().cloned();
            any.and_then(|key| slots.remove(&key));
        }
        let slot = Slot::default();
        slots.insert(key.clone(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_value_lives_as_long_as_its_ttl_and_errors_are_not_cached() {
        let (cache, fetches, start) = (TtlCache::new(8), AtomicU32::new(0), Instant::now());
        let fetches = &fetches;
        let fetch = |result: Result<Duration, ()>| async move {
            result.map(|ttl| (fetches.fetch_add(1, Ordering::Relaxed), ttl))
        };
        assert_eq!(cache.get_or_fetch(&"a", start, fetch(Err(()))).await, Err(()));
        assert_eq!(cache.get_or_fetch(&"a", start, fetch(Ok(MINUTE))).await, Ok(0));
        let nearly = start + MINUTE - Duration::from_millis(1);
        assert_eq!(cache.get_or_fetch(&"a", nearly, fetch(Ok(MINUTE))).await, Ok(0));
        assert_eq!(cache.get_or_fetch(&"a", start + MINUTE, fetch(Ok(MINUTE))).await, Ok(1));
        assert_eq!(cache.get_or_fetch(&"b", start, fetch(Ok(MINUTE))).await, Ok(2));
    }

    #[tokio::test]
    async fn concurrent_lookups_share_one_fetch_and_a_dropped_fetch_is_replaced() {
        let (cache, fetches) = (TtlCache::new(8), AtomicU32::new(0));
        let now = Instant::now();
        let slow = || async {
            fetches.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, ()>(((), MINUTE))
        };
        // The first lookup is dropped while it fetches.
        let _ = tokio::time::timeout(Duration::from_millis(1), cache.get_or_fetch(&1, now, slow())).await;
        let all = (0..50).map(|_| cache.get_or_fetch(&1, now, slow()));
        assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
        assert_eq!(fetches.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn the_capacity_is_never_exceeded() {
        let (cache, now) = (TtlCache::new(8), Instant::now());
        for i in 0..1000 {
            let value = async { if i % 2 == 0 { Ok((i, MINUTE)) } else { Err(()) } };
            let _ = cache.get_or_fetch(&i, now, value).await;
        }
        assert!(cache.slots.lock().unwrap().len() <= 8);
    }
}
