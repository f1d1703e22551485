//! What applies to the pod as a whole.

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::container::Sidecar;
use super::limits::MAX_ANNOTATIONS;
use super::merge::or_defaults;
use super::rules;
use super::volume::Volume;

/// Fields of the pod that do not belong to one container: images, scheduling, volumes, sidecars and metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodShape {
    /// When the kubelet pulls the images: `Always`, `IfNotPresent` or `Never`. Default: as in a pod (`Always` for the
    /// tag `latest`, else `IfNotPresent`). With `Never` and no such image on the node the sandbox is FAILED with reason
    /// `ErrImageNeverPull`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets of this namespace with registry credentials. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// RuntimeClass of the pod, for instance one for gVisor or Kata. Default: the node's runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Labels that a node must have for the pod to run there. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints that the pod tolerates. A toleration of `node.kubernetes.io/not-ready` or
    /// `node.kubernetes.io/unreachable` replaces the operator's 60 seconds, after which a sandbox on a lost node is
    /// FAILED with reason `NodeLost`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub tolerations: Option<Vec<Toleration>>,
    /// Rules for the choice of the node, as in a pod. Each of its lists has at most 64 items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// PriorityClass of the pod, which decides about preemption when nodes are full. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// ServiceAccount of the pod. Its token is never mounted; the account only matters to admission rules and image
    /// pull secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// False: the pod gets its own user namespace, so that root in the container is an unprivileged user on the node.
    /// Nodes and file systems must support it; Kubernetes enables it by default from 1.33. Default: the operator's
    /// setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// Volumes of the sandbox: scratch space or existing PersistentVolumeClaims. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::unique_where_given("mountPath", "volumes[].mountPath: must not be that of another volume"))]
    pub volumes: Option<Vec<Volume>>,
    /// Containers beside the main one. They share network and volumes, start before the main container, are restarted
    /// when they exit, and never decide the outcome. At most 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub sidecars: Option<Vec<Sidecar>>,
    /// Annotations of the pod. Keys of this operator, Kubernetes, autoscalers, networks and container runtimes are
    /// reserved: those under `sandbox-operator.dev`, `kubernetes.io`, `k8s.io`, `karpenter.sh`, `cncf.io`,
    /// `projectcalico.org`, `cilium.io`, `antrea.io`, `ovn.org`, `istio.io`, `linkerd.io` and their subdomains, and
    /// those that begin with `io.kubernetes.`, `io.katacontainers.`, `io.containerd.`, `dev.gvisor.`, `org.systemd.` or
    /// `run.oci.`. At most 64, with 261120 characters in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": MAX_ANNOTATIONS}))]
    #[x_kube(validation = rules::keys("podAnnotations"))]
    #[x_kube(validation = rules::total_of_map("podAnnotations", MAX_ANNOTATIONS))]
    pub pod_annotations: Option<BTreeMap<String, String>>,
    /// Labels of the pod. The same keys are reserved as for annotations. At most 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    #[x_kube(validation = rules::keys("podLabels"))]
    pub pod_labels: Option<BTreeMap<String, String>>,
}

impl PodShape {
    /// These fields, with `defaults` for those that are not set.
    #[must_use]
    pub fn or(self, defaults: PodShape) -> PodShape {
        or_defaults!(
            self,
            defaults,
            PodShape {
                image_pull_policy,
                image_pull_secrets,
                runtime_class_name,
                node_selector,
                tolerations,
                affinity,
                priority_class_name,
                service_account_name,
                host_users,
                volumes,
                sidecars,
                pod_annotations,
                pod_labels,
            }
        )
    }
}

/// When images are pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// If the node does not have it.
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
