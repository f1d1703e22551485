//! Prometheus metrics. No label names a caller or an object: the number of series does not grow with theirs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

use crate::kube::ApiMetrics;
use crate::telemetry::usage::Process;
use crate::telemetry::{self, Labels};

/// All metrics of the gateway.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Metrics of the client of the API server.
    pub api: ApiMetrics,
    calls: Family<Labels, Histogram>,
    in_flight: Family<Labels, Gauge>,
    cached: Gauge,
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections that were refused: too many of their address on which nobody was let in.
    pub connections_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("sandbox_gateway");
        let mut m = Metrics {
            registry: Arc::default(),
            api: ApiMetrics::register(registry),
            calls: Family::new_with_constructor(telemetry::seconds),
            in_flight: Family::default(),
            cached: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
        };
        registry.register(
            "rpc_seconds",
            "Calls from their headers to the end of the answer, by method and code",
            m.calls.clone(),
        );
        registry.register("rpc_in_flight", "Calls under way, by method", m.in_flight.clone());
        registry.register("cached_sandboxes", "Sandboxes in the cache", m.cached.clone());
        registry.register("connections", "Open connections", m.connections.clone());
        registry.register(
            "connections_refused",
            "Connections refused, since their address had many on which nobody was let in",
            m.connections_refused.clone(),
        );
        m.registry = Arc::new(root);
        m
    }
}

impl Metrics {
    /// A call has begun.
    pub fn began(&self, method: &'static str) {
        self.in_flight.get_or_create(&vec![("method", method.into())]).inc();
    }

    /// A call has ended.
    pub fn ended(&self, method: &'static str, code: &'static str, took: Duration) {
        self.in_flight.get_or_create(&vec![("method", method.into())]).dec();
        let labels = vec![("method", method.into()), ("code", code.into())];
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// The text that Prometheus reads, with the size of the cache.
    pub fn text(&self, cached: usize) -> String {
        self.cached.set(i64::try_from(cached).unwrap_or(i64::MAX));
        telemetry::metrics_text(&self.registry)
    }
}
