//! Prometheus metrics. No label names a caller or an object, so that the number of series is bounded.

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
    rpcs: Family<Labels, Histogram>,
    in_flight: Family<Labels, Gauge>,
    cached_sandboxes: Gauge,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Connections refused because their address had too many.
    pub(crate) connections_refused: Counter,
    /// Lines of refused calls that were not written to the access log.
    pub(crate) access_log_left_out: Counter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut root = Registry::default();
        root.register_collector(Box::new(Process));
        let registry = root.sub_registry_with_prefix("sandbox_gateway");
        let mut m = Metrics {
            registry: Arc::default(),
            api: ApiMetrics::register(registry),
            rpcs: Family::new_with_constructor(telemetry::seconds),
            in_flight: Family::default(),
            cached_sandboxes: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            access_log_left_out: Counter::default(),
        };
        registry.register(
            "rpc_seconds",
            "Duration of RPCs from the request headers to the end of the response, by method and code",
            m.rpcs.clone(),
        );
        registry.register("rpc_in_flight", "RPCs in flight, by method", m.in_flight.clone());
        registry.register("cached_sandboxes", "Sandboxes in the cache", m.cached_sandboxes.clone());
        registry.register("connections", "Open connections", m.connections.clone());
        registry.register(
            "connections_refused",
            "Connections refused because their address had too many",
            m.connections_refused.clone(),
        );
        registry.register(
            "access_log_left_out",
            "Lines of refused calls that the access log left out, since there were too many",
            m.access_log_left_out.clone(),
        );
        m.registry = Arc::new(root);
        m
    }
}

impl Metrics {
    /// An RPC has started.
    pub(crate) fn rpc_started(&self, method: &'static str) {
        self.in_flight.get_or_create(&vec![("method", method.into())]).inc();
    }

    /// An RPC has finished.
    pub(crate) fn rpc_finished(&self, method: &'static str, code: &'static str, duration: Duration) {
        self.in_flight.get_or_create(&vec![("method", method.into())]).dec();
        let labels = vec![("method", method.into()), ("code", code.into())];
        self.rpcs.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// All metrics in the text format of Prometheus. `cached_sandboxes`: the size of the cache.
    pub fn text(&self, cached_sandboxes: usize) -> String {
        self.cached_sandboxes
            .set(i64::try_from(cached_sandboxes).unwrap_or(i64::MAX));
        telemetry::metrics_text(&self.registry)
    }
}
