//! Metrics of calls and watches.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

use crate::telemetry::{Labels, seconds};

/// Metrics of calls to the API server and of watches.
#[derive(Clone)]
pub struct ApiMetrics {
    requests: Family<Labels, Histogram>,
    watch_errors: Family<Labels, Counter>,
    unreadable: Family<Labels, Counter>,
}

impl ApiMetrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> ApiMetrics {
        let metrics = ApiMetrics {
            requests: Family::new_with_constructor(seconds),
            watch_errors: Family::default(),
            unreadable: Family::default(),
        };
        registry.register(
            "api_request_seconds",
            "Calls to the API server by verb, kind and HTTP status (0: connection failed, 408: no answer in time)",
            metrics.requests.clone(),
        );
        registry.register("watch_errors", "Failed watches by kind", metrics.watch_errors.clone());
        registry.register(
            "unreadable",
            "Watched objects that were skipped because they could not be deserialized, by kind",
            metrics.unreadable.clone(),
        );
        metrics
    }

    pub(super) fn request(&self, verb: &'static str, kind: &str, code: u16, took: Duration) {
        let labels = vec![("verb", verb.into()), ("kind", kind.into()), ("code", code.to_string())];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(super) fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&vec![("kind", kind.into())]).inc();
    }

    pub(super) fn unreadable(&self, kind: &str) {
        self.unreadable.get_or_create(&vec![("kind", kind.into())]).inc();
    }
}
