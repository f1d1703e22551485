//! Volumes of a sandbox, and where they are mounted.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// One volume. Exactly one of `scratch` and `persistentVolumeClaim` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.scratch) != has(self.persistentVolumeClaim)")
    .message("volumes[]: give exactly one of scratch and persistentVolumeClaim"))]
pub struct Volume {
    /// Name, unique in the sandbox: a DNS label. Names that begin with `sandbox-operator` are reserved.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = rules::name("volumes[].name"))]
    pub name: String,
    /// Absolute path in the main container that no other volume or file uses. Without it the volume is only mounted
    /// where `mounts` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::path("volumes[].mountPath"))]
    pub mount_path: Option<String>,
    /// A path inside the volume to mount instead of its root; relative, without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::sub_path("volumes[].subPath"))]
    pub sub_path: Option<String>,
    /// Whether the main container may only read it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Empty space that is deleted with the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
    /// An existing PersistentVolumeClaim of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<Claim>,
}

/// Empty space that is deleted with the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.medium) || self.medium != 'Memory' || has(self.size)").message("volumes[].scratch.size: is required with medium Memory"))]
pub struct Scratch {
    /// Its capacity, a Kubernetes quantity such as `1Gi`. Above it the kubelet evicts the pod (disk) or writes fail
    /// (memory). Required with `medium: Memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 32))]
    #[x_kube(validation = rules::quantity("volumes[].scratch.size", true))]
    pub size: Option<Quantity>,
    /// `Disk` (the default) or `Memory`, which counts as the pod's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<Medium>,
}

/// Where scratch space is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum Medium {
    /// The node's disk.
    Disk,
    /// Memory of the pod.
    Memory,
}

/// An existing PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Name of the PersistentVolumeClaim, in the sandbox's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
}

/// Where a volume is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Name of one of the sandbox's `volumes`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Absolute path in this container that no other mount uses.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::path("mounts[].mountPath"))]
    pub mount_path: String,
    /// A path inside the volume to mount instead of its root; relative, without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::sub_path("mounts[].subPath"))]
    pub sub_path: Option<String>,
    /// Whether this container may only read it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}
