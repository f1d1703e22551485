//! The `SandboxTemplate` resource.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::workload::Workload;

/// A named partial sandbox to create from. It is read when a sandbox is created from it; later changes do not affect
/// that sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "sandbox-operator.dev",
    version = "v1alpha1",
    kind = "SandboxTemplate",
    plural = "sandboxtemplates",
    shortname = "sbxt",
    namespaced,
    derive = "PartialEq",
    derive = "Default",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.containerImage"),
    printcolumn(name = "Revision", type_ = "integer", json_path = ".metadata.generation"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct SandboxTemplateSpec {
    /// Fields that shape the pod.
    #[serde(flatten)]
    pub workload: Workload,
}
