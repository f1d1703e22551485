//! Statistics of samples. Pure.

use serde::Serialize;
use std::time::Duration;

/// Measurements of one phase.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// From create to RUNNING of each object, or the duration of each call.
    pub latencies: Vec<Duration>,
    /// From the first start to the last end.
    pub span: Duration,
}

impl Samples {
    /// Adds another round of the same phase.
    pub fn add(&mut self, round: Samples) {
        self.latencies.extend(round.latencies);
        self.span += round.span;
    }

    /// Their statistics.
    pub fn timing(&self) -> Timing {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        Timing {
            count: sorted.len(),
            per_second: ratio(sorted.len() as f64, self.span.as_secs_f64()),
            p50: percentile(&sorted, 50),
            p90: percentile(&sorted, 90),
            p95: percentile(&sorted, 95),
            p99: percentile(&sorted, 99),
        }
    }
}

/// Statistics of one phase; times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timing {
    /// Objects, or calls.
    pub count: usize,
    /// Objects per second that reached RUNNING, or calls per second.
    pub per_second: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Nearest rank, in seconds: the smallest sample that at least `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map_or(0.0, Duration::as_secs_f64)
}

/// `a / b`, or 0 if `b` is not positive.
pub fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}
