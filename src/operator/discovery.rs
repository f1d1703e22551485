//! What the cluster itself reports at start-up.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use std::net::IpAddr;
use std::time::Duration;

use crate::kube::{ApiClient, ClusterScoped};
use crate::resources::AgentDelivery;
use crate::resources::Settings;

/// Pause before a call is repeated while the API server does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The API server's own addresses are unknown, so sandboxes could reach it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot discover the API server's addresses: allow endpointslices to be listed in namespace default, or list them in sandboxes.network.never"
)]
pub struct Unprotected(#[source] Box<kube::Error>);

/// Adds to the address lists what the API server knows: its own addresses to `never`, Service and pod ranges to
/// `not_by_default`. What may not be read, as in an installation with namespaced rights only, must be configured; the
/// log names it.
pub(super) async fn addresses(client: &ApiClient, settings: &mut Settings) -> Result<(), Unprotected> {
    let of_api_server = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    match answered(|| client.list::<EndpointSlice>("default", &of_api_server)).await {
        Ok(list) => {
            let hosts = list
                .items
                .iter()
                .flat_map(|s| s.endpoints.iter().flatten())
                .flat_map(|e| &e.addresses);
            settings
                .network
                .never
                .extend(hosts.filter_map(|a| a.parse::<IpAddr>().ok()).map(IpNet::from));
        }
        Err(error) if settings.network.never.is_empty() => return Err(Unprotected(Box::new(error))),
        Err(error) => {
            tracing::info!(%error, "cannot discover the API server's addresses: sandboxes.network.never must contain them")
        }
    }
    match list::<ServiceCIDR>(client).await {
        Ok(cidrs) => {
            let ranges = cidrs
                .iter()
                .filter_map(|c| c.spec.as_ref())
                .flat_map(|s| s.cidrs.iter().flatten());
            settings
                .network
                .not_by_default
                .extend(ranges.filter_map(|c| c.parse::<IpNet>().ok()));
        }
        Err(error) => {
            tracing::warn!(%error, "cannot discover the Service ranges: add them to sandboxes.network.notByDefault if they are public addresses")
        }
    }
    match list::<Node>(client).await {
        Ok(nodes) => {
            let ranges = nodes
                .iter()
                .filter_map(|n| n.spec.as_ref())
                .flat_map(|s| s.pod_cidrs.iter().flatten());
            settings
                .network
                .not_by_default
                .extend(ranges.filter_map(|c| c.parse::<IpNet>().ok()));
        }
        Err(error) => {
            tracing::warn!(%error, "cannot discover the pod ranges: add them to sandboxes.network.notByDefault if they are public addresses")
        }
    }
    Ok(())
}

/// How the agent is delivered to the pods of this cluster.
pub(super) async fn agent_delivery(client: &ApiClient, settings: &Settings) -> AgentDelivery {
    let can_mount_images = match list::<Node>(client).await {
        Ok(nodes) => !nodes.is_empty() && nodes.iter().filter(|n| !is_fake(n)).all(mounts_images),
        Err(error) => {
            tracing::info!(%error, "cannot list the nodes: the agent is copied by an init container unless sandboxes.agent.delivery is set");
            false
        }
    };
    AgentDelivery::resolve(settings.agent.delivery, can_mount_images)
}

async fn list<K: ClusterScoped>(client: &ApiClient) -> kube::Result<Vec<K>> {
    let everything = ListParams::default();
    Ok(answered(|| client.list_cluster_scoped(&everything)).await?.items)
}

/// Repeats a call until the API server answers: an exit would only count into the restart backoff of the container. A
/// refusal is an answer.
async fn answered<T, F: Future<Output = kube::Result<T>>>(call: impl Fn() -> F) -> kube::Result<T> {
    loop {
        match call().await {
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                return Err(kube::Error::Api(status));
            }
            Err(error) => tracing::warn!(error = crate::telemetry::chain(&error), "waiting for the API server"),
            Ok(answer) => return Ok(answer),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// A node without a container runtime, as load generators make them, cannot tell what it can do.
fn is_fake(node: &Node) -> bool {
    node.metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key("kwok.x-k8s.io/node"))
}

/// Kubelet ≥ 1.35 (where image volumes are on by default) with containerd ≥ 2.1 or CRI-O.
fn mounts_images(node: &Node) -> bool {
    let Some(info) = node.status.as_ref().and_then(|s| s.node_info.as_ref()) else {
        return false;
    };
    let version = |text: &str| {
        let mut parts = text
            .trim_start_matches('v')
            .split(['.', '-', '+'])
            .map(|p| p.parse::<u32>().unwrap_or_default());
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    };
    let runtime = match info.container_runtime_version.split_once("://") {
        Some(("containerd", v)) => version(v) >= (2, 1),
        Some(("cri-o", v)) => version(v) >= (1, 33),
        _ => false,
    };
    version(&info.kubelet_version) >= (1, 35) && runtime
}
