//! What the cluster itself reports at start-up.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use std::net::IpAddr;
use std::time::Duration;

use crate::kube::{ApiClient, ClusterScoped};
use crate::resources::AgentDelivery;
use crate::resources::Settings;
use crate::resources::settings::NetworkSettings;

/// Pause before a call is repeated while the API server does not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The API server's own addresses are unknown, so sandboxes could reach it.
#[derive(Debug, thiserror::Error)]
pub enum Unprotected {
    /// The operator may not read them.
    #[error(
        "cannot discover the API server's addresses: allow endpointslices to be listed and services to be read in namespace default, or list them in sandboxes.network.apiServer"
    )]
    Unreadable(#[source] Box<kube::Error>),
    /// There are none.
    #[error(
        "cannot discover the API server's addresses: no EndpointSlice of the Service kubernetes in namespace default has any; list them in sandboxes.network.apiServer"
    )]
    None,
}

/// The addresses that the cluster reports.
#[derive(Default)]
pub(super) struct Discovered {
    /// Of the API server.
    pub api_server: Vec<IpNet>,
    /// Of Services.
    pub services: Vec<IpNet>,
    /// Whether nodes can be read. Without that right, as in an installation with only namespaced rights, their
    /// addresses must be configured.
    pub can_read_nodes: bool,
}

/// Reads the addresses of the API server, and the ranges of Services. Those that cannot be read must be configured; the
/// log names them.
pub(super) async fn addresses(client: &ApiClient, network: &NetworkSettings) -> Result<Discovered, Unprotected> {
    let is_configured = !network.never.is_empty() || !network.api_server.is_empty();
    let api_server = match api_server(client).await {
        Ok(addresses) => addresses,
        Err(unprotected) if !is_configured => return Err(unprotected),
        Err(unprotected) => {
            tracing::warn!(
                error = crate::telemetry::chain(&unprotected),
                "sandboxes.network.apiServer must contain the API server's addresses"
            );
            vec![]
        }
    };
    let everything = ListParams::default();
    let services = match answered(|| client.list_cluster_scoped::<ServiceCIDR>(&everything)).await {
        Ok(cidrs) => cidrs
            .items
            .iter()
            .filter_map(|c| c.spec.as_ref())
            .flat_map(|s| s.cidrs.iter().flatten())
            .filter_map(|c| c.parse().ok())
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot discover the Service ranges: add them to sandboxes.network.notByDefault if they are public addresses");
            vec![]
        }
    };
    let one = ListParams::default().limit(1);
    let can_read_nodes = match answered(|| client.list_cluster_scoped::<Node>(&one)).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "cannot read nodes: add their addresses to sandboxes.network.never, and the pod ranges to sandboxes.network.notByDefault if they are public addresses");
            false
        }
    };
    Ok(Discovered {
        api_server,
        services,
        can_read_nodes,
    })
}

/// The addresses of the API server: its endpoints and its Service. Without an endpoint this fails: an EndpointSlice may
/// be empty while an API server restarts.
async fn api_server(client: &ApiClient) -> Result<Vec<IpNet>, Unprotected> {
    let unreadable = |error| Unprotected::Unreadable(Box::new(error));
    let of_api_server = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let slices = answered(|| client.list::<EndpointSlice>("default", &of_api_server));
    let slices = slices.await.map_err(unreadable)?.items;
    let service = answered(|| client.get::<Service>("default", "kubernetes"))
        .await
        .map_err(unreadable)?;
    let behind = ranges(
        slices
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .flat_map(|e| &e.addresses),
    );
    if behind.is_empty() {
        return Err(Unprotected::None);
    }
    let spec = service.and_then(|s| s.spec).unwrap_or_default();
    let own = ranges(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip));
    Ok([behind, own].concat())
}

fn ranges<'a>(addresses: impl Iterator<Item = &'a String>) -> Vec<IpNet> {
    addresses
        .filter_map(|a| a.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect()
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
