//! Prometheus metrics. No label names an object: the number of series does not grow with the number of sandboxes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::usage::Process;
use crate::telemetry::{self, Labels, seconds};

/// All metrics of the operator.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<Labels, Histogram>,
    errors: Family<Labels, Counter>,
    requests: Family<Labels, Histogram>,
    time_to_running: Histogram,
    /// Reconciles under way.
    pub in_flight: Gauge,
    /// Triggers that wait.
    pub queue_depth: Gauge,
    /// Events that were not published, since too many were.
    pub events_dropped: Counter,
    /// 1 while this replica leads.
    pub lease_held: Gauge,
    cached: Family<Labels, Gauge>,
    watch_errors: Family<Labels, Counter>,
    unreadable: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("sandbox_operator");
        let mut m = Metrics {
            registry: Arc::default(),
            reconciles: Family::new_with_constructor(seconds),
            errors: Family::default(),
            requests: Family::new_with_constructor(seconds),
            time_to_running: Histogram::new(exponential_buckets(0.01, 2.0, 16)),
            in_flight: Gauge::default(),
            queue_depth: Gauge::default(),
            events_dropped: Counter::default(),
            lease_held: Gauge::default(),
            cached: Family::default(),
            watch_errors: Family::default(),
            unreadable: Family::default(),
        };
        registry.register(
            "reconcile_duration_seconds",
            "Time of one reconcile, by kind and outcome",
            m.reconciles.clone(),
        );
        registry.register("reconcile_errors", "Failed reconciles, by kind and reason", m.errors.clone());
        registry.register(
            "api_request_seconds",
            "Calls to the API server, by verb, kind and code",
            m.requests.clone(),
        );
        registry.register(
            "time_to_running_seconds",
            "From a sandbox's creation to RUNNING",
            m.time_to_running.clone(),
        );
        registry.register("in_flight", "Reconciles under way", m.in_flight.clone());
        registry.register("queue_depth", "Triggers that wait", m.queue_depth.clone());
        registry.register("events_dropped", "Events that were not published", m.events_dropped.clone());
        registry.register("lease_held", "1 while this replica leads", m.lease_held.clone());
        registry.register("cache_objects", "Objects in the caches, by kind", m.cached.clone());
        registry.register("watch_errors", "Broken watches, by kind", m.watch_errors.clone());
        registry.register(
            "unreadable",
            "Times that an object was not understood and passed over, by kind",
            m.unreadable.clone(),
        );
        m.registry = Arc::new(root);
        m
    }
}

impl Metrics {
    /// One reconcile has ended; `error` is its reason in one word.
    pub fn reconciled(&self, kind: &'static str, took: Duration, error: Option<&'static str>) {
        let outcome = if error.is_some() { "error" } else { "ok" };
        self.reconciles
            .get_or_create(&vec![("kind", kind.into()), ("outcome", outcome.into())])
            .observe(took.as_secs_f64());
        if let Some(reason) = error {
            self.errors.get_or_create(&vec![("kind", kind.into()), ("reason", reason.into())]).inc();
        }
    }

    /// One call to the API server has ended.
    pub fn api_request(&self, verb: &'static str, kind: &'static str, code: u16, took: Duration) {
        let labels = vec![("verb", verb.into()), ("kind", kind.into()), ("code", code.to_string())];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A sandbox is RUNNING, this long after it was created.
    pub fn running_after(&self, took: Duration) {
        self.time_to_running.observe(took.as_secs_f64());
    }

    /// The size of a cache, over all scopes.
    pub fn cached(&self, kind: &'static str, objects: usize) {
        self.cached
            .get_or_create(&vec![("kind", kind.into())])
            .set(i64::try_from(objects).unwrap_or(i64::MAX));
    }

    /// A watch broke; it is begun anew.
    pub fn watch_error(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&vec![("kind", kind.into())]).inc();
    }

    /// An object was not understood.
    pub fn unreadable(&self, kind: &str) {
        self.unreadable.get_or_create(&vec![("kind", kind.into())]).inc();
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        telemetry::metrics_text(&self.registry)
    }
}
