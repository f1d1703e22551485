//! Limits how many slots each key may hold.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the slots that each key holds.
#[derive(Debug)]
pub struct KeyedLimit<K: Hash + Eq>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Hash + Eq> Clone for KeyedLimit<K> {
    fn clone(&self) -> KeyedLimit<K> {
        KeyedLimit(self.0.clone())
    }
}

impl<K: Hash + Eq> Default for KeyedLimit<K> {
    fn default() -> KeyedLimit<K> {
        KeyedLimit(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> KeyedLimit<K> {
    /// Takes a slot for `key`, unless it holds `max` already.
    pub fn acquire(&self, key: K, max: usize) -> Option<KeyedSlot<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.get(&key).copied().unwrap_or_default() >= max {
            return None;
        }
        *counts.entry(key.clone()).or_default() += 1;
        Some(KeyedSlot {
            limit: self.clone(),
            key,
        })
    }
}

/// A slot, which is released on drop.
#[derive(Debug)]
pub struct KeyedSlot<K: Hash + Eq> {
    limit: KeyedLimit<K>,
    key: K,
}

impl<K: Hash + Eq> Drop for KeyedSlot<K> {
    fn drop(&mut self) {
        let mut counts = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// The address, or its /64 prefix for IPv6, because an IPv6 client usually has a whole /64.
pub fn source_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_what_others_need() {
        let limit = KeyedLimit::default();
        let acquire = |address: &str| limit.acquire(source_network(address.parse().unwrap()), 2);
        let (one, two) = (acquire("10.0.0.1"), acquire("::ffff:10.0.0.1"));
        assert!(acquire("10.0.0.1").is_none() && acquire("10.0.0.2").is_some());
        let six = (acquire("2001:db8::1"), acquire("2001:db8::2"));
        assert!(acquire("2001:db8::3").is_none() && acquire("2001:db8:0:1::3").is_some());
        drop(one);
        assert!(acquire("10.0.0.1").is_some());
        drop((two, six));
        assert!(limit.0.lock().unwrap().is_empty());
    }
}
