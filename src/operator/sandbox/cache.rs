//! What is kept in memory of sandboxes and their children.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::Deserialize;

use super::pod::PodView;
use crate::api::{LABEL_SANDBOX, Sandbox, SandboxSession};
use crate::resources::{labels, network_policy};

/// The caches that reconciles of sandboxes read.
pub(crate) struct Caches {
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
    /// Without annotations, and without labels other than that of the sandbox.
    pub metadata: ObjectMeta,
    pub view: PodView,
}

impl From<Pod> for CachedPod {
    fn from(pod: Pod) -> CachedPod {
        let view = PodView::new(&pod);
        let mut metadata = pod.metadata;
        metadata.annotations = None;
        if let Some(labels) = metadata.labels.as_mut() {
            labels.retain(|key, _| key == LABEL_SANDBOX);
        }
        CachedPod { metadata, view }
    }
}

/// Drops what only the creation of the pod needs, once there is a pod or can be none: it is the largest part, and users
/// decide how large.
pub(crate) fn slim(sandbox: &mut Sandbox) {
    if sandbox
        .status
        .as_ref()
        .is_some_and(|s| s.pod_name.is_some() || s.state.is_final())
    {
        let w = &mut sandbox.spec.workload;
        let c = &mut w.container;
        (c.command, c.args, c.env, c.env_from, c.files) = (None, None, None, None, None);
        w.pod.sidecars = None;
    }
}

/// Drops the spec, and its hash unless the spec is the one that we wrote.
pub(crate) fn slim_policy(policy: &mut NetworkPolicy) {
    let hash = network_policy::spec_hash(policy)
        .filter(|_| network_policy::is_unmodified(policy))
        .cloned();
    policy.metadata.annotations = hash.map(|hash| [(labels::SPEC_HASH.into(), hash)].into());
    policy.spec = None;
}
