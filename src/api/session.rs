//! The `SandboxSession` resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::workload::Workload;

/// Defaults and limits of the session's sandboxes. Every field is optional, and so is `spec` itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "sandbox-operator.dev",
    version = "v1alpha1",
    kind = "SandboxSession",
    doc = "A group of sandboxes with common defaults and a common end: deleting it deletes them, closing it stops them and keeps their records.",
    plural = "sandboxsessions",
    shortname = "sbxs",
    namespaced,
    status = "SandboxSessionStatus",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".status.state",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.pending"),
    printcolumn(name = "Max", type_ = "integer", json_path = ".spec.maxSandboxes"),
    printcolumn(name = "Completed", type_ = "integer", json_path = ".status.completed"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Terminated", type_ = "integer", json_path = ".status.terminated"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("metadata.name: must be a DNS label of at most 63 characters (it is the value of a label)")
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSessionSpec {
    /// Fields for every sandbox of the session that does not set them. A scalar or list of the sandbox replaces the one
    /// here; `command`, `args` and `entrypoint` are replaced together, `network` as a whole; `env` is merged by name,
    /// and `tags` are united. May be changed; a new sandbox gets the values that are set when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Workload>,
    /// How many sandboxes of the session may be active at once, that is have joined it and not ended; further ones wait
    /// as PENDING with reason `SessionFull`. 1 to 100000; default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_sandboxes: Option<i32>,
    /// Seconds from the session's creation until it is closed. 1 to 2592000 (30 days); default: none. May be lowered,
    /// never raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_lifetime_seconds: Option<i64>,
    /// `Open` (the default), or `Closed` to stop all its sandboxes, keep their records and let no new one start.
    /// `Closed` is final.
    #[serde(default)]
    pub desired_state: SessionDesiredState,
}

/// Desired state of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionDesiredState {
    /// Sandboxes may run.
    #[default]
    Open,
    /// No sandbox may run.
    Closed,
}

/// Lifecycle state of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionState {
    /// Sandboxes may run.
    #[default]
    Open,
    /// Closed; some of its sandboxes are still running or stopping.
    Closing,
    /// Closed, and all its sandboxes have ended.
    Closed,
}

/// Observed state of a session, written by the operator at most once per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSessionStatus {
    /// OPEN; CLOSING while some of its sandboxes have not ended yet; CLOSED when all have.
    #[serde(default)]
    pub state: SessionState,
    /// Sandboxes that have joined the session and not ended: those that `maxSandboxes` limits.
    #[serde(default)]
    pub active: i32,
    /// Sandboxes that are PENDING, including those that wait to join the session.
    #[serde(default)]
    pub pending: i32,
    /// Sandboxes that are CREATING.
    #[serde(default)]
    pub creating: i32,
    /// Sandboxes that are RUNNING.
    #[serde(default)]
    pub running: i32,
    /// Sandboxes that are TERMINATING.
    #[serde(default)]
    pub terminating: i32,
    /// Sandboxes that are COMPLETED.
    #[serde(default)]
    pub completed: i32,
    /// Sandboxes that are FAILED.
    #[serde(default)]
    pub failed: i32,
    /// Sandboxes that are TERMINATED.
    #[serde(default)]
    pub terminated: i32,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: true while the session is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::conditions::schema")]
    pub conditions: Vec<Condition>,
}
