//! Proof that an operator of this installation created a pod: a signature in an annotation. Until the UID of a pod is
//! recorded, its name and its owner references prove nothing: anyone who can create pods in the namespace can set them.
//!
//! Anyone who can read the pod can read the signature. To reuse it for a second pod, an attacker would have to delete
//! the first one before its UID is in the status, and the operator would have to restart in that time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::agent_client::KeyRing;
use crate::api::Sandbox;
use crate::resources::{labels, names};

/// The signed text. It cannot be mistaken for the claims of a token, which are base64-encoded.
fn message(sandbox: &Sandbox, pod: &str) -> Vec<u8> {
    let (namespace, uid) = (
        sandbox.namespace().unwrap_or_default(),
        sandbox.uid().unwrap_or_default(),
    );
    format!("pod {pod} in {namespace} for Sandbox {uid}").into_bytes()
}

/// Adds the proof to a pod that is about to be created. Without the key, the pod gets no proof.
pub(super) fn add(pod: &mut ObjectMeta, sandbox: &Sandbox, keys: &KeyRing, key_id: &str) {
    let message = message(sandbox, pod.name.as_deref().unwrap_or_default());
    match keys.sign(key_id, &message) {
        Ok(signature) => {
            let proof = format!("{key_id}.{}", BASE64.encode(signature));
            pod.annotations
                .get_or_insert_default()
                .insert(labels::PROOF.into(), proof);
        }
        Err(error) => tracing::warn!(%error, "cannot sign a pod"),
    }
}

/// Whether this pod was created for this sandbox by an operator of this installation.
pub(crate) fn is_ours(pod: &ObjectMeta, sandbox: &Sandbox, keys: &KeyRing) -> bool {
    let name = pod.name.as_deref().unwrap_or_default();
    let proof = pod.annotations.as_ref().and_then(|a| a.get(labels::PROOF));
    let is_signed = proof
        .and_then(|proof| proof.rsplit_once('.'))
        .is_some_and(|(key_id, signature)| {
            BASE64
                .decode(signature)
                .is_ok_and(|signature| keys.has_signed(key_id, &message(sandbox, name), &signature))
        });
    is_signed && name == names::child(sandbox) && names::is_child(pod, sandbox) && labels::is_of(pod, sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::Ed25519KeyPair;
    use serde_json::json;

    fn sandbox(uid: &str) -> Sandbox {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": uid}, "spec": {}});
        serde_json::from_value(object).unwrap()
    }

    fn keys() -> KeyRing {
        let keys = KeyRing::default();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        keys.insert("k", pkcs8.as_ref()).unwrap();
        keys
    }

    fn signed(sandbox: &Sandbox, keys: &KeyRing) -> ObjectMeta {
        let mut meta = names::child_meta(sandbox);
        add(&mut meta, sandbox, keys, "k");
        meta
    }

    #[test]
    fn a_pod_that_this_installation_created_is_adopted() {
        let (sandbox, keys) = (sandbox("1234abcd-1"), keys());
        assert!(is_ours(&signed(&sandbox, &keys), &sandbox, &keys));
    }

    #[test]
    fn a_pod_that_somebody_else_created_is_not_adopted_whatever_its_metadata_says() {
        let (sandbox, keys) = (sandbox("1234abcd-1"), keys());
        let ours = signed(&sandbox, &keys);
        let with = |change: &dyn Fn(&mut ObjectMeta)| {
            let mut meta = ours.clone();
            change(&mut meta);
            is_ours(&meta, &sandbox, &keys)
        };
        let annotate = |meta: &mut ObjectMeta, proof: &str| {
            meta.annotations
                .get_or_insert_default()
                .insert(labels::PROOF.into(), proof.into());
        };
        assert!(!with(&|m| m.annotations = None), "name, labels and owner only");
        for forged in ["", "k", "k.", "k.AAAA", "other.AAAA"] {
            assert!(!with(&|m| annotate(m, forged)), "{forged}");
        }
        assert!(
            !with(&|m| m.annotations = signed(&sandbox, &self::keys()).annotations),
            "of another installation"
        );
        let of_another = signed(&self::sandbox("1234abcd-2"), &keys);
        assert!(
            !with(&|m| m.annotations.clone_from(&of_another.annotations)),
            "of another sandbox"
        );
        assert!(!with(&|m| m.name = Some("b".into())));
        assert!(!with(&|m| m.labels = None));
        assert!(!with(&|m| m.owner_references = None));
        assert!(!with(&|m| m
            .owner_references
            .iter_mut()
            .flatten()
            .for_each(|o| o.controller = None)));
    }
}
