//! The configuration file, and what the cluster itself tells at start-up.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Deserialize;

use crate::resources::Settings;
use crate::resources::pod::AgentDelivery;

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Namespaces that are watched; none named: all.
    pub watch_namespaces: Vec<String>,
    /// Reconciles at once.
    pub concurrency: Option<u16>,
    /// What shapes the sandboxes.
    pub sandboxes: Settings,
}

/// The API server's own addresses are not known, so sandboxes could reach it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the API server's addresses cannot be discovered: allow endpointslices to be listed in namespace default, or name them in sandboxes.network.never"
)]
pub struct Unprotected(#[source] Box<kube::Error>);

/// Adds to the address lists what the API server knows: its own addresses to `never`, Service and pod ranges to `not_by_default`.
/// What may not be read (an installation with namespaced rights only) must be configured; the log says what is missing.
pub async fn discover_addresses(client: &Client, settings: &mut Settings) -> Result<(), Unprotected> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let of_api_server = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    match slices.list(&of_api_server).await {
        Ok(list) => {
            let hosts = list.items.iter().flat_map(|s| s.endpoints.iter().flatten()).flat_map(|e| &e.addresses);
            settings
                .network
                .never
                .extend(hosts.filter_map(|a| a.parse().ok()).map(|ip: std::net::IpAddr| IpNet::from(ip)));
        }
        Err(error) if settings.network.never.is_empty() => return Err(Unprotected(Box::new(error))),
        Err(error) => tracing::info!(%error, "API server's addresses not discovered: sandboxes.network.never must have them"),
    }
    match Api::<ServiceCIDR>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => {
            let ranges = list.items.iter().filter_map(|c| c.spec.as_ref()).flat_map(|s| s.cidrs.iter().flatten());
            settings.network.not_by_default.extend(ranges.filter_map(|c| c.parse::<IpNet>().ok()));
        }
        Err(error) => {
            tracing::warn!(%error, "Service ranges not discovered: configure sandboxes.network.notByDefault if they are public addresses")
        }
    }
    match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => {
            let ranges = list
                .items
                .iter()
                .filter_map(|n| n.spec.as_ref())
                .flat_map(|s| s.pod_cidrs.iter().flatten());
            settings.network.not_by_default.extend(ranges.filter_map(|c| c.parse::<IpNet>().ok()));
        }
        Err(error) => {
            tracing::warn!(%error, "pod ranges not discovered: configure sandboxes.network.notByDefault if they are public addresses")
        }
    }
    Ok(())
}

/// How the agent gets into pods of this cluster.
pub async fn agent_by(client: &Client, settings: &Settings) -> AgentDelivery {
    let can = match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(list) => !list.items.is_empty() && list.items.iter().filter(|n| !is_fake(n)).all(mounts_images),
        Err(error) => {
            tracing::info!(%error, "nodes cannot be read: without sandboxes.agent.delivery the agent comes by init container");
            false
        }
    };
    AgentDelivery::resolve(settings.agent.delivery, can)
}

/// A node without a container runtime, as load generators make them, cannot tell what it can do.
fn is_fake(node: &Node) -> bool {
    node.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kwok.x-k8s.io/node"))
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
