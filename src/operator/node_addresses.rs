//! The addresses of the nodes, which no sandbox may reach, and the pod ranges that they announce. Nodes are watched:
//! the addresses of a new node apply to sandboxes that start afterwards. Policies of running sandboxes are not updated:
//! that would be a write per sandbox for every node that an autoscaler adds.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::discovery::Discovered;
use crate::kube::{ApiClient, readable};
use crate::resources::addresses::{Lists, covering};
use crate::resources::settings::NetworkSettings;

/// The fields of a node that are read here: a whole node has tens of kilobytes.
#[derive(Clone, Debug, Serialize, Deserialize, Resource)]
#[resource(inherit = Node)]
struct NodeNetwork {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Vec<Address>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Address {
    address: String,
}

/// The addresses and the pod ranges of one node.
#[derive(Debug, Default, PartialEq)]
struct Network {
    addresses: Vec<IpAddr>,
    pods: Vec<IpNet>,
}

impl From<&NodeNetwork> for Network {
    fn from(node: &NodeNetwork) -> Network {
        Network {
            // Some of them are host names.
            addresses: node
                .status
                .addresses
                .iter()
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            pods: node.spec.pod_cidrs.iter().filter_map(|c| c.parse().ok()).collect(),
        }
    }
}

/// The address lists of new sandboxes.
pub(super) struct NodeAddresses {
    network: NetworkSettings,
    discovered: Discovered,
    nodes: BTreeMap<String, Network>,
    /// The nodes of a list that is being received.
    listed: BTreeMap<String, Network>,
    lists: watch::Sender<Lists>,
    /// Cancelled when the lists are complete.
    complete: CancellationToken,
}

impl NodeAddresses {
    /// Starts from the discovered addresses. The lists are complete at once if nodes cannot be read, else after the
    /// first list of nodes.
    pub(super) fn new(network: NetworkSettings, discovered: Discovered) -> NodeAddresses {
        let this = NodeAddresses {
            network,
            discovered,
            nodes: BTreeMap::new(),
            listed: BTreeMap::new(),
            lists: watch::Sender::default(),
            complete: CancellationToken::new(),
        };
        this.publish();
        if !this.discovered.can_read_nodes {
            this.complete.cancel();
        }
        this
    }

    /// The lists.
    pub(super) fn lists(&self) -> watch::Receiver<Lists> {
        self.lists.subscribe()
    }

    /// Cancelled when the lists are complete. No policy is built before that.
    pub(super) fn complete(&self) -> CancellationToken {
        self.complete.clone()
    }

    /// Watches the nodes until the end of the process.
    pub(super) async fn run(mut self, client: ApiClient) {
        if !self.discovered.can_read_nodes {
            return std::future::pending().await;
        }
        let handle = |event| {
            if let Some(event) = readable::<NodeNetwork>(event, |_| {}) {
                self.apply(&event);
            }
        };
        client.watch_cluster_scoped::<NodeNetwork>("", handle).await;
    }

    fn apply(&mut self, event: &Event<NodeNetwork>) {
        let changed = match event {
            Event::Init => {
                self.listed.clear();
                false
            }
            Event::InitApply(node) => {
                self.listed.insert(node.name_any(), node.into());
                false
            }
            Event::InitDone => {
                self.nodes = std::mem::take(&mut self.listed);
                true
            }
            Event::Apply(node) => {
                let network = Network::from(node);
                let is_new = self.nodes.get(&node.name_any()) != Some(&network);
                self.nodes.insert(node.name_any(), network);
                is_new
            }
            Event::Delete(node) => self.nodes.remove(&node.name_any()).is_some(),
        };
        if changed {
            self.publish();
        }
        if matches!(event, Event::InitDone) {
            self.complete.cancel();
        }
    }

    fn publish(&self) {
        let addresses: Vec<IpAddr> = self.nodes.values().flat_map(|n| &n.addresses).copied().collect();
        let nodes = covering(addresses.iter().copied());
        let pods: Vec<IpNet> = self.nodes.values().flat_map(|n| &n.pods).copied().collect();
        let never = [&self.discovered.api_server[..], &nodes].concat();
        let lists = self
            .network
            .lists(&never, &[&self.discovered.services[..], &pods].concat());
        tracing::debug!(
            nodes = self.nodes.len(),
            addresses = addresses.len(),
            ranges = nodes.len(),
            "address lists"
        );
        self.lists.send_if_modified(|current| {
            let changed = *current != lists;
            *current = lists;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, addresses: &[&str]) -> NodeNetwork {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|a| json!({"type": "InternalIP", "address": a}))
            .collect();
        let object = json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["198.51.100.0/24"]}, "status": {"addresses": addresses}});
        serde_json::from_value(object).unwrap()
    }

    fn nodes(can_read_nodes: bool) -> NodeAddresses {
        let api_server = vec!["192.0.2.10/32".parse().unwrap()];
        let discovered = Discovered {
            api_server,
            services: vec!["203.0.113.0/24".parse().unwrap()],
            can_read_nodes,
        };
        NodeAddresses::new(NetworkSettings::default(), discovered)
    }

    fn never(lists: &watch::Receiver<Lists>, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        lists.borrow().never.iter().any(|net| net.contains(&address))
    }

    #[test]
    fn a_node_that_joins_counts_and_one_that_leaves_does_not() {
        let mut nodes = nodes(true);
        let lists = nodes.lists();
        nodes.apply(&Event::Init);
        nodes.apply(&Event::InitApply(node(
            "a",
            &["192.0.2.1", "2001:db8::1", "a.example.com"],
        )));
        assert!(!nodes.complete().is_cancelled());
        nodes.apply(&Event::InitDone);
        assert!(nodes.complete().is_cancelled());
        assert!(never(&lists, "192.0.2.1") && never(&lists, "2001:db8::1") && never(&lists, "192.0.2.10"));
        assert!(never(&lists, "64:ff9b::c000:201"), "translated");
        assert!(!never(&lists, "192.0.2.2"));
        nodes.apply(&Event::Apply(node("b", &["192.0.2.2"])));
        assert!(never(&lists, "192.0.2.1") && never(&lists, "192.0.2.2"));
        nodes.apply(&Event::Delete(node("a", &[])));
        assert!(!never(&lists, "192.0.2.1") && never(&lists, "192.0.2.2"));
        let not_by_default = lists.borrow().not_by_default.clone();
        for range in ["198.51.100.0/24", "203.0.113.0/24"] {
            assert!(not_by_default.contains(&range.parse().unwrap()), "{range}");
        }
    }

    #[test]
    fn without_the_right_to_read_nodes_the_configured_lists_hold_at_once() {
        let nodes = nodes(false);
        assert!(nodes.complete().is_cancelled() && never(&nodes.lists(), "192.0.2.10"));
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let mut nodes = nodes(true);
        let mut lists = nodes.lists();
        nodes.apply(&Event::InitDone);
        nodes.apply(&Event::Apply(node("a", &["192.0.2.1"])));
        lists.mark_unchanged();
        nodes.apply(&Event::Apply(node("a", &["192.0.2.1"])));
        assert!(!lists.has_changed().unwrap());
    }
}
