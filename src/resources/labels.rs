//! Every label and annotation of a child is made here and nowhere else.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::ResourceExt;
use std::collections::BTreeMap;

use crate::api::{LABEL_MANAGED_BY, LABEL_SANDBOX, LABEL_SANDBOX_UID, LABEL_SESSION, MANAGER, Sandbox};

/// Kubernetes' label with a namespace's name.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Annotation of a policy: a hash of its spec as it was made, which tells one that somebody edited.
pub const SPEC_HASH: &str = "sandbox-operator.dev/spec-hash";

/// Labels of every child of a Sandbox.
pub fn of_child(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut labels = managed();
    labels.insert(LABEL_SANDBOX.into(), sandbox.name_any());
    labels.insert(LABEL_SANDBOX_UID.into(), sandbox.uid().unwrap_or_default());
    if let Some(session) = &sandbox.spec.session_name {
        labels.insert(LABEL_SESSION.into(), session.clone());
    }
    labels
}

/// The label by which our watches select.
pub fn managed() -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_MANAGED_BY.into(), MANAGER.into())])
}

/// Whether an object has that label.
pub fn is_managed(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|l| l.get(LABEL_MANAGED_BY)).is_some_and(|v| v == MANAGER)
}

/// The watches' selector.
pub fn managed_selector() -> String {
    format!("{LABEL_MANAGED_BY}={MANAGER}")
}

/// Selects the pod of one Sandbox.
pub fn selector(sandbox: &Sandbox) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(LABEL_SANDBOX_UID.into(), sandbox.uid().unwrap_or_default())])),
        match_expressions: None,
    }
}

/// Selects the pods of all Sandboxes.
pub fn all_sandboxes() -> LabelSelector {
    let exists = LabelSelectorRequirement {
        key: LABEL_SANDBOX_UID.into(),
        operator: "Exists".into(),
        values: None,
    };
    LabelSelector {
        match_labels: None,
        match_expressions: Some(vec![exists]),
    }
}

/// Annotations that keep autoscalers from evicting a pod: its outcome cannot be had a second time.
pub fn undisturbed() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cluster-autoscaler.kubernetes.io/safe-to-evict".into(), "false".into()),
        ("karpenter.sh/do-not-disrupt".into(), "true".into()),
    ])
}
