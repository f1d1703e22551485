//! Publishes the result: log, metrics, an event, and a ConfigMap that `kubectl` can read.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

use super::knowledge::Knowledge;
use super::network_status::NetworkStatus;
use crate::api::reason;
use crate::kube::ApiClient;
use crate::network_check::{Enforcement, Report};
use crate::operator::apply::Writer;
use crate::operator::events::Events;
use crate::operator::metrics::Metrics;
use crate::telemetry::chain;

const RESULT: &str = "result";
const MESSAGE: &str = "message";
const PROVEN_AT: &str = "provenAt";

/// Where the result is published.
pub(super) struct Publisher {
    writer: Writer,
    status: NetworkStatus,
    events: Events,
    metrics: Metrics,
    /// Namespace and name.
    config_map: (String, String),
}

impl Publisher {
    pub(super) fn new(
        client: &ApiClient,
        status: NetworkStatus,
        events: Events,
        metrics: Metrics,
        (namespace, name): (&str, &str),
    ) -> Publisher {
        Publisher {
            writer: Writer::new(client.clone()),
            status,
            events,
            metrics,
            config_map: (namespace.into(), name.into()),
        }
    }

    /// A valid proof that an earlier leader published, so that a change of leader does not delay sandboxes.
    pub(super) async fn last_known(&self) -> Option<Knowledge> {
        let (namespace, name) = &self.config_map;
        let found = match self.writer.get("ConfigMap", namespace, name).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read the last network check");
                None
            }
        };
        let knowledge = read(&found?, Timestamp::now())?;
        if let Some(report) = knowledge.report() {
            self.status.set(Some((report.result, &report.message)));
        }
        Some(knowledge)
    }

    /// `latest` is the report of the last check, `before` the current result before it.
    pub(super) async fn publish(&self, latest: &Report, knowledge: &Knowledge, before: Option<Enforcement>) {
        let Some(report) = knowledge.report() else {
            return;
        };
        self.status.set(Some((report.result, &report.message)));
        self.metrics.network(Some((report, latest.result)));
        let config_map = self.write(latest, knowledge).await;
        let (why, message) = match latest.result {
            Enforcement::Enforced => {
                if before != Some(Enforcement::Enforced) {
                    tracing::info!("{}", latest.message);
                    self.events
                        .normal(&config_map, reason::NETWORK_ENFORCED, &latest.message);
                }
                return;
            }
            Enforcement::NotEnforced => (reason::NETWORK_NOT_ENFORCED, &latest.message),
            Enforcement::Unknown => (reason::NETWORK_ENFORCEMENT_UNKNOWN, &latest.message),
        };
        tracing::warn!("{message}");
        self.events.warn(&config_map, why, message);
    }

    /// Resets the result to unknown.
    pub(super) fn forget(&self) {
        self.status.set(None);
        self.metrics.network(None);
    }

    async fn write(&self, latest: &Report, knowledge: &Knowledge) -> ConfigMap {
        let (namespace, name) = &self.config_map;
        let data = data(latest, knowledge, Timestamp::now());
        match self.writer.config_map(namespace, name, &data).await {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot write the result of the network check");
                let metadata = ObjectMeta {
                    namespace: Some(namespace.clone()),
                    name: Some(name.clone()),
                    ..ObjectMeta::default()
                };
                ConfigMap {
                    metadata,
                    ..ConfigMap::default()
                }
            }
        }
    }
}

/// The ConfigMap's data. It always contains every key, because a merge patch keeps the keys that it does not name.
fn data(latest: &Report, knowledge: &Knowledge, now: Timestamp) -> BTreeMap<&'static str, String> {
    let report = knowledge.report().unwrap_or(latest);
    let second = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap_or(at).to_string();
    BTreeMap::from([
        (RESULT, report.result.as_str().to_owned()),
        (MESSAGE, report.message.clone()),
        (PROVEN_AT, knowledge.proven_at().map(second).unwrap_or_default()),
        ("checkedAt", second(now)),
        ("lastCheck", format!("{}\n{}", latest.message, latest.table())),
    ])
}

/// The proof in a ConfigMap, if there is one and it is still valid.
pub(super) fn read(config_map: &ConfigMap, now: Timestamp) -> Option<Knowledge> {
    let value = |key: &str| config_map.data.as_ref()?.get(key).map(String::as_str);
    if value(RESULT) != Some(Enforcement::Enforced.as_str()) {
        return None;
    }
    let report = Report {
        result: Enforcement::Enforced,
        message: value(MESSAGE)?.into(),
        ..Report::unknown("")
    };
    Knowledge::proven(report, value(PROVEN_AT)?.parse().ok()?, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn published(checks: &[(i64, Enforcement)]) -> ConfigMap {
        let (mut knowledge, mut latest, mut now) = (Knowledge::default(), Report::unknown(""), at(0));
        for (second, result) in checks {
            (latest, now) = (
                Report {
                    result: *result,
                    ..Report::unknown("no room")
                },
                at(*second),
            );
            knowledge.learn(latest.clone(), now);
        }
        let data = data(&latest, &knowledge, now);
        let data = data.into_iter().map(|(key, value)| (key.into(), value)).collect();
        ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        }
    }

    #[test]
    fn the_next_leader_reads_a_proof_and_nothing_else() {
        use Enforcement::{Enforced, NotEnforced, Unknown};
        for (checks, now, proven) in [
            (vec![(0, Enforced)], 60, true),
            (vec![(0, Enforced), (60, Unknown)], 120, true),
            (vec![(0, Enforced), (60, Unknown)], 7300, false),
            (vec![(0, Enforced), (60, NotEnforced)], 120, false),
            (vec![(0, Unknown)], 60, false),
        ] {
            let known = read(&published(&checks), at(now));
            assert_eq!(known.is_some(), proven, "{checks:?} at {now}");
        }
        assert_eq!(read(&ConfigMap::default(), at(0)), None, "as the chart creates it");
    }

    #[test]
    fn what_was_found_last_is_published_beside_what_counts() {
        let data = published(&[(0, Enforcement::Enforced), (60, Enforcement::Unknown)])
            .data
            .unwrap();
        assert_eq!(
            (data["result"].as_str(), data["checkedAt"].as_str()),
            ("Enforced", "1970-01-01T00:01:00Z")
        );
        assert!(data["lastCheck"].contains("no room"), "{data:?}");
    }
}
