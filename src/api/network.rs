//! The network fields of a sandbox.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Which connections the sandbox may open and accept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Outgoing connections. Default: `mode: Internet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Incoming connections. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// `Cluster`: the sandbox may use the cluster's DNS. `None`: no DNS at all. Default: `Cluster`, but `None` with
    /// `egress.mode: None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// Outgoing connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode == 'Rules' || !has(self.rules) || self.rules.size() == 0").message("network.egress.rules: need mode Rules"))]
pub struct Egress {
    /// `Internet`: public addresses; not the cluster, not private networks, not the cloud's metadata service. `None`:
    /// nothing. `Rules`: exactly what `rules` say; the cloud's metadata service, the API server and the address ranges
    /// that the administrator configured are never reachable.
    #[serde(default)]
    pub mode: EgressMode,
    /// Destinations that are allowed with `mode: Rules`. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub rules: Option<Vec<EgressRule>>,
}

/// What outgoing connections are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EgressMode {
    /// Public addresses.
    #[default]
    Internet,
    /// Nothing.
    None,
    /// Exactly the rules.
    Rules,
}

/// Whether a sandbox can resolve names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum Dns {
    /// By the cluster's DNS.
    Cluster,
    /// Not at all.
    None,
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
#[allow(clippy::upper_case_acronyms)]
pub enum Protocol {
    /// TCP.
    #[default]
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

impl Protocol {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::TCP => "TCP",
            Protocol::UDP => "UDP",
            Protocol::SCTP => "SCTP",
        }
    }
}

/// A destination: one of `internet`, `cidr`, and `podSelector` and/or `namespaceSelector`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.internet), has(self.cidr), has(self.podSelector) || has(self.namespaceSelector)].filter(x, x).size() == 1")
    .message("network.egress.rules[]: give one of internet, cidr, and podSelector and/or namespaceSelector"))]
#[x_kube(validation = rules::except_in_cidr("network.egress.rules[]"))]
pub struct EgressRule {
    /// True: the public addresses that `mode: Internet` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self").message("network.egress.rules[].internet: is true, or left out"))]
    pub internet: Option<bool>,
    /// An address range such as `203.0.113.0/24` or `2001:db8::/32`. Addresses that no sandbox may reach are excluded;
    /// a range that consists only of such addresses is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::range("network.egress.rules[].cidr"))]
    pub cidr: Option<String>,
    /// Ranges inside `cidr` that are not allowed. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = rules::ranges("network.egress.rules[].except[]"))]
    pub except: Option<Vec<String>>,
    /// Pods by their labels, in this namespace unless `namespaceSelector` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Ports; default: all. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub ports: Option<Vec<NetworkPort>>,
}

/// Incoming connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Who may connect, and to which ports. At most 64.
    #[schemars(length(max = 64))]
    pub rules: Vec<IngressRule>,
}

/// A source: either `cidr`, or `podSelector` and/or `namespaceSelector`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_peer("network.ingress.rules[]"))]
#[x_kube(validation = rules::except_in_cidr("network.ingress.rules[]"))]
pub struct IngressRule {
    /// An address range such as `203.0.113.0/24`; `0.0.0.0/0` is every IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = rules::range("network.ingress.rules[].cidr"))]
    pub cidr: Option<String>,
    /// Ranges inside `cidr` that are not allowed. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(validation = rules::ranges("network.ingress.rules[].except[]"))]
    pub except: Option<Vec<String>>,
    /// Pods by their labels, in this namespace unless `namespaceSelector` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Ports of the sandbox that may be connected to. At least one, at most 32; the agent's port is never among them.
    #[schemars(length(min = 1, max = 32))]
    pub ports: Vec<NetworkPort>,
}

/// A port or a range of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message("ports[].endPort: must not be below port"))]
pub struct NetworkPort {
    /// Port number, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// Last port of a range that begins with `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub end_port: Option<i32>,
    /// `TCP` (the default), `UDP` or `SCTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}
