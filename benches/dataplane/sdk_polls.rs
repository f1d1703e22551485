//! When the SDK polls the state of a new sandbox. Pure.

use std::time::Duration;

/// The first interval between two polls in seconds, its growth, and its maximum while a sandbox is new.
const FIRST: f64 = 0.2;
const FACTOR: f64 = 1.5;
const LONGEST: f64 = 0.5;

/// When the SDK notices a change that happens `since` after the response to the create: at its next poll.
pub fn next_sdk_poll(since: Duration) -> Duration {
    let (mut at, mut pause) = (0.0, FIRST);
    while at < since.as_secs_f64() {
        at += pause;
        pause = f64::min(pause * FACTOR, LONGEST);
    }
    Duration::from_secs_f64(at)
}
