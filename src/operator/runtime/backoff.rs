//! Pauses between attempts at one object.

use std::time::Duration;

use super::{Informer, States, Watched};

/// The first pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// The first pause after a conflict: the object has changed, and the watch delivers it in a moment.
const FIRST_AFTER_CONFLICT: Duration = Duration::from_millis(50);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by the object's UID.
#[derive(Clone)]
pub(super) struct Backoff(States<u32>);

impl Backoff {
    pub(super) fn new<K: Watched>(informer: &Informer<K>) -> Backoff {
        Backoff(States::of(informer))
    }

    /// Counts a failure. Returns the failures in a row and the pause before the next attempt.
    pub(super) fn failed(&self, uid: &str, is_conflict: bool) -> (u32, Duration) {
        let mut failures = 0;
        self.0.update(uid, |n| {
            *n = n.saturating_add(1);
            failures = *n;
        });
        (failures, pause(failures, is_conflict).mul_f64(0.5 + 0.5 * jitter()))
    }

    /// Forgets the failures of an object that was reconciled.
    pub(super) fn reset(&self, uid: &str) {
        self.0.update(uid, |n| *n = 0);
    }
}

/// Doubles from attempt to attempt.
fn pause(failures: u32, is_conflict: bool) -> Duration {
    let first = if is_conflict { FIRST_AFTER_CONFLICT } else { FIRST };
    first
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST)
}

/// From 0 to 1, from the clock: good enough to spread retries of objects that failed together.
pub(crate) fn jitter() -> f64 {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    f64::from(nanos % 1000) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again_after_success() {
        let millis = |failures, is_conflict| pause(failures, is_conflict).as_millis();
        assert_eq!(
            [1, 2, 3, 8, 100].map(|n| millis(n, false)),
            [500, 1000, 2000, 60_000, 60_000]
        );
        assert_eq!([1, 2, 3, 100].map(|n| millis(n, true)), [50, 100, 200, 60_000]);
        let (informer, _writer) = Informer::<crate::api::Sandbox>::new();
        let backoff = Backoff::new(&informer);
        assert_eq!(
            [
                backoff.failed("a", false).0,
                backoff.failed("a", false).0,
                backoff.failed("b", false).0
            ],
            [1, 2, 1]
        );
        backoff.reset("a");
        let (failures, pause) = backoff.failed("a", false);
        assert_eq!(failures, 1);
        assert!((FIRST / 2..=FIRST).contains(&pause), "{pause:?}");
    }
}
