//! The administrator's settings for all sandboxes: the part of the configuration file that shapes children.

mod constraints;

use ipnet::{IpNet, Ipv6Net};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

pub use self::constraints::{Constraints, EgressConstraints, Pods};
use super::addresses::{Lists, NAT64_PREFIX_LENGTHS};
use crate::api::{Egress, EgressMode, SecurityProfile, Workload, limits};

/// Settings for all sandboxes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The agent, and how pods get it.
    pub agent: Agent,
    /// Values for fields that neither sandbox nor session sets.
    pub defaults: Defaults,
    /// Constraints on the resolved spec of every sandbox.
    pub constraints: Constraints,
    /// Addresses and peers of network policies.
    pub network: NetworkSettings,
    /// How public ports are published outside the cluster.
    pub public_services: PublicServices,
    /// Active sandboxes in a namespace: those that have a pod and have not ended. Further ones wait.
    pub max_active_per_namespace: u32,
}

/// The agent, and how pods get it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agent {
    /// Image that holds the agent: the operator's own.
    pub image: String,
    /// When the kubelet pulls it.
    pub image_pull_policy: String,
    /// How containers get it.
    pub delivery: Delivery,
    /// The one port of a sandbox that gateway and operator may connect to.
    pub port: u16,
    /// RLIMIT_NPROC of sandboxes with a user namespace.
    pub max_processes: u64,
}

/// How containers get the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Delivery {
    /// By image volume if every node supports it (kubelet ≥ 1.35, and containerd ≥ 2.1 or CRI-O), else by init
    /// container.
    #[default]
    Auto,
    /// As a read-only image volume.
    ImageVolume,
    /// By an init container that copies it.
    InitContainer,
}

/// Values for fields that neither sandbox nor session sets.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Defaults {
    /// Image of the main container.
    pub container_image: String,
    /// Lifetime in seconds.
    pub max_lifetime_seconds: i64,
    /// False: a user namespace for every sandbox.
    pub host_users: bool,
    /// RuntimeClass of the pod; empty: the node's runtime.
    pub runtime_class_name: String,
    /// PriorityClass of the pod; empty: the cluster's default.
    pub priority_class_name: String,
    /// ServiceAccount of the pod; empty: `default`.
    pub service_account_name: String,
    /// Node labels. A label that the sandbox's own node selector does not name is added to it.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Security profile of the main container.
    pub security_profile: SecurityProfile,
    /// Outgoing connections: `Internet` or `None`.
    pub egress_mode: EgressMode,
    /// Requests by resource name.
    pub requests: BTreeMap<String, Quantity>,
    /// Limits by resource name.
    pub limits: BTreeMap<String, Quantity>,
    /// Size of `/dev/shm`.
    pub shared_memory: Quantity,
    /// Seconds that a sandbox stays on a node that is not ready or unreachable.
    pub unreachable_toleration_seconds: i64,
}

/// Addresses and peers of network policies.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Further addresses that no sandbox may reach, whatever its rules: node ranges, for instance.
    pub never: Vec<IpNet>,
    /// Addresses of the API server that it does not report itself, such as the public endpoint of a managed cluster: no
    /// sandbox may reach them either.
    pub api_server: Vec<IpNet>,
    /// Prefixes of the network's NAT64 translators (RFC 6052), besides 64:ff9b::/96.
    #[serde(deserialize_with = "nat64_prefixes")]
    pub nat64_prefixes: Vec<Ipv6Net>,
    /// Further addresses that are reachable only by a rule that contains them: pod and Service ranges that are public,
    /// for instance.
    pub not_by_default: Vec<IpNet>,
    /// The cluster's DNS.
    pub dns: DnsSettings,
    /// Name of the namespace of gateway and operator.
    pub peer_namespace: String,
    /// Labels of the pods of gateway and operator.
    pub peer_labels: BTreeMap<String, String>,
    /// What happens if the cluster does not enforce NetworkPolicy.
    pub enforcement: EnforcementMode,
}

/// What happens if the cluster does not enforce NetworkPolicy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum EnforcementMode {
    /// No sandbox starts before enforcement is proven.
    Require,
    /// Sandboxes start; a metric, events and a condition of sandboxes show the result.
    #[default]
    Warn,
    /// Nothing is checked.
    Ignore,
}

fn nat64_prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv6Net>, D::Error> {
    let prefixes = Vec::<Ipv6Net>::deserialize(deserializer)?;
    match prefixes
        .iter()
        .find(|p| !NAT64_PREFIX_LENGTHS.contains(&p.prefix_len()))
    {
        None => Ok(prefixes),
        Some(wrong) => Err(D::Error::custom(format!(
            "nat64Prefixes: {wrong} must have a prefix length of 32, 40, 48, 56, 64 or 96"
        ))),
    }
}

/// The cluster's DNS.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsSettings {
    /// Namespace of its pods.
    pub namespace: String,
    /// Labels of its pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Addresses that answer as well: a node-local cache, for instance.
    pub addresses: Vec<IpNet>,
    /// Ports, UDP and TCP.
    pub ports: Vec<u16>,
}

/// How public ports are published outside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PublicServices {
    /// Type of the Service in front of a sandbox's public ports.
    #[serde(rename = "type")]
    pub kind: ServiceKind,
    /// Its annotations, for instance those that configure a cloud's load balancer.
    pub annotations: BTreeMap<String, String>,
    /// Host in the URLs of node ports: a name or address of the nodes. If it is empty, the address of the sandbox's
    /// node, preferably its external one.
    pub host: String,
}

/// Type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ServiceKind {
    /// Public ports are not published.
    #[default]
    ClusterIP,
    /// By a port of every node.
    NodePort,
    /// By a load balancer for each sandbox.
    LoadBalancer,
}

impl ServiceKind {
    /// The type that publishes ports; `None` if they are not published.
    pub(crate) fn outside(self) -> Option<&'static str> {
        match self {
            ServiceKind::ClusterIP => None,
            ServiceKind::NodePort => Some("NodePort"),
            ServiceKind::LoadBalancer => Some("LoadBalancer"),
        }
    }
}

impl Settings {
    /// The two address lists: the built-in ones and the configured ones.
    pub(crate) fn lists(&self) -> Lists {
        self.network.lists(&[], &[])
    }
}

impl NetworkSettings {
    /// The two address lists, with further ranges that were discovered.
    pub(crate) fn lists(&self, never: &[IpNet], not_by_default: &[IpNet]) -> Lists {
        Lists::new(
            &[&self.never, &self.api_server, never].concat(),
            &[&self.not_by_default, not_by_default].concat(),
            &self.nat64_prefixes,
        )
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            agent: Agent::default(),
            defaults: Defaults::default(),
            constraints: Constraints::default(),
            network: NetworkSettings::default(),
            public_services: PublicServices::default(),
            max_active_per_namespace: 5000,
        }
    }
}

impl Defaults {
    /// Sets the fields of `workload` that neither sandbox nor session sets. Fields whose value is the builders' own
    /// default stay unset.
    pub(crate) fn complete(&self, workload: &mut Workload) {
        let pod = &mut workload.pod;
        for (field, default) in [
            (&mut pod.runtime_class_name, &self.runtime_class_name),
            (&mut pod.priority_class_name, &self.priority_class_name),
            (&mut pod.service_account_name, &self.service_account_name),
        ] {
            if field.is_none() && !default.is_empty() {
                *field = Some(default.clone());
            }
        }
        for (key, value) in &self.node_selector {
            let selector = pod.node_selector.get_or_insert_default();
            selector.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if pod.tolerations.is_none() && !self.tolerations.is_empty() {
            pod.tolerations = Some(self.tolerations.clone());
        }
        if self.security_profile != SecurityProfile::default() {
            workload.container.security_profile.get_or_insert(self.security_profile);
        }
        if self.egress_mode != EgressMode::default() {
            let network = workload.network.get_or_insert_default();
            network.egress.get_or_insert(Egress {
                mode: self.egress_mode,
                rules: None,
            });
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Agent {
            image: "sandbox-operator:dev".into(),
            image_pull_policy: "IfNotPresent".into(),
            delivery: Delivery::Auto,
            port: crate::agent_contract::DEFAULT_PORT,
            max_processes: 4096,
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        let quantities = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), Quantity((*v).into())))
                .collect()
        };
        Defaults {
            container_image: "python:3.11".into(),
            max_lifetime_seconds: limits::DEFAULT_LIFETIME_SECONDS,
            host_users: false,
            runtime_class_name: String::new(),
            priority_class_name: String::new(),
            service_account_name: String::new(),
            node_selector: BTreeMap::new(),
            tolerations: vec![],
            security_profile: SecurityProfile::default(),
            egress_mode: EgressMode::default(),
            requests: quantities(&[("cpu", "100m"), ("memory", "128Mi"), ("ephemeral-storage", "256Mi")]),
            limits: quantities(&[("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "10Gi")]),
            shared_memory: Quantity("64Mi".into()),
            unreachable_toleration_seconds: 60,
        }
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        NetworkSettings {
            never: vec![],
            api_server: vec![],
            nat64_prefixes: vec![],
            not_by_default: vec![],
            dns: DnsSettings::default(),
            peer_namespace: "sandbox-operator".into(),
            peer_labels: BTreeMap::from([("app.kubernetes.io/part-of".into(), "sandbox-operator".into())]),
            enforcement: EnforcementMode::Warn,
        }
    }
}

impl Default for DnsSettings {
    fn default() -> Self {
        DnsSettings {
            namespace: "kube-system".into(),
            pod_labels: BTreeMap::from([("k8s-app".into(), "kube-dns".into())]),
            addresses: vec![],
            ports: vec![53],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nat64_prefix_has_a_length_of_the_rfc() {
        let read = |prefix: &str| serde_json::from_value::<NetworkSettings>(json!({"nat64Prefixes": [prefix]}));
        assert!(read("2001:db8:64::/96").is_ok());
        let error = read("2001:db8:64::/97").unwrap_err().to_string();
        assert!(
            error.contains("2001:db8:64::/97 must have a prefix length of 32, 40"),
            "{error}"
        );
    }
}
