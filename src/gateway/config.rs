//! The gateway's configuration file.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Toleration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::resources::settings::PublicServices;

/// The gateway's configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Namespaces that are served; none named: all.
    pub watch_namespaces: Vec<String>,
    /// The id of the runner that callers see where `runners` names none: this cluster.
    pub runner_id: String,
    /// Runners that are a part of the nodes each. Sandboxes of the gateway run on their nodes only.
    pub runners: Vec<Runner>,
    /// The organization that callers see.
    pub organization_id: String,
    /// Lifetime in seconds of a sandbox whose creator names none.
    pub default_lifetime_seconds: i64,
    /// Most bytes of a file that ReadFile and WriteFile take in one piece, at most 32 MiB. The SDK goes on with exec above it.
    pub max_file_bytes: u64,
    /// The agents in the sandboxes.
    pub agents: Agents,
    /// Who is let in.
    pub authentication: Authentication,
    /// Certificate and key; none: h2c only.
    pub tls: Option<Tls>,
    /// What one caller may use.
    pub limits: Limits,
    /// How public ports are reached from outside of the cluster: as the operator is configured.
    pub public_services: PublicServices,
    /// Further addresses that no sandbox can reach: as the operator is configured.
    pub never: Vec<IpNet>,
    /// The GPUs of the nodes.
    pub gpus: Gpus,
    /// Seconds between SIGTERM and the end of long streams, at most 20. The calls before that end by themselves.
    pub drain_seconds: u64,
}

/// A node pool that callers can choose by its id.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runner {
    /// The id that callers use.
    pub id: String,
    /// A group that callers may filter by; may be empty.
    #[serde(default)]
    pub group_id: String,
    /// Tags that callers see.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels of the pool's nodes. A node belongs to the first runner whose labels it has.
    pub node_labels: BTreeMap<String, String>,
    /// Taints of its nodes that sandboxes on it tolerate.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
}

/// The GPUs of the nodes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gpus {
    /// The resource that the device plugin counts.
    pub resource: String,
    /// Labels of the nodes with a type of GPU, by the type that callers name.
    pub types: BTreeMap<String, BTreeMap<String, String>>,
    /// Labels of the nodes whose GPUs have this much memory, by gigabytes.
    pub memory_gb: BTreeMap<i64, BTreeMap<String, String>>,
}

impl Default for Gpus {
    fn default() -> Gpus {
        Gpus {
            resource: "nvidia.com/gpu".into(),
            types: BTreeMap::new(),
            memory_gb: BTreeMap::new(),
        }
    }
}

/// The agents in the sandboxes.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Agents {
    /// Their port.
    pub port: u16,
    /// Folder with the keys that sign calls to them: one file per key, its name the key's id.
    pub keys: PathBuf,
    /// Whether containers without an agent process may be reached through the API server's `pods/exec`.
    pub exec_via_api_server: bool,
}

/// Who is let in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// Audience of the ServiceAccount tokens that are accepted. Never the API server's own: whoever calls us would give us a key to it.
    pub audience: String,
    /// Folder for the W&B form of credentials: a file's name is the SHA-256 of a key in hex, its content `namespace/serviceaccount`.
    pub api_keys: Option<PathBuf>,
}

/// Certificate and key of the TLS port. They are read again when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// File with the certificate chain, as PEM.
    pub certificate: PathBuf,
    /// File with the private key, as PEM.
    pub key: PathBuf,
}

/// What one caller may use of one replica. A caller is a ServiceAccount.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Calls per second over a longer time.
    pub requests_per_second: u32,
    /// Calls at once, before the rate counts.
    pub burst: u32,
    /// Unary calls under way.
    pub concurrent_calls: u32,
    /// StreamExec and StreamLogs under way.
    pub concurrent_streams: u32,
    /// Bytes of large bodies (files, outputs) in memory, over all callers; those of one namespace have at most half. At least 200 MiB, so that
    /// half of it takes the largest body.
    pub large_body_bytes: u32,
    /// Connections, over all callers.
    pub connections: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            watch_namespaces: Vec::new(),
            runner_id: "default".into(),
            runners: Vec::new(),
            organization_id: "default".into(),
            default_lifetime_seconds: 600,
            max_file_bytes: MAX_FILE_BYTES,
            agents: Agents::default(),
            authentication: Authentication::default(),
            tls: None,
            limits: Limits::default(),
            public_services: PublicServices::default(),
            never: Vec::new(),
            gpus: Gpus::default(),
            drain_seconds: 10,
        }
    }
}

impl Default for Agents {
    fn default() -> Agents {
        Agents {
            port: crate::agent_contract::DEFAULT_PORT,
            keys: "/etc/sandbox-operator/agent-keys".into(),
            exec_via_api_server: true,
        }
    }
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            audience: crate::api::GROUP.into(),
            api_keys: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            requests_per_second: 500,
            burst: 1000,
            concurrent_calls: 256,
            concurrent_streams: 1024,
            large_body_bytes: 256 << 20,
            connections: 4096,
        }
    }
}

/// The SDK's own limit of a file in one piece.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// Most seconds of a drain; what is under way then is cut off. Kubernetes waits 30 before it kills.
pub const MAX_DRAIN_SECONDS: u64 = 20;

/// A value out of its bounds.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {bounds}")]
pub struct OutOfBounds {
    /// The field.
    pub field: &'static str,
    /// What it must be.
    pub bounds: &'static str,
}

impl Config {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the first field that is out of bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let limits = &self.limits;
        let rules = [
            ("runnerId", "1 to 63 characters", (1..=63).contains(&self.runner_id.len())),
            (
                "runners[].id",
                "1 to 63 characters, and of one runner only",
                self.runners.iter().map(|r| &r.id).collect::<BTreeSet<_>>().len() == self.runners.len()
                    && self.runners.iter().all(|r| (1..=63).contains(&r.id.len())),
            ),
            ("runners", "at most 100", self.runners.len() <= 100),
            // A term without labels would be for no node.
            ("runners[].nodeLabels", "set", self.runners.iter().all(|r| !r.node_labels.is_empty())),
            ("organizationId", "1 to 63 characters", (1..=63).contains(&self.organization_id.len())),
            (
                "defaultLifetimeSeconds",
                "between 1 and 2592000",
                (1..=crate::api::limits::MAX_LIFETIME_SECONDS).contains(&self.default_lifetime_seconds),
            ),
            (
                "maxFileBytes",
                "between 1 and 33554432",
                (1..=MAX_FILE_BYTES).contains(&self.max_file_bytes),
            ),
            ("agents.port", "between 1 and 65535", self.agents.port > 0),
            ("authentication.audience", "set", !self.authentication.audience.is_empty()),
            ("drainSeconds", "at most 20", self.drain_seconds <= MAX_DRAIN_SECONDS),
            ("limits.requestsPerSecond", "positive", limits.requests_per_second > 0),
            ("limits.burst", "positive", limits.burst > 0),
            ("limits.concurrentCalls", "positive", limits.concurrent_calls > 0),
            ("limits.concurrentStreams", "positive", limits.concurrent_streams > 0),
            ("limits.largeBodyBytes", "at least 209715200", limits.large_body_bytes >= 200 << 20),
            ("limits.connections", "positive", limits.connections > 0),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((field, bounds, _)) => Err(OutOfBounds { field, bounds }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_configuration_and_bounds_are_named() {
        for text in ["{}", "gpus: {memoryGb: {\"80\": {a: b}}, types: {H100: {a: b}}}"] {
            let config: Config = serde_saphyr::from_str(text).unwrap();
            assert_eq!(config.check(), Ok(()));
        }
        for (text, field) in [
            ("runnerId: ''", "runnerId"),
            ("runners: [{id: a, nodeLabels: {}}]", "runners[].nodeLabels"),
            ("runners: [{id: a, nodeLabels: {x: y}}, {id: a, nodeLabels: {x: z}}]", "runners[].id"),
            ("defaultLifetimeSeconds: 2592001", "defaultLifetimeSeconds"),
            ("maxFileBytes: 0", "maxFileBytes"),
            ("authentication: {audience: ''}", "authentication.audience"),
            ("drainSeconds: 21", "drainSeconds"),
            ("limits: {burst: 0}", "limits.burst"),
            ("limits: {largeBodyBytes: 1}", "limits.largeBodyBytes"),
        ] {
            let config: Config = serde_saphyr::from_str(text).unwrap();
            assert_eq!(config.check().unwrap_err().field, field);
        }
        assert!(serde_saphyr::from_str::<Config>("limit: {}").is_err(), "a misspelt field is an error");
    }
}
