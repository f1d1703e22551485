//! Limits the access log's lines of refused calls.

use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::source_network;

/// Lines per second and network, and of all networks together.
const PER_NETWORK: NonZeroU32 = NonZeroU32::new(5).unwrap();
const PER_NETWORK_BURST: NonZeroU32 = NonZeroU32::new(50).unwrap();
const IN_ALL: NonZeroU32 = NonZeroU32::new(50).unwrap();
const IN_ALL_BURST: NonZeroU32 = NonZeroU32::new(500).unwrap();

/// Limits the lines of calls that were not admitted.
pub(crate) struct Refusals {
    by_network: DefaultKeyedRateLimiter<IpAddr>,
    all: DefaultDirectRateLimiter,
    left_out: AtomicU64,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            by_network: DefaultKeyedRateLimiter::keyed(Quota::per_second(PER_NETWORK).allow_burst(PER_NETWORK_BURST)),
            all: DefaultDirectRateLimiter::direct(Quota::per_second(IN_ALL).allow_burst(IN_ALL_BURST)),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Refusals {
    /// If a call from `peer` gets a line: how many lines were left out since the last one. Otherwise `None`.
    pub(crate) fn line(&self, peer: IpAddr, admitted: bool) -> Option<u64> {
        let written = admitted || self.by_network.check_key(&source_network(peer)).is_ok() && self.all.check().is_ok();
        if !written {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }

    /// Drops the rates of idle networks.
    pub(crate) fn prune(&self) {
        self.by_network.retain_recent();
        self.by_network.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_calls_cannot_flush_the_log_and_admitted_ones_are_always_written() {
        let refusals = Refusals::default();
        let peer = IpAddr::from([10, 0, 0, 7]);
        let written = (0..1000).filter(|_| refusals.line(peer, false).is_some()).count();
        assert!((50..100).contains(&written), "{written}");
        assert!(refusals.line(IpAddr::from([10, 0, 0, 8]), false).is_some());
        assert_eq!(refusals.line(peer, true), Some(0), "the line before reported them");
        while refusals.line(peer, false).is_some() {}
        assert!(refusals.line(peer, true).is_some_and(|left_out| left_out > 0));
    }
}
