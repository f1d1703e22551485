//! Names and owner references of child objects. No other module creates any.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::labels::{self, ProbeRole};
use crate::api::{Sandbox, SandboxSession};

/// The standing policy of each namespace that denies all traffic of our pods.
pub(crate) const DENY_ALL: &str = "sandbox-operator-deny-all";
/// The finalizer by which the garbage collector keeps an object until its dependents are deleted.
pub(crate) const FOREGROUND_DELETION: &str = "foregroundDeletion";
const POLICY: &str = "NetworkPolicy";
/// Longest name of a pod that is also a label value and a host name.
const MAX: usize = 63;

/// Name of the sandbox's pod, policy and ConfigMap of files, and of its Service if its own name is taken. It ends in 8 hex
/// digits of the Sandbox's UID: a Sandbox that is created again under its old name must not collide with its
/// predecessor's children while they are deleted.
pub(crate) fn child(sandbox: &Sandbox) -> String {
    with_uid(sandbox, "")
}

/// Name of the sandbox's Service unless another object has it: users know it before the sandbox exists.
pub(crate) fn service(sandbox: &Sandbox) -> String {
    sandbox.name_any()
}

/// Name of the Service that publishes ports outside the cluster.
pub(crate) fn public_service(sandbox: &Sandbox) -> String {
    with_uid(sandbox, "-public")
}

fn with_uid(sandbox: &Sandbox, end: &str) -> String {
    let uid = sandbox.uid().unwrap_or_default();
    let suffix: String = uid.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    let name = sandbox.name_any();
    // The API admits ASCII names only.
    let head = name.get(..MAX - 9 - end.len()).unwrap_or(&name).trim_end_matches('-');
    format!("{head}-{suffix}{end}")
}

/// Metadata of a child that is deleted with its Sandbox.
pub(crate) fn child_meta(sandbox: &Sandbox) -> ObjectMeta {
    ObjectMeta {
        name: Some(child(sandbox)),
        namespace: sandbox.namespace(),
        labels: Some(labels::of_child(sandbox)),
        owner_references: Some(vec![controlled_by(sandbox)]),
        ..ObjectMeta::default()
    }
}

fn controlled_by(sandbox: &Sandbox) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..owner(sandbox)
    }
}

/// Reference from a Sandbox to the session that owns it.
pub(crate) fn session_owner(session: &SandboxSession) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        ..owner(session)
    }
}

/// Makes the policy an owner of the pod, instead of a deleted one with its name. The garbage collector then deletes the
/// policy after the pod, which stays restricted while it terminates.
pub(crate) fn set_policy_owner(pod: &mut ObjectMeta, policy_uid: &str) {
    let name = pod.name.clone().unwrap_or_default();
    let owners = pod.owner_references.get_or_insert_default();
    owners.retain(|o| !(o.kind == POLICY && o.name == name));
    owners.push(OwnerReference {
        api_version: "networking.k8s.io/v1".into(),
        kind: POLICY.into(),
        name,
        uid: policy_uid.into(),
        controller: None,
        block_owner_deletion: Some(true),
    });
}

/// UID of the policy that owns the pod.
pub(crate) fn policy_owner(pod: &ObjectMeta) -> Option<&str> {
    let mut owners = pod.owner_references.iter().flatten();
    owners
        .find(|o| o.kind == POLICY && Some(&o.name) == pod.name.as_ref())
        .map(|o| o.uid.as_str())
}

/// Metadata of an object of a check of NetworkPolicy.
pub(crate) fn probe_meta(namespace: &str, token: &str, role: ProbeRole) -> ObjectMeta {
    let id = labels::probe_id(token);
    ObjectMeta {
        name: Some(format!("probe-{id}-{}", role.as_str())),
        namespace: Some(namespace.into()),
        labels: Some(labels::of_probe(token, role)),
        ..ObjectMeta::default()
    }
}

/// Makes the first policy of a check the owner of another of its objects.
pub(crate) fn set_probe_owner(meta: &mut ObjectMeta, policy: &NetworkPolicy) {
    meta.owner_references = Some(vec![owner(policy)]);
}

/// Name of a sandbox created through the gateway, from 32 bytes: a hash of caller and request, or random ones.
pub(crate) fn of_request(bytes: &[u8; 32]) -> String {
    // 120 bits are far from colliding by chance, and leave room in the children's names.
    let digits: String = bytes[..15].iter().map(|b| format!("{b:02x}")).collect();
    format!("sbx-{digits}")
}

/// Name of a Secret with contents of a request's files.
pub(crate) fn files_secret(sandbox: &str, number: usize) -> String {
    format!("{sandbox}-files-{number}")
}

/// Name of the Secret with the values that a request reads from secret stores.
pub(crate) fn values_secret(sandbox: &str) -> String {
    format!("{sandbox}-values")
}

/// Name of the Secret with the credentials for a request's images.
pub(crate) fn registry_secret(sandbox: &str) -> String {
    format!("{sandbox}-registry")
}

/// Metadata of an object with this name that the Sandbox owns and that is deleted with it.
pub(crate) fn owned_meta(sandbox: &Sandbox, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        ..child_meta(sandbox)
    }
}

/// Whether `text` is a valid name of an object. Names from callers are checked before they become part of a URL.
pub(crate) fn is_name(text: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        let bytes = l.as_bytes();
        bytes.first().is_some_and(|b| edge(*b))
            && bytes.last().is_some_and(|b| edge(*b))
            && bytes.iter().all(|b| edge(*b) || *b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn owner<K: Resource<DynamicType = ()>>(object: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// Whether `meta` is a child of this Sandbox: decided by the UID of its controller, never by name.
pub(crate) fn is_child(meta: &ObjectMeta, sandbox: &Sandbox) -> bool {
    let uid = sandbox.uid();
    let controller = meta
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true));
    controller.is_some_and(|o| {
        Some(&o.uid) == uid.as_ref() && o.kind == Sandbox::kind(&()) && o.api_version == Sandbox::api_version(&())
    })
}

/// Whether the object of this UID is an owner.
pub(crate) fn has_owner(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|o| o.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SandboxSpec;

    fn named(name: &str) -> Sandbox {
        let mut sandbox = Sandbox::new(name, SandboxSpec::default());
        sandbox.metadata.uid = Some("1234abcd-0000-0000-0000-000000000000".into());
        sandbox
    }

    #[test]
    fn child_name_ends_in_the_uid_and_fits_a_label() {
        assert_eq!(child(&named("train")), "train-1234abcd");
        let long = child(&named(&format!("a{}", "b".repeat(62))));
        assert_eq!((long.len(), long.ends_with("b-1234abcd")), (63, true));
        let public = public_service(&named(&format!("a{}", "b".repeat(62))));
        assert_eq!((public.len(), public.ends_with("b-1234abcd-public")), (63, true));
        assert!(!child(&named(&format!("{}-{}", "a".repeat(53), "b".repeat(9)))).contains("--"));
    }

    #[test]
    fn names_of_requests_are_stable_and_fit_with_their_children() {
        let name = of_request(&[0xab; 32]);
        assert_eq!((name.len(), name.starts_with("sbx-abab")), (34, true));
        assert!(
            is_name(&name) && child(&named(&name)).starts_with(&name),
            "not truncated"
        );
        assert_ne!(of_request(&[0xac; 32]), name);
    }

    #[test]
    fn text_that_would_change_a_url_is_not_a_name() {
        for text in [
            "",
            "..",
            "a/b",
            "a?x=y",
            "../secrets/a",
            "A",
            "a..b",
            "-a",
            "a%2fb",
            "a#",
            &"a".repeat(254),
        ] {
            assert!(!is_name(text), "{text}");
        }
        assert!(is_name("a") && is_name("a-1.b"));
    }

    #[test]
    fn a_child_is_recognised_by_uid_not_by_name() {
        let sandbox = named("train");
        let meta = child_meta(&sandbox);
        assert!(is_child(&meta, &sandbox));
        let with = |change: fn(&mut OwnerReference)| {
            let mut meta = meta.clone();
            meta.owner_references.iter_mut().flatten().for_each(change);
            is_child(&meta, &sandbox)
        };
        assert!(!with(|owner| owner.uid = "other".into()));
        assert!(
            !with(|owner| owner.controller = None),
            "an owner that is not the controller"
        );
        assert!(!with(|owner| owner.kind = "SandboxSession".into()));
    }
}
