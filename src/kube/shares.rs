//! Limits the calls that each namespace has in flight.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Number of namespaces above which those without a call in flight are removed.
const MAX_IDLE: usize = 1024;

/// The calls in flight of each namespace.
pub(super) struct Shares {
    calls: usize,
    by_namespace: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Shares {
    /// Shares of this many calls.
    pub(super) fn new(calls: usize) -> Shares {
        Shares {
            calls,
            by_namespace: Mutex::default(),
        }
    }

    /// The share of a namespace.
    pub(super) fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut all = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > MAX_IDLE {
            all.retain(|_, share| Arc::strong_count(share) > 1);
        }
        let share = all.entry(namespace.to_owned());
        share.or_insert_with(|| Arc::new(Semaphore::new(self.calls))).clone()
    }
}
