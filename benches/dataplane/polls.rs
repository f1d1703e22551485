//! When the SDK looks whether a new sandbox runs: pure.

use std::time::Duration;

/// The first pause between two looks, by how much each is longer, and the longest while a sandbox is new.
const FIRST: f64 = 0.2;
const FACTOR: f64 = 1.5;
const LONGEST: f64 = 0.5;

/// When the SDK sees what is so `since` the create was answered: at its next look.
pub fn seen_by_sdk(since: Duration) -> Duration {
    let (mut at, mut pause) = (0.0, FIRST);
    while at < since.as_secs_f64() {
        at += pause;
        pause = f64::min(pause * FACTOR, LONGEST);
    }
    Duration::from_secs_f64(at)
}
