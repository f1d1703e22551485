//! Derives a result from the client's attempts: pure.

use std::fmt::{Display, Formatter};
use std::net::IpAddr;

use crate::network_probe::{Attempt, ProbeReport, Sample};

/// Whether the cluster enforces NetworkPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    /// Connections that a policy denies failed, and allowed ones succeeded.
    Enforced,
    /// A connection succeeded that a policy denies.
    NotEnforced,
    /// The pods could not run, or an allowed connection failed.
    Unknown,
}

impl Enforcement {
    pub(crate) const ALL: [Enforcement; 3] = [Enforcement::Enforced, Enforcement::NotEnforced, Enforcement::Unknown];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Enforcement::Enforced => "Enforced",
            Enforcement::NotEnforced => "NotEnforced",
            Enforcement::Unknown => "Unknown",
        }
    }
}

/// Which pod's policy denies a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The server's.
    Ingress,
    /// The client's.
    Egress,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

/// The result of one direction and IP family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub direction: Direction,
    pub family: &'static str,
    pub result: Enforcement,
    allowed: Attempt,
    denied: Attempt,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.direction.as_str(), self.family)
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub result: Enforcement,
    /// The result and its meaning, in one or two sentences.
    pub message: String,
    pub findings: Vec<Finding>,
    /// The nodes of the pods, and how long it took until the policies were enforced.
    pub notes: Vec<String>,
}

impl Report {
    /// The check was not completed.
    pub(crate) fn unknown(why: &str) -> Report {
        Report {
            result: Enforcement::Unknown,
            message: format!("Not known whether the cluster enforces NetworkPolicy: {why}"),
            findings: vec![],
            notes: vec![],
        }
    }

    /// The result of the client's attempts. `nodes` are those of server and client.
    pub(super) fn new(probe: &ProbeReport, nodes: [&str; 2]) -> Report {
        let findings: Vec<Finding> = probe.samples.iter().flat_map(findings).collect();
        let of = |result| -> Vec<&Finding> { findings.iter().filter(|f| f.result == result).collect() };
        let (open, unclear) = (of(Enforcement::NotEnforced), of(Enforcement::Unknown));
        let report = if findings.is_empty() {
            Report::unknown("the server's pod has no address")
        } else if !open.is_empty() {
            let message = format!(
                "The cluster does not enforce NetworkPolicy: a connection was made that a policy denies ({}). Sandboxes \
                 can reach each other, the nodes and the API server. Install a network plugin that enforces NetworkPolicy",
                list(&open)
            );
            Report {
                result: Enforcement::NotEnforced,
                message,
                ..Report::unknown("")
            }
        } else if !unclear.is_empty() {
            Report::unknown(&format!(
                "two pods cannot connect to each other although the policies allow it, or something between them \
                 accepts connections ({})",
                list(&unclear)
            ))
        } else {
            Report {
                result: Enforcement::Enforced,
                message: format!(
                    "The cluster enforces NetworkPolicy ({})",
                    list(&of(Enforcement::Enforced))
                ),
                ..Report::unknown("")
            }
        };
        let [server, client] = nodes;
        let notes = vec![
            format!("the server ran on node {server}, the client on node {client}"),
            format!("last attempts {} ms after the client's start", probe.milliseconds),
        ];
        Report {
            findings,
            notes,
            ..report
        }
    }

    /// A table to print: one line per direction and IP family.
    pub(crate) fn table(&self) -> String {
        let heading = ["DIRECTION", "FAMILY", "ALLOWED", "DENIED", "RESULT"].map(str::to_owned);
        let rows = self.findings.iter().map(|f| {
            [
                f.direction.as_str(),
                f.family,
                outcome(f.allowed),
                outcome(f.denied),
                f.result.as_str(),
            ]
            .map(str::to_owned)
        });
        let mut text = String::new();
        if !self.findings.is_empty() {
            for [direction, family, allowed, denied, result] in std::iter::once(heading).chain(rows) {
                text.push_str(&format!(
                    "{direction:<11}{family:<8}{allowed:<14}{denied:<14}{result}\n"
                ));
            }
        }
        self.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
        text
    }
}

fn list(findings: &[&Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An attempt in the table.
fn outcome(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::Connected => "connected",
        Attempt::Blocked => "blocked",
        Attempt::Unclear => "no answer",
    }
}

fn findings(sample: &Sample) -> [Finding; 2] {
    let family = match sample.address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let finding = |direction, denied| Finding {
        direction,
        family,
        result: result(sample.allowed, denied),
        allowed: sample.allowed,
        denied,
    };
    [
        finding(Direction::Ingress, sample.ingress_denied),
        finding(Direction::Egress, sample.egress_denied),
    ]
}

/// A denied connection that succeeds proves NotEnforced. One that fails proves Enforced only if the allowed connection
/// succeeds.
fn result(allowed: Attempt, denied: Attempt) -> Enforcement {
    match (allowed, denied) {
        (_, Attempt::Connected) => Enforcement::NotEnforced,
        (Attempt::Connected, Attempt::Blocked) => Enforcement::Enforced,
        (_, Attempt::Blocked | Attempt::Unclear) => Enforcement::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Attempt::{Blocked, Connected, Unclear};

    fn sample(address: &str, attempts: [Attempt; 3]) -> Sample {
        let [allowed, ingress_denied, egress_denied] = attempts;
        Sample {
            address: address.parse().unwrap(),
            allowed,
            ingress_denied,
            egress_denied,
        }
    }

    fn report(samples: Vec<Sample>) -> Report {
        let probe = ProbeReport {
            samples,
            milliseconds: 5,
        };
        Report::new(&probe, ["a", "b"])
    }

    #[test]
    fn the_result_of_each_combination_of_attempts() {
        for (attempts, expected, named) in [
            ([Connected, Blocked, Blocked], "Enforced", "ingress IPv4, egress IPv4"),
            ([Connected, Connected, Blocked], "NotEnforced", "(ingress IPv4)"),
            ([Connected, Blocked, Connected], "NotEnforced", "(egress IPv4)"),
            (
                [Connected, Connected, Connected],
                "NotEnforced",
                "ingress IPv4, egress IPv4",
            ),
            // No connection succeeds: a broken network looks like an enforced policy.
            ([Blocked, Blocked, Blocked], "Unknown", "ingress IPv4, egress IPv4"),
            ([Unclear, Blocked, Blocked], "Unknown", "ingress IPv4, egress IPv4"),
            ([Blocked, Connected, Blocked], "NotEnforced", "(ingress IPv4)"),
            // A proxy on the node accepts every connection.
            ([Connected, Unclear, Blocked], "Unknown", "(ingress IPv4)"),
            ([Unclear, Unclear, Unclear], "Unknown", "ingress IPv4, egress IPv4"),
        ] {
            let report = report(vec![sample("10.0.0.1", attempts)]);
            assert_eq!(report.result.as_str(), expected, "{attempts:?}");
            assert!(report.message.contains(named), "{attempts:?}: {}", report.message);
        }
    }

    #[test]
    fn the_worst_result_of_both_families_counts() {
        let (good, bad, broken) = (
            [Connected, Blocked, Blocked],
            [Connected, Connected, Blocked],
            [Blocked, Blocked, Blocked],
        );
        for (v4, v6, expected, named) in [
            (good, good, "Enforced", "egress IPv6"),
            (good, bad, "NotEnforced", "(ingress IPv6)"),
            (broken, bad, "NotEnforced", "(ingress IPv6)"),
            (good, broken, "Unknown", "(ingress IPv6, egress IPv6)"),
        ] {
            let report = report(vec![sample("10.0.0.1", v4), sample("2001:db8::1", v6)]);
            assert_eq!(report.result.as_str(), expected, "{v4:?} {v6:?}");
            assert!(report.message.contains(named), "{}", report.message);
        }
    }

    #[test]
    fn without_an_address_nothing_is_known() {
        assert_eq!(report(vec![]).result, Enforcement::Unknown);
    }

    #[test]
    fn the_table_shows_both_attempts_of_each_direction() {
        let report = report(vec![sample("10.0.0.1", [Connected, Blocked, Connected])]);
        assert_eq!(
            report.table(),
            "DIRECTION  FAMILY  ALLOWED       DENIED        RESULT\n\
             ingress    IPv4    connected     blocked       Enforced\n\
             egress     IPv4    connected     connected     NotEnforced\n\
             the server ran on node a, the client on node b\n\
             last attempts 5 ms after the client's start\n"
        );
    }
}
