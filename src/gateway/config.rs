//! The gateway's configuration file.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Toleration;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::resources::settings::{Constraints, Defaults, PublicServices};

/// The gateway's configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Namespaces to serve; empty: all.
    pub watch_namespaces: Vec<String>,
    /// The id of the cluster's only runner, if `runners` is empty.
    pub runner_id: String,
    /// Runners, each of which is a pool of nodes. Sandboxes of the gateway run only on their nodes.
    pub runners: Vec<Runner>,
    /// The organization that callers see.
    pub organization_id: String,
    /// Lifetime in seconds of a sandbox whose request sets none.
    pub default_lifetime_seconds: i64,
    /// Largest file in bytes for ReadFile and WriteFile, at most 32 MiB. The SDK uses exec for larger ones.
    pub max_file_bytes: u64,
    /// The agents in the sandboxes.
    pub agents: Agents,
    /// How callers authenticate.
    pub authentication: Authentication,
    /// Certificate and key of the TLS port. Without them there is only the port without TLS.
    pub tls: Option<Tls>,
    /// Limits per caller and in total.
    pub limits: Limits,
    /// How public ports are exposed outside of the cluster. Must equal the operator's setting.
    pub public_services: PublicServices,
    /// Further addresses that no sandbox can reach. Must equal the operator's setting.
    pub never: Vec<IpNet>,
    /// Values for fields that a request does not set. Must equal the operator's setting.
    pub defaults: Defaults,
    /// Constraints on sandboxes. Must equal the operator's setting.
    pub constraints: Constraints,
    /// Whether sandboxes with `deny_egress` can resolve names, if their request leaves `dns_egress` out. Data can leave
    /// a sandbox in DNS queries.
    pub dns_with_deny_egress: bool,
    /// The GPUs of the nodes.
    pub gpus: Gpus,
    /// Seconds from SIGTERM until long streams are ended, at most 20. Short calls finish in that time.
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
    /// Directory with the keys that sign calls to them: one file per key, named by the key's id.
    pub keys: PathBuf,
    /// Whether exec and files in containers without an agent process use the API server's `pods/exec`.
    pub exec_via_api_server: bool,
}

/// How callers authenticate.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Authentication {
    /// Audience of accepted ServiceAccount tokens. Never that of the API server: every caller would hand the gateway
    /// its access to the API.
    pub audience: String,
    /// Directory of API keys in the W&B form: a file is named by the SHA-256 of a key in hex and contains
    /// `namespace/serviceaccount`.
    pub api_keys: Option<PathBuf>,
}

/// Certificate and key of the TLS port. They are reloaded when they change.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// File with the certificate chain, as PEM.
    pub certificate: PathBuf,
    /// File with the private key, as PEM.
    pub key: PathBuf,
}

/// Limits of one replica. Limits of a caller apply to each ServiceAccount; all callers of a namespace together get at
/// most four times as much.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Sustained calls per second of a caller.
    pub requests_per_second: u32,
    /// Burst of calls above that rate.
    pub burst: u32,
    /// Concurrent unary calls of a caller.
    pub concurrent_calls: u32,
    /// Concurrent StreamExec and StreamLogs calls of a caller.
    pub concurrent_streams: u32,
    /// Bytes in memory for bodies above 16 KiB (files, outputs) of all callers, of which one namespace gets at most half.
    /// At least 200 MiB, so that the largest body fits into half of it.
    pub large_body_bytes: u32,
    /// Bytes in flight of the streams of all callers, of which one namespace gets at most half. Each stream counts with
    /// its HTTP/2 window, 256 KiB. At least 1 MiB.
    pub stream_bytes: u32,
    /// Connections of all callers.
    pub connections: u32,
    /// Sandboxes in a namespace, ended ones included.
    pub sandboxes_per_namespace: u32,
    /// Bytes in etcd of a namespace's sandboxes and of the Secrets that they own.
    pub stored_bytes_per_namespace: u64,
    /// Connections of the callers of one namespace.
    pub connections_per_namespace: u32,
    /// Connections of one source address; for IPv6, of its /64 prefix. Behind a proxy that hides the callers' addresses,
    /// this limits all of them together.
    pub connections_per_address: u32,
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
            defaults: Defaults::default(),
            constraints: Constraints::default(),
            dns_with_deny_egress: false,
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
            exec_via_api_server: false,
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
            stream_bytes: 1 << 30,
            connections: 4096,
            sandboxes_per_namespace: 10_000,
            stored_bytes_per_namespace: 512 << 20,
            connections_per_namespace: 2048,
            connections_per_address: 2048,
        }
    }
}

/// The SDK's own limit for ReadFile and WriteFile.
pub const MAX_FILE_BYTES: u64 = 32 << 20;
/// Longest drain in seconds, within the 30 that Kubernetes waits before it kills.
pub const MAX_DRAIN_SECONDS: u64 = 20;

/// An invalid value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {bounds}")]
pub struct OutOfBounds {
    /// Its field.
    pub field: &'static str,
    /// What it must be.
    pub bounds: &'static str,
}

impl Config {
    /// Checks the values.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let limits = &self.limits;
        let rules = [
            (
                "runnerId",
                "1 to 63 characters",
                (1..=63).contains(&self.runner_id.len()),
            ),
            (
                "runners[].id",
                "1 to 63 characters, and unique",
                self.runners.iter().map(|r| &r.id).collect::<BTreeSet<_>>().len() == self.runners.len()
                    && self.runners.iter().all(|r| (1..=63).contains(&r.id.len())),
            ),
            ("runners", "at most 100", self.runners.len() <= 100),
            // A node selector term without labels matches no node.
            (
                "runners[].nodeLabels",
                "set",
                self.runners.iter().all(|r| !r.node_labels.is_empty()),
            ),
            (
                "organizationId",
                "1 to 63 characters",
                (1..=63).contains(&self.organization_id.len()),
            ),
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
            (
                "authentication.audience",
                "set",
                !self.authentication.audience.is_empty(),
            ),
            ("drainSeconds", "at most 20", self.drain_seconds <= MAX_DRAIN_SECONDS),
            ("limits.requestsPerSecond", "positive", limits.requests_per_second > 0),
            ("limits.burst", "positive", limits.burst > 0),
            ("limits.concurrentCalls", "positive", limits.concurrent_calls > 0),
            ("limits.concurrentStreams", "positive", limits.concurrent_streams > 0),
            (
                "limits.largeBodyBytes",
                "at least 209715200",
                limits.large_body_bytes >= 200 << 20,
            ),
            ("limits.streamBytes", "at least 1048576", limits.stream_bytes >= 1 << 20),
            ("limits.connections", "positive", limits.connections > 0),
            (
                "limits.sandboxesPerNamespace",
                "positive",
                limits.sandboxes_per_namespace > 0,
            ),
            (
                "limits.storedBytesPerNamespace",
                "positive",
                limits.stored_bytes_per_namespace > 0,
            ),
            (
                "limits.connectionsPerNamespace",
                "positive",
                limits.connections_per_namespace > 0,
            ),
            (
                "limits.connectionsPerAddress",
                "positive",
                limits.connections_per_address > 0,
            ),
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
    fn an_empty_file_is_valid_and_an_error_names_the_field() {
        for text in ["{}", "gpus: {memoryGb: {\"80\": {a: b}}, types: {H100: {a: b}}}"] {
            let config: Config = serde_saphyr::from_str(text).unwrap();
            assert_eq!(config.check(), Ok(()));
        }
        for (text, field) in [
            ("runnerId: ''", "runnerId"),
            ("runners: [{id: a, nodeLabels: {}}]", "runners[].nodeLabels"),
            (
                "runners: [{id: a, nodeLabels: {x: y}}, {id: a, nodeLabels: {x: z}}]",
                "runners[].id",
            ),
            ("defaultLifetimeSeconds: 2592001", "defaultLifetimeSeconds"),
            ("maxFileBytes: 0", "maxFileBytes"),
            ("authentication: {audience: ''}", "authentication.audience"),
            ("drainSeconds: 21", "drainSeconds"),
            ("limits: {burst: 0}", "limits.burst"),
            ("limits: {largeBodyBytes: 1}", "limits.largeBodyBytes"),
            ("limits: {streamBytes: 1}", "limits.streamBytes"),
            ("limits: {connectionsPerNamespace: 0}", "limits.connectionsPerNamespace"),
            ("limits: {connectionsPerAddress: 0}", "limits.connectionsPerAddress"),
        ] {
            let config: Config = serde_saphyr::from_str(text).unwrap();
            assert_eq!(config.check().unwrap_err().field, field);
        }
        assert!(
            serde_saphyr::from_str::<Config>("limit: {}").is_err(),
            "an unknown field is an error"
        );
    }
}
