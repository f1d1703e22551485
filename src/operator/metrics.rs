//! Prometheus metrics. No label names an object: the number of series does not grow with the number of sandboxes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

use crate::kube::ApiMetrics;
use crate::network_check::{Enforcement, Report};
use crate::telemetry::usage::Process;
use crate::telemetry::{self, Labels, seconds};

/// All metrics of the operator.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    /// Metrics of the client of the API server.
    pub(crate) api: ApiMetrics,
    reconciles: Family<Labels, Histogram>,
    errors: Family<Labels, Counter>,
    time_to_running: Histogram,
    in_flight: Gauge,
    queue_depth: Family<Labels, Gauge>,
    /// Events that were dropped because too many waited.
    pub(crate) events_dropped: Counter,
    /// 1 while this replica leads.
    pub(crate) lease_held: Gauge,
    cached: Family<Labels, Gauge>,
    network_enforcement: Family<Labels, Gauge>,
    network_enforced: Family<Labels, Gauge>,
    network_checks: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("sandbox_operator");
        let mut m = Metrics {
            registry: Arc::default(),
            api: ApiMetrics::register(registry),
            reconciles: Family::new_with_constructor(seconds),
            errors: Family::default(),
            time_to_running: Histogram::new(exponential_buckets(0.01, 2.0, 16)),
            in_flight: Gauge::default(),
            queue_depth: Family::default(),
            events_dropped: Counter::default(),
            lease_held: Gauge::default(),
            cached: Family::default(),
            network_enforcement: Family::default(),
            network_enforced: Family::default(),
            network_checks: Family::default(),
        };
        registry.register(
            "reconcile_duration_seconds",
            "Time of one reconcile, by kind and outcome",
            m.reconciles.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciles, by kind and reason",
            m.errors.clone(),
        );
        registry.register(
            "time_to_running_seconds",
            "From a sandbox's creation to RUNNING",
            m.time_to_running.clone(),
        );
        registry.register("in_flight", "Reconciles under way", m.in_flight.clone());
        registry.register("queue_depth", "Triggers that wait, by kind", m.queue_depth.clone());
        registry.register(
            "events_dropped",
            "Events that were not published",
            m.events_dropped.clone(),
        );
        registry.register("lease_held", "1 while this replica leads", m.lease_held.clone());
        registry.register("cache_objects", "Objects in the caches, by kind", m.cached.clone());
        registry.register(
            "network_enforcement",
            "1 for the result that counts: whether the cluster enforces NetworkPolicy. Only from the leader",
            m.network_enforcement.clone(),
        );
        registry.register(
            "network_enforced",
            "Whether NetworkPolicy is enforced, by direction and IP family; absent where that is not known",
            m.network_enforced.clone(),
        );
        registry.register(
            "network_checks",
            "Checks whether the cluster enforces NetworkPolicy, by result",
            m.network_checks.clone(),
        );
        m.registry = Arc::new(root);
        m
    }
}

/// A reconcile that is under way.
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Counts a reconcile as under way until the returned guard is dropped.
    pub(crate) fn reconcile_started(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// The triggers of one kind that wait.
    pub(crate) fn queue_depth(&self, kind: &'static str) -> Gauge {
        self.queue_depth.get_or_create_owned(&vec![("kind", kind.into())])
    }

    /// A reconcile has ended; `error` is its reason in one word.
    pub(crate) fn reconciled(&self, kind: &'static str, took: Duration, error: Option<&'static str>) {
        let outcome = if error.is_some() { "error" } else { "ok" };
        self.reconciles
            .get_or_create(&vec![("kind", kind.into()), ("outcome", outcome.into())])
            .observe(took.as_secs_f64());
        if let Some(reason) = error {
            self.errors
                .get_or_create(&vec![("kind", kind.into()), ("reason", reason.into())])
                .inc();
        }
    }

    /// A sandbox became RUNNING, this long after its creation.
    pub(crate) fn running_after(&self, took: Duration) {
        self.time_to_running.observe(took.as_secs_f64());
    }

    /// The size of a cache, over all scopes.
    pub(crate) fn cached(&self, kind: &'static str, objects: usize) {
        self.cached
            .get_or_create(&vec![("kind", kind.into())])
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// A check was completed: the report that counts, and the result of the check itself. None when the term as leader
    /// ends.
    pub(crate) fn network(&self, checked: Option<(&Report, Enforcement)>) {
        self.network_enforcement.clear();
        self.network_enforced.clear();
        let Some((report, latest)) = checked else {
            return;
        };
        self.network_checks
            .get_or_create(&vec![("result", latest.as_str().into())])
            .inc();
        for result in Enforcement::ALL {
            self.network_enforcement
                .get_or_create(&vec![("result", result.as_str().into())])
                .set(i64::from(result == report.result));
        }
        for finding in report.findings.iter().filter(|f| f.result != Enforcement::Unknown) {
            let labels = vec![
                ("direction", finding.direction.as_str().into()),
                ("family", finding.family.into()),
            ];
            self.network_enforced
                .get_or_create(&labels)
                .set(i64::from(finding.result == Enforcement::Enforced));
        }
    }

    /// The metrics in the text format of Prometheus.
    pub(crate) fn text(&self) -> String {
        telemetry::metrics_text(&self.registry)
    }
}
