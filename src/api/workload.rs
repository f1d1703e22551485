//! The fields that shape a sandbox's pod. A `Sandbox` has them; a session's `defaults` and a template have the same.

use k8s_openapi::api::core::v1::{Affinity, EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::network::Network;
use super::rules;
use super::volume::{Mount, Volume};

/// Fields that shape the pod. All optional: what is not set comes from the session's `defaults`, then from the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Image of the main container, as in a pod. Default: the session's, then the operator's (`python:3.11` unless configured otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub container_image: Option<String>,
    /// When the kubelet pulls the images: `Always`, `IfNotPresent` or `Never`. Default: as in a pod (`Always` for the tag `latest`, else `IfNotPresent`).
    /// With `Never` and no such image on the node the sandbox is FAILED with reason `ErrImageNeverPull`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Names of Secrets of this namespace with registry credentials. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// The main command and its first arguments, started without a shell. Its exit code is the sandbox's.
    /// Without a command the sandbox stays alive, doing nothing, until it is stopped or its lifetime ends.
    /// `$(VAR)` is replaced by the variable's value and `$$` by `$`, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 131_072)))]
    pub command: Option<Vec<String>>,
    /// Arguments after `command`. Without `command` they need `entrypoint: Image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 131_072)))]
    pub args: Option<Vec<String>>,
    /// Where the main command comes from. `Command` (the default): from `command`. `Image`: the image's own entrypoint runs,
    /// with `args` in place of its arguments, as PID 1 and without the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Entrypoint>,
    /// Working directory of the main command: an absolute path. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^/"))]
    pub working_dir: Option<String>,
    /// Environment variables of the main container, as in a pod; a variable here wins over the session's of the same name.
    /// `CW_SANDBOX_ID` is set by the operator to the sandbox's name. At most 512, with names of printable ASCII characters other than `=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub env: Option<Vec<EnvVar>>,
    /// Secrets and ConfigMaps whose keys become environment variables, as in a pod. A missing one ends the sandbox as FAILED with reason
    /// `CreateContainerConfigError`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// Requests and limits of the main container, as in a pod. CPU, memory and ephemeral storage that are not named get the operator's defaults,
    /// since namespaces with a quota refuse pods without them; of one that has only a request or only a limit, the one is also the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// RuntimeClass of the pod, for instance one of gVisor or Kata. Default: the node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Labels that a node must have for the pod to run there. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the pod tolerates. One for `node.kubernetes.io/not-ready` or `node.kubernetes.io/unreachable` replaces the
    /// operator's 60 seconds, after which a sandbox on a lost node is FAILED with reason `NodeLost`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Rules for the choice of the node, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// PriorityClass of the pod: who makes room for whom when nodes are full. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// ServiceAccount of the pod. Its token is never mounted; the account matters to admission rules and image pull secrets only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// `Baseline` (the default): all capabilities dropped but those that `pip`, `apt` and `su` need; passes Pod Security `baseline`.
    /// `Restricted`: all dropped; passes Pod Security `restricted` when the image's user is not root or `hostUsers` is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<SecurityProfile>,
    /// User (uid) the containers run as. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_user: Option<i64>,
    /// Group (gid) the containers run as. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_group: Option<i64>,
    /// Whether the main container's root file system is read-only. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,
    /// False: the pod has a user namespace of its own, so that root inside is nobody outside (needs support by node and file systems;
    /// on by default from Kubernetes 1.33). Default: the operator's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// Files of the main container that are there before the main command starts. At most 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Option<Vec<File>>,
    /// Volumes of the sandbox: scratch space or existing PersistentVolumeClaims. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::unique_where_given("mountPath", "volumes[].mountPath: must not be that of another volume"))]
    pub volumes: Option<Vec<Volume>>,
    /// Where volumes are mounted in the main container, in addition to their own `mountPath`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub mounts: Option<Vec<Mount>>,
    /// Ports on which the sandbox listens, each number once per protocol. With at least one a Service with the name of the pod is made;
    /// who may connect is said by `network.ingress`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::unique(
        |p| format!("[string({p}.port), {p}.?protocol.orValue('TCP')]"),
        "ports[]: port and protocol must not be those of another port"
    ))]
    pub ports: Option<Vec<Port>>,
    /// Who may be reached and who may connect. Default: DNS and public addresses outwards, nobody inwards. Replaces the session's as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Secondary containers. They share network and volumes, start before the main container, are restarted when they end, and never decide the outcome. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub sidecars: Option<Vec<Sidecar>>,
    /// Annotations of the pod, as in a pod. Reserved are keys of ours, of Kubernetes, of autoscalers, networks and container runtimes: under
    /// `sandbox-operator.dev`, `kubernetes.io`, `k8s.io`, `karpenter.sh`, `cncf.io`, `projectcalico.org`, `cilium.io`, `antrea.io`, `ovn.org`,
    /// `istio.io`, `linkerd.io` and their subdomains, and those that begin with `io.kubernetes.`, `io.katacontainers.`, `io.containerd.`,
    /// `dev.gvisor.`, `org.systemd.` or `run.oci.`. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::keys("podAnnotations"))]
    pub pod_annotations: Option<BTreeMap<String, String>>,
    /// Labels of the pod, as in a pod. Reserved are the same keys as of annotations. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::keys("podLabels"))]
    pub pod_labels: Option<BTreeMap<String, String>>,
    /// Words for listing and cleaning up; united with the session's. At most 64, each of at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub tags: Option<Vec<String>>,
    /// Seconds from the pod's start on its node, image pull included, until it is ended as TERMINATED with reason `LifetimeExceeded`.
    /// It is the pod's `activeDeadlineSeconds`. 1 to 2592000 (30 days); default 86400 (24 hours). May be lowered, never raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_lifetime_seconds: Option<i64>,
    /// Seconds within which the sandbox must be RUNNING; otherwise it is FAILED with what kept it. Counted from creation, or from the
    /// operator's first look if that was later. 1 to 86400; default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_timeout_seconds: Option<i64>,
    /// Seconds between SIGTERM and SIGKILL when the sandbox is ended. 0 to 3600; default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds for which the record, the pod and its logs are kept after the end. 0 to 2592000 (30 days); default 86400 (24 hours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// Where the main command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum Entrypoint {
    /// From `command`; with none the sandbox stays alive.
    Command,
    /// The image's own entrypoint, without the agent.
    Image,
}

/// When images are pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node has it not.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// How much a sandbox's processes may do to their own container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum SecurityProfile {
    /// The capabilities that package managers need.
    #[default]
    Baseline,
    /// None.
    Restricted,
}

/// One file. Exactly one of `content`, `contentBase64`, `secretKeyRef` and `configMapKeyRef` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.content), has(self.contentBase64), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(x, x).size() == 1")
    .message("files[]: give exactly one of content, contentBase64, secretKeyRef and configMapKeyRef"))]
pub struct File {
    /// Path in the container, not the mountPath of a volume; missing parent directories are made. An absolute path is a read-only mount.
    /// A relative one begins at the working directory, wherever the image has it: the agent copies the file there before the command starts.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::path_of_file("files[].path"))]
    pub path: String,
    /// The content as text. All inline content of a sandbox is at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub content: Option<String>,
    /// The content in base64, for files that are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 349_528), regex(pattern = r"^[A-Za-z0-9+/\n]*={0,2}\n?$"))]
    pub content_base64: Option<String>,
    /// The content is a key of a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// The content is a key of a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// Permission bits, 0 to 511 (0777 in octal). Default: 420 (0644).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<i32>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which of its keys.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A port on which the sandbox listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// Name, unique in the sandbox: at most 15 lower-case letters, digits and `-`, with at least one letter.
    #[schemars(length(min = 1, max = 15), regex(pattern = r"^([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$"))]
    pub name: String,
    /// Port number, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// `TCP` (the default), `UDP` or `SCTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<super::network::Protocol>,
    /// Whether it shall be reached from outside of the cluster while the sandbox has not ended: by a second Service, the pod's name and
    /// `-public`, of the type that the operator is configured with (`sandboxes.publicServices`; by default there is none). Who may connect
    /// is said by `network.ingress` here too. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
}

/// A secondary container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Name, unique in the sandbox: a DNS label. `main`, and names that begin with `sandbox-operator`, are reserved.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = rules::name("sidecars[].name"))]
    #[x_kube(validation = Rule::new("self != 'main'").message("sidecars[].name: main is the name of the main container"))]
    pub name: String,
    /// Image of the container, as in a pod.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub image: String,
    /// What it runs. Default: the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), inner(length(max = 131_072)))]
    pub command: Option<Vec<String>>,
    /// Arguments after `command`. Default: the image's, when `command` is not given either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 131_072)))]
    pub args: Option<Vec<String>>,
    /// Working directory: an absolute path. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^/"))]
    pub working_dir: Option<String>,
    /// Environment variables, as in a pod. `CW_SANDBOX_ID` is set by the operator; the main container's are not here. At most 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub env: Option<Vec<EnvVar>>,
    /// Secrets and ConfigMaps whose keys become environment variables, as in a pod. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// Requests and limits, as in a pod; those not named get the operator's defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// `Baseline` or `Restricted`: as the sandbox's, for this container. Default: the sandbox's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<SecurityProfile>,
    /// User (uid) this container runs as. Default: the sandbox's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_user: Option<i64>,
    /// Group (gid) this container runs as. Default: the sandbox's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_group: Option<i64>,
    /// Whether this container's root file system is read-only. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,
    /// Files that are there before this container starts. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Option<Vec<File>>,
    /// Where volumes of the sandbox are mounted in this container. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub mounts: Option<Vec<Mount>>,
}
