//! Labels and annotations of child objects. No other module creates any.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use kube::ResourceExt;
use std::collections::BTreeMap;

use crate::api::{
    LABEL_MANAGED_BY, LABEL_SANDBOX, LABEL_SANDBOX_UID, LABEL_SESSION, MANAGER, RESERVED_DOMAINS, RESERVED_PREFIXES,
    Sandbox,
};

/// Kubernetes' label with a namespace's name.
pub(crate) const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// Annotation of a policy: a hash of the spec with which it was created, by which an edit is detected.
pub(crate) const SPEC_HASH: &str = "sandbox-operator.dev/spec-hash";

/// Annotation of a pod: the operator's signature, by which it recognises a pod that it created.
pub(crate) const PROOF: &str = "sandbox-operator.dev/proof";

/// Label of the objects of a check of NetworkPolicy, with the check's id.
pub(crate) const PROBE: &str = "sandbox-operator.dev/probe";
/// Label of the objects of a check of NetworkPolicy: which end of the connection they belong to.
const PROBE_ROLE: &str = "sandbox-operator.dev/probe-role";

/// The two ends of a check of NetworkPolicy.
#[derive(Clone, Copy)]
pub(crate) enum ProbeRole {
    Server,
    Client,
}

impl ProbeRole {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            ProbeRole::Server => "server",
            ProbeRole::Client => "client",
        }
    }
}

/// The part of a check's token that is in its names and labels.
pub(super) fn probe_id(token: &str) -> &str {
    token.get(..8).unwrap_or(token)
}

/// Labels of an object of a check. Without the label that watches select, because it is not a child of a Sandbox.
pub(super) fn of_probe(token: &str, role: ProbeRole) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".into(), MANAGER.into()),
        ("app.kubernetes.io/component".into(), "network-probe".into()),
        (PROBE.into(), probe_id(token).into()),
        (PROBE_ROLE.into(), role.as_str().into()),
    ])
}

/// Selects the pods of one end of a check.
pub(super) fn probe_selector(token: &str, role: ProbeRole) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([
            (PROBE.into(), probe_id(token).into()),
            (PROBE_ROLE.into(), role.as_str().into()),
        ])),
        match_expressions: None,
    }
}

/// Labels of every child of a Sandbox.
pub(crate) fn of_child(sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut labels = managed();
    labels.insert(LABEL_SANDBOX.into(), sandbox.name_any());
    labels.insert(LABEL_SANDBOX_UID.into(), sandbox.uid().unwrap_or_default());
    if let Some(session) = &sandbox.spec.session_name {
        labels.insert(LABEL_SESSION.into(), session.clone());
    }
    labels
}

/// The label that watches select.
pub(crate) fn managed() -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_MANAGED_BY.into(), MANAGER.into())])
}

/// Whether an object has that label.
pub(crate) fn is_managed(meta: &ObjectMeta) -> bool {
    meta.labels
        .as_ref()
        .and_then(|l| l.get(LABEL_MANAGED_BY))
        .is_some_and(|v| v == MANAGER)
}

/// Whether an object has the labels by which watches and policies select the children of this Sandbox.
pub(crate) fn is_of(meta: &ObjectMeta, sandbox: &Sandbox) -> bool {
    let uid = meta.labels.as_ref().and_then(|l| l.get(LABEL_SANDBOX_UID));
    uid.is_some() && uid == sandbox.metadata.uid.as_ref()
}

/// Label selector of the watches.
pub(crate) fn managed_selector() -> String {
    format!("{LABEL_MANAGED_BY}={MANAGER}")
}

/// Selects the pod of one Sandbox.
pub(crate) fn selector(sandbox: &Sandbox) -> LabelSelector {
    LabelSelector {
        match_labels: Some(BTreeMap::from([(
            LABEL_SANDBOX_UID.into(),
            sandbox.uid().unwrap_or_default(),
        )])),
        match_expressions: None,
    }
}

/// Selects the pods of all Sandboxes.
pub(crate) fn all_sandboxes() -> LabelSelector {
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

/// Annotations that keep autoscalers from evicting a pod: a sandbox never gets a second one.
pub(crate) fn undisturbed() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("cluster-autoscaler.kubernetes.io/safe-to-evict".into(), "false".into()),
        ("karpenter.sh/do-not-disrupt".into(), "true".into()),
    ])
}

/// Whether users may not set this key in a pod's labels and annotations. The CRDs have the same rule.
pub(crate) fn is_reserved(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, _)) => RESERVED_DOMAINS
            .iter()
            .any(|r| domain == *r || domain.ends_with(&format!(".{r}"))),
        None => RESERVED_PREFIXES.iter().any(|r| key.starts_with(r)),
    }
}

/// Whether `text` is a valid and non-empty label value.
pub(crate) fn is_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Whether `key` is a valid key of a label or annotation.
pub(crate) fn is_key(key: &str) -> bool {
    let part = |l: &str| is_value(l) && l.chars().all(|c| !c.is_ascii_uppercase() && c != '_');
    match key.split_once('/') {
        None => is_value(key),
        Some((domain, name)) => is_value(name) && domain.len() <= 253 && domain.split('.').all(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_labels_and_annotations() {
        for (key, good) in [
            ("a", true),
            ("example.com/A_b.c", true),
            ("", false),
            ("a/b/c", false),
            ("Ex.com/a", false),
            ("/a", false),
            ("a b", false),
        ] {
            assert_eq!(is_key(key), good, "{key}");
        }
        assert!(is_value("a_B.1") && !is_value("") && !is_value("a,b=c") && !is_value("-a"));
    }

    #[test]
    fn reserved_domains_and_their_subdomains() {
        for (key, reserved) in [
            ("sandbox-operator.dev/x", true),
            ("container.apparmor.security.beta.kubernetes.io/main", true),
            ("karpenter.sh/do-not-disrupt", true),
            ("k8s.v1.cni.cncf.io/networks", true),
            ("io.katacontainers.config.hypervisor.path", true),
            ("io.kubernetes.cri-o.userns-mode", true),
            ("io.kubernetes", false),
            ("example.com/io.kubernetes.x", false),
            ("team", false),
            ("example.com/kubernetes.io", false),
            ("notkubernetes.io/x", false),
        ] {
            assert_eq!(is_reserved(key), reserved, "{key}");
        }
    }
}
