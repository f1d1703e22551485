//! Runs the checks of NetworkPolicy during a term as leader.

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::knowledge::Knowledge;
use super::network_status::NetworkStatus;
use super::publish::Publisher;
use crate::kube::ApiClient;
use crate::network_check::check;
use crate::operator::events::Events;
use crate::operator::metrics::Metrics;
use crate::operator::runtime::jitter;
use crate::resources::probe::ProbeSettings;
use crate::resources::settings::EnforcementMode;

/// Checks whether NetworkPolicy is enforced, and publishes the result.
pub(crate) struct Checker {
    client: ApiClient,
    settings: ProbeSettings,
    status: NetworkStatus,
    publisher: Publisher,
}

/// A term as leader. On drop, the replica's result becomes unknown.
struct Term<'a>(&'a Publisher);

impl Drop for Term<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

impl Checker {
    /// `config_map` is the namespace and the name of the ConfigMap with the result.
    pub(crate) fn new(
        client: ApiClient,
        settings: ProbeSettings,
        mode: EnforcementMode,
        events: Events,
        metrics: Metrics,
        config_map: (&str, &str),
    ) -> Checker {
        let status = NetworkStatus::new(mode);
        Checker {
            publisher: Publisher::new(&client, status.clone(), events, metrics, config_map),
            client,
            settings,
            status,
        }
    }

    /// The result, for reconciles.
    pub(crate) fn status(&self) -> NetworkStatus {
        self.status.clone()
    }

    /// Runs during one term as leader. After `stop`, it deletes the objects of a running check and returns.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        if self.status.view().mode == EnforcementMode::Ignore {
            return stop.cancelled().await;
        }
        let _term = Term(&self.publisher);
        let mut knowledge: Knowledge = self.publisher.last_known().await.unwrap_or_default();
        loop {
            let report = Box::pin(check(&self.client, &self.settings, stop)).await;
            if stop.is_cancelled() {
                return;
            }
            let before = knowledge.report().map(|report| report.result);
            knowledge.learn(report.clone(), Timestamp::now());
            self.publisher.publish(&report, &knowledge, before).await;
            let pause = knowledge.pause().mul_f64(0.9 + 0.2 * jitter());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
