//! Resource usage of the gateway's replicas.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::fixture::Failure;
use crate::metrics::series;
use crate::usage::{self, Usage};

/// Port of the metrics.
const ADMIN: u16 = 8081;

/// All replicas.
pub struct Gateway {
    client: Client,
    namespace: String,
    pods: Vec<String>,
}

/// Usage and load of all replicas together.
#[derive(Clone, Copy, Default)]
pub struct State {
    /// Memory and processor time.
    pub usage: Usage,
    /// Requests to the API server.
    pub api_requests: f64,
    /// Open StreamExec calls.
    pub streams: f64,
    /// Open connections.
    pub connections: f64,
}

impl Gateway {
    /// Finds the replicas, except those that are being deleted.
    pub async fn find(client: &Client, namespace: &str) -> Result<Gateway, Failure> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let found = pods
            .list_metadata(&ListParams::default().labels("app.kubernetes.io/component=gateway"))
            .await?;
        let running = found
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let pods: Vec<String> = running.map(|pod| pod.name_any()).collect();
        if pods.is_empty() {
            return Err(format!("no gateway in namespace {namespace}").into());
        }
        Ok(Gateway {
            client: client.clone(),
            namespace: namespace.into(),
            pods,
        })
    }

    /// The sums over all replicas.
    pub async fn state(&self) -> Result<State, Failure> {
        let mut all = State::default();
        for pod in &self.pods {
            let metrics = usage::metrics(&self.client, &self.namespace, pod, ADMIN).await?;
            let sum = |name, label| -> f64 {
                series(&metrics, name)
                    .filter(|(l, _)| l.contains(label))
                    .map(|(_, v)| v)
                    .sum()
            };
            let usage = Usage::of(&metrics)?;
            all.usage.resident += usage.resident;
            all.usage.cpu += usage.cpu;
            all.api_requests += sum("sandbox_gateway_api_request_seconds_count", "");
            all.streams += sum("sandbox_gateway_rpc_in_flight", "StreamExec");
            all.connections += sum("sandbox_gateway_connections", "");
        }
        Ok(all)
    }
}
