//! The `Sandbox` resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use super::workload::Workload;

/// What the sandbox runs, and its limits. Every field is optional, and so is `spec` itself.
/// Only `desiredState`, `stopGracePeriodSeconds`, `tags` and `maxLifetimeSeconds` may be changed after creation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "sandbox-operator.dev",
    version = "v1alpha1",
    kind = "Sandbox",
    doc = "An isolated, disposable environment to run code in: one pod with its own network policy and a limited lifetime. It ends as COMPLETED or FAILED by the exit code of the main command. The record remains after the processes of the pod have ended; deleting it removes everything.",
    plural = "sandboxes",
    shortname = "sbx",
    namespaced,
    status = "SandboxStatus",
    derive = "PartialEq",
    derive = "Default",
    selectable = ".spec.sessionName",
    selectable = ".status.state",
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Exit", type_ = "integer", json_path = ".status.exitCode"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.containerImage"),
    printcolumn(name = "Session", type_ = "string", json_path = ".spec.sessionName"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = 1),
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName", priority = 1),
    printcolumn(name = "URLs", type_ = "string", json_path = ".status.urls", priority = 1),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("metadata.name: must be a DNS label of at most 63 characters that begins with a letter (it is the sandbox's host name)")
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// Name of a `SandboxSession` of this namespace. Defaults come from it, and deleting it deletes this sandbox. If
    /// there is none the sandbox waits as PENDING with reason `SessionNotFound`, and is FAILED with it at
    /// `startTimeoutSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub session_name: Option<String>,
    /// Fields that shape the pod.
    #[serde(flatten)]
    pub workload: Workload,
    /// `Running` (the default), or `Stopped` to end it and keep its record and logs. `Stopped` is final.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// With `desiredState: Stopped`: seconds between SIGTERM and SIGKILL for this stop, in place of
    /// `terminationGracePeriodSeconds`. 0 to 3600. The agent enforces it on the main command. With `entrypoint: Image`
    /// there is no agent: a grace that is shorter than `terminationGracePeriodSeconds` is enforced by deleting the pod
    /// with it (0 counts as 1), so the logs and usually the exit code are lost; a longer one has no effect. Sidecars
    /// always have `terminationGracePeriodSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub stop_grace_period_seconds: Option<i64>,
}

/// Desired state of a sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// It runs.
    #[default]
    Running,
    /// It ends; record and logs are kept.
    Stopped,
}

/// Lifecycle state of a sandbox. COMPLETED, FAILED and TERMINATED are final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Accepted; waits for its session, quota or a node.
    #[default]
    Pending,
    /// On a node; images are pulled and containers created.
    Creating,
    /// The main container runs.
    Running,
    /// Stopping on request.
    Terminating,
    /// The main command ended with exit code 0.
    Completed,
    /// It could not be started, ended with another exit code, or its pod was deleted or evicted.
    Failed,
    /// Stopped on request, with its session, or at the end of its lifetime.
    Terminated,
}

impl Sandbox {
    /// The state in the status; PENDING without a status.
    pub fn state(&self) -> State {
        self.status.as_ref().map(|s| s.state).unwrap_or_default()
    }

    /// Whether the sandbox has ended: its state never changes again.
    pub fn is_final(&self) -> bool {
        self.state().is_final()
    }
}

impl State {
    /// Whether the state is final.
    pub fn is_final(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Terminated)
    }

    /// All states, in the order in which they are reached.
    pub const ALL: [State; 7] = [
        State::Pending,
        State::Creating,
        State::Running,
        State::Terminating,
        State::Completed,
        State::Failed,
        State::Terminated,
    ];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Pending => "PENDING",
            State::Creating => "CREATING",
            State::Running => "RUNNING",
            State::Terminating => "TERMINATING",
            State::Completed => "COMPLETED",
            State::Failed => "FAILED",
            State::Terminated => "TERMINATED",
        }
    }
}

/// Observed state of a sandbox, written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// Lifecycle state: PENDING, CREATING, RUNNING, TERMINATING, then finally COMPLETED, FAILED or TERMINATED.
    #[serde(default)]
    pub state: State,
    /// Why it is in this state, in one word such as `OOMKilled`; the project's docs/reasons.md explains each and says
    /// what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this state, in a sentence, with Kubernetes' own message if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the main command, 128 + signal number if a signal ended it. Not set if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Name of the pod, for `kubectl logs` and `kubectl exec` (container `main`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Which pod runs the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodIdentity>,
    /// Name of the Service in front of the sandbox's `ports`: the sandbox's own name, or the pod's where that one
    /// belongs to another object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// Where the sandbox's `ports` are reached: inside the cluster by the Service, and public ones from outside.
    /// `network.ingress` decides who may connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub urls: Vec<String>,
    /// IP address of the pod.
    #[serde(default, rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// Node that runs the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// When the main container started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the sandbox ended: the exit of the main container if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// When the lifetime ends and the sandbox is TERMINATED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Image in effect, after defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
    /// Lifetime in effect, in seconds, after defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_seconds: Option<i64>,
    /// Tags in effect: its own and its session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// UID of the session that it belongs to: a later session with the same name is a different one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_uid: Option<String>,
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the main container runs. `PodScheduled`: the pod is on a node. `SchedulingGated`: the pod has
    /// scheduling gates (present only if it ever had any). `NetworkEnforced`: the cluster enforces the sandbox's network
    /// policy, as last checked (present only if that ever was not so). `Finished`: the outcome is final.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::conditions::schema")]
    pub conditions: Vec<Condition>,
}

/// Which pod runs a sandbox. Names may be used again; the UID identifies the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub struct PodIdentity {
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// `Created` for this sandbox, or `Claimed`: created before it and assigned to it.
    pub origin: PodOrigin,
    /// Which pod of this sandbox it is: 1 for the first.
    #[schemars(range(min = 1))]
    pub incarnation: i64,
}

/// How a sandbox got its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum PodOrigin {
    /// Created for this sandbox.
    #[default]
    Created,
    /// Created before the sandbox and assigned to it.
    Claimed,
}
