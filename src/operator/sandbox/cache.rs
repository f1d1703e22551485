//! What is kept in memory of sandboxes and their children.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::Deserialize;

use super::pod::PodView;
use crate::api::{Container, LABEL_SANDBOX, LABEL_SANDBOX_UID, PodShape, Sandbox, SandboxSession};
use crate::resources::{self, labels, network_policy};

/// Maximum size of the annotation by which a pod is recognised, in bytes.
const MAX_PROOF: usize = 256;
/// Maximum number of owners of a child that are kept. Our children have two.
const MAX_OWNERS: usize = 16;

/// The caches that reconciles of sandboxes read.
pub(crate) struct Caches {
    pub sandboxes: Store<Sandbox>,
    pub sessions: Store<SandboxSession>,
    pub pods: Store<CachedPod>,
    /// Our policies, as [`slim_policy`] leaves them.
    pub policies: Store<NetworkPolicy>,
}

/// The key of a cached object.
pub(super) fn reference<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> ObjectRef<K> {
    ObjectRef::new(name).within(namespace)
}

/// A cached pod. A whole one would cost 40 KB of memory, and an empty value of its type 2.4 KB.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Pod)]
#[serde(from = "Pod")]
pub(crate) struct CachedPod {
    /// With only the annotation and the labels by which it is recognised.
    pub metadata: ObjectMeta,
    pub view: PodView,
}

impl From<Pod> for CachedPod {
    fn from(pod: Pod) -> CachedPod {
        let view = PodView::new(&pod);
        let mut metadata = pod.metadata;
        if let Some(annotations) = metadata.annotations.as_mut() {
            annotations.retain(|key, value| key == labels::PROOF && value.len() <= MAX_PROOF);
        }
        limit(&mut metadata, &[LABEL_SANDBOX, LABEL_SANDBOX_UID]);
        CachedPod { metadata, view }
    }
}

/// Keeps the part of a child's metadata that is read. Anyone who can create pods or policies can give them our labels.
fn limit(meta: &mut ObjectMeta, kept: &[&str]) {
    if let Some(labels) = meta.labels.as_mut() {
        labels.retain(|key, _| kept.contains(&key.as_str()));
    }
    meta.finalizers = None;
    if let Some(owners) = meta
        .owner_references
        .as_mut()
        .filter(|owners| owners.len() > MAX_OWNERS)
    {
        owners.retain(|o| o.controller == Some(true) || o.kind == "NetworkPolicy");
        owners.truncate(MAX_OWNERS);
    }
}

/// Whether a sandbox has not ended, and has no known pod.
pub(crate) fn has_no_pod(sandbox: &Sandbox) -> bool {
    let status = sandbox.status.as_ref();
    status.is_none_or(|s| s.pod_name.is_none() && !s.state.is_final())
}

/// Drops the fields that only the creation of the pod needs, once there is a pod or can be none: they are the largest
/// part, and users control their size. A heavy sandbox is stripped even before that; see `whole.rs`.
pub(crate) fn slim(sandbox: &mut Sandbox) {
    if sandbox
        .status
        .as_ref()
        .is_some_and(|s| s.pod_name.is_some() || s.state.is_final())
    {
        let w = &mut sandbox.spec.workload;
        w.container = Container::default();
        w.pod = PodShape::default();
    }
    resources::slim::sandbox(sandbox);
}

/// Drops the spec, and its hash unless the spec is the one that we wrote.
pub(crate) fn slim_policy(policy: &mut NetworkPolicy) {
    let hash = network_policy::spec_hash(policy)
        .filter(|_| network_policy::is_unmodified(policy))
        .cloned();
    policy.metadata.annotations = hash.map(|hash| [(labels::SPEC_HASH.into(), hash)].into());
    limit(&mut policy.metadata, &[LABEL_SANDBOX]);
    policy.spec = None;
}
