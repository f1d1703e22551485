//! Combines the results of several checks, and decides when the next one is due: pure.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

use crate::network_check::{Enforcement, Report};

/// Pause after a check with the result Enforced.
const PAUSE: Duration = Duration::from_secs(30 * 60);
/// First pause after a check with another result; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(30);
/// Longest pause after a check with another result.
const LONGEST_RETRY: Duration = Duration::from_secs(10 * 60);

/// How long a proof is valid if the results of later checks are Unknown.
const PROOF_HOLDS: Duration = Duration::from_secs(2 * 3600);

/// The combined result of all checks so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Knowledge {
    report: Option<Report>,
    proven_at: Option<Timestamp>,
    /// Checks in a row that did not prove enforcement.
    failures: u32,
}

impl Knowledge {
    /// A proof of an earlier leader; `None` if it is no longer valid.
    pub(super) fn proven(report: Report, at: Timestamp, now: Timestamp) -> Option<Knowledge> {
        let knowledge = Knowledge {
            report: Some(report),
            proven_at: Some(at),
            failures: 0,
        };
        knowledge.is_proven(now).then_some(knowledge)
    }

    /// The report of the current result.
    pub(super) fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// When enforcement was last proven; `None` if a later check disproved it.
    pub(super) fn proven_at(&self) -> Option<Timestamp> {
        self.proven_at
    }

    /// Adds the result of a check. Unknown does not invalidate a proof: nodes may have been full, for instance.
    /// NotEnforced does, at once.
    pub(super) fn learn(&mut self, report: Report, now: Timestamp) {
        match report.result {
            Enforcement::Enforced => (self.proven_at, self.failures) = (Some(now), 0),
            Enforcement::NotEnforced => (self.proven_at, self.failures) = (None, self.failures.saturating_add(1)),
            Enforcement::Unknown => {
                self.failures = self.failures.saturating_add(1);
                if self.is_proven(now) {
                    return;
                }
                self.proven_at = None;
            }
        }
        self.report = Some(report);
    }

    fn is_proven(&self, now: Timestamp) -> bool {
        let limit = SignedDuration::try_from(PROOF_HOLDS).unwrap_or_default();
        self.proven_at
            .is_some_and(|at| at <= now && now.duration_since(at) < limit)
    }

    /// Pause before the next check.
    pub(super) fn pause(&self) -> Duration {
        match self.failures {
            0 => PAUSE,
            failures => FIRST_RETRY
                .saturating_mul(1 << (failures - 1).min(16))
                .min(LONGEST_RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Enforcement::{Enforced, NotEnforced, Unknown};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn report(result: Enforcement) -> Report {
        Report {
            result,
            ..Report::unknown("x")
        }
    }

    #[test]
    fn what_counts_after_a_series_of_checks() {
        const HOUR: i64 = 3600;
        for (checks, expected, pause) in [
            (vec![(0, Enforced)], Enforced, 1800),
            (vec![(0, NotEnforced)], NotEnforced, 30),
            (vec![(0, Unknown)], Unknown, 30),
            // Unknown does not invalidate an earlier proof until that expires.
            (vec![(0, Enforced), (HOUR, Unknown)], Enforced, 30),
            (vec![(0, Enforced), (HOUR, Unknown), (2 * HOUR, Unknown)], Unknown, 60),
            (vec![(0, Enforced), (HOUR, Enforced), (2 * HOUR, Unknown)], Enforced, 30),
            // After NotEnforced a new proof is needed.
            (vec![(0, Enforced), (10, NotEnforced), (20, Unknown)], Unknown, 60),
            (vec![(0, NotEnforced), (10, Enforced)], Enforced, 1800),
            (vec![(0, Unknown); 20], Unknown, 600),
        ] {
            let mut knowledge = Knowledge::default();
            for (second, result) in &checks {
                knowledge.learn(report(*result), at(*second));
            }
            let known = knowledge.report().map(|r| r.result);
            assert_eq!(
                (known, knowledge.pause().as_secs()),
                (Some(expected), pause),
                "{checks:?}"
            );
        }
    }

    #[test]
    fn an_old_proof_of_an_earlier_leader_is_none() {
        let limit = i64::try_from(PROOF_HOLDS.as_secs()).unwrap();
        for (second, holds) in [(0, true), (limit - 1, true), (limit, false), (-1, false)] {
            let known = Knowledge::proven(report(Enforced), at(0), at(second));
            assert_eq!(known.is_some(), holds, "after {second} s");
        }
    }
}
