//! The gateway's client of the API server. Callers convert its errors by [`of_kube`](crate::gateway::error::of_kube).

use kube::Client;
use std::time::Duration;

use crate::gateway::metrics::Metrics;
use crate::kube::ApiClient;

/// Longest wait for a response, including the wait for a permit.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Concurrent requests, and about as many connections.
const MAX_IN_FLIGHT: usize = 256;
/// Those of one tenant.
const MAX_IN_FLIGHT_PER_NAMESPACE: usize = 32;

/// `client` with the gateway's limits and metrics.
pub fn api_client(client: Client, metrics: &Metrics) -> ApiClient {
    ApiClient::new(client, metrics.api.clone())
        .with_timeout(TIMEOUT)
        .with_max_in_flight(MAX_IN_FLIGHT)
        .with_share_per_namespace(MAX_IN_FLIGHT_PER_NAMESPACE)
}
