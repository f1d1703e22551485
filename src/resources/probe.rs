//! The objects of a check whether the cluster enforces NetworkPolicy: two policies, a server and a client. The first
//! policy owns the other objects, so that deleting it deletes all.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, LocalObjectReference, Pod, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext,
    Toleration,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::labels::{self, ProbeRole};
use super::names;
use crate::agent_contract::IMAGE_BINARY;
use crate::network_probe::{ALLOWED_PORT, EGRESS_DENIED_PORT, INGRESS_DENIED_PORT};

/// Deadline of the pods, in seconds: the kubelet ends them even if they are not deleted.
const DEADLINE_SECONDS: i64 = 120;
/// How long it may take until the policies are enforced, in seconds.
const SETTLE_SECONDS: u64 = 10;
/// User of the image.
const USER: i64 = 65532;
/// Name of the container.
pub(crate) const CONTAINER: &str = "probe";

/// Where and how the probe pods run.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProbeSettings {
    /// Their namespace.
    pub namespace: String,
    /// Names of Secrets of that namespace with registry credentials.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Labels of their nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they tolerate.
    pub tolerations: Vec<Toleration>,
    /// The operator's own image.
    #[serde(skip)]
    pub image: String,
    /// When it is pulled.
    #[serde(skip)]
    pub image_pull_policy: String,
}

impl Default for ProbeSettings {
    fn default() -> ProbeSettings {
        ProbeSettings {
            namespace: "sandbox-operator-probe".into(),
            image_pull_secrets: vec![],
            node_selector: BTreeMap::new(),
            tolerations: vec![],
            image: String::new(),
            image_pull_policy: String::new(),
        }
    }
}

/// One check: its settings and its token, which is also in the names and labels of its objects.
pub(crate) struct Probe<'a> {
    pub settings: &'a ProbeSettings,
    pub token: &'a str,
}

impl Probe<'_> {
    /// The server's policy: it admits the client to two of the three ports.
    pub(crate) fn ingress_policy(&self) -> NetworkPolicy {
        let rule = NetworkPolicyIngressRule {
            from: Some(vec![self.peer(ProbeRole::Client)]),
            ports: Some(ports([ALLOWED_PORT, EGRESS_DENIED_PORT])),
        };
        self.policy(ProbeRole::Server, "Ingress", Some(vec![rule]), None)
    }

    /// The client's policy: it allows two of the three ports of the server.
    pub(crate) fn egress_policy(&self, owner: &NetworkPolicy) -> NetworkPolicy {
        let rule = NetworkPolicyEgressRule {
            to: Some(vec![self.peer(ProbeRole::Server)]),
            ports: Some(ports([ALLOWED_PORT, INGRESS_DENIED_PORT])),
        };
        let mut policy = self.policy(ProbeRole::Client, "Egress", None, Some(vec![rule]));
        names::set_probe_owner(&mut policy.metadata, owner);
        policy
    }

    /// The pod that listens at the three ports.
    pub(crate) fn server(&self, owner: &NetworkPolicy) -> Pod {
        let mut args = self.args("serve");
        args.push(format!("--seconds={DEADLINE_SECONDS}"));
        self.pod(ProbeRole::Server, args, owner)
    }

    /// The pod that connects to the server's addresses.
    pub(crate) fn client(&self, addresses: &[String], owner: &NetworkPolicy) -> Pod {
        let mut args = self.args("connect");
        args.push(format!("--seconds={SETTLE_SECONDS}"));
        args.extend(addresses.iter().map(|address| format!("--address={address}")));
        self.pod(ProbeRole::Client, args, owner)
    }

    fn args(&self, command: &str) -> Vec<String> {
        vec!["probe".into(), command.into(), format!("--token={}", self.token)]
    }

    fn peer(&self, role: ProbeRole) -> NetworkPolicyPeer {
        NetworkPolicyPeer {
            pod_selector: Some(labels::probe_selector(self.token, role)),
            ..NetworkPolicyPeer::default()
        }
    }

    fn policy(
        &self,
        role: ProbeRole,
        direction: &str,
        ingress: Option<Vec<NetworkPolicyIngressRule>>,
        egress: Option<Vec<NetworkPolicyEgressRule>>,
    ) -> NetworkPolicy {
        NetworkPolicy {
            metadata: names::probe_meta(&self.settings.namespace, self.token, role),
            spec: Some(NetworkPolicySpec {
                pod_selector: Some(labels::probe_selector(self.token, role)),
                policy_types: Some(vec![direction.into()]),
                ingress,
                egress,
            }),
        }
    }

    fn pod(&self, role: ProbeRole, args: Vec<String>, owner: &NetworkPolicy) -> Pod {
        let mut metadata = names::probe_meta(&self.settings.namespace, self.token, role);
        names::set_probe_owner(&mut metadata, owner);
        let quantities = |cpu: &str, memory: &str| -> BTreeMap<String, Quantity> {
            let pairs = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", "16Mi")];
            pairs.map(|(name, value)| (name.into(), Quantity(value.into()))).into()
        };
        let container = Container {
            name: CONTAINER.into(),
            image: Some(self.settings.image.clone()),
            image_pull_policy: Some(self.settings.image_pull_policy.clone()).filter(|p| !p.is_empty()),
            command: Some(vec![IMAGE_BINARY.into()]),
            args: Some(args),
            resources: Some(ResourceRequirements {
                requests: Some(quantities("10m", "16Mi")),
                limits: Some(quantities("200m", "64Mi")),
                claims: None,
            }),
            security_context: Some(SecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".into()]),
                    add: None,
                }),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..SecurityContext::default()
            }),
            ..Container::default()
        };
        let pod = PodSpec {
            containers: vec![container],
            restart_policy: Some("Never".into()),
            active_deadline_seconds: Some(DEADLINE_SECONDS),
            termination_grace_period_seconds: Some(1),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: Some(self.settings.image_pull_secrets.clone()).filter(|s| !s.is_empty()),
            node_selector: Some(self.settings.node_selector.clone()).filter(|s| !s.is_empty()),
            tolerations: Some(self.settings.tolerations.clone()).filter(|t| !t.is_empty()),
            ..PodSpec::default()
        };
        Pod {
            metadata,
            spec: Some(pod),
            status: None,
        }
    }
}

fn ports(numbers: [u16; 2]) -> Vec<NetworkPolicyPort> {
    let port = |number: u16| NetworkPolicyPort {
        port: Some(IntOrString::Int(number.into())),
        protocol: Some("TCP".into()),
        end_port: None,
    };
    numbers.map(port).into()
}

#[cfg(test)]
mod tests;
