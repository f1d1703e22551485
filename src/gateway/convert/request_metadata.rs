//! What a request contains that no field of a Sandbox holds. It is kept in an annotation, so that responses return what
//! was requested. It decides nothing about the pod. A Sandbox without it (created with kubectl) is converted from its
//! spec alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::api::{ANNOTATION_MAIN_NAME, ANNOTATION_REQUEST_METADATA, Sandbox};
use crate::resources::pod_containers::MAIN;

/// Most bytes of the annotation. Every list call reads it for each sandbox, and anyone who can edit a Sandbox can write
/// to it.
const MAX_BYTES: usize = 32 << 10;

/// What a request contains that no field of a Sandbox holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RequestMetadata {
    /// `SandboxMode`.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) mode: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) runner_ids: Vec<String>,
    /// `Visibility` of the ports, by port name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) visibilities: BTreeMap<String, i32>,
    /// The sources of variables whose values are copied from a field of a secret: by container, then by variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) values: BTreeMap<String, BTreeMap<String, SecretSource>>,
    /// Registry credentials, by container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) registries: BTreeMap<String, RegistryCredentials>,
    /// Ids of registered volumes, by the name of the sandbox's volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) volumes: BTreeMap<String, String>,
}

/// A secret of a store, or a field of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretSource {
    pub(crate) store: String,
    /// Key in the store.
    pub(crate) path: String,
    /// Field of the value; empty: the whole value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) field: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegistryCredentials {
    /// Host, and port if there is one.
    pub(crate) registry: String,
    #[serde(flatten)]
    pub(crate) source: SecretSource,
}

impl RequestMetadata {
    /// Reads the annotation. Empty for a Sandbox that was not created by the gateway, and for an annotation that cannot
    /// be parsed.
    pub(crate) fn of(sandbox: &Sandbox) -> RequestMetadata {
        let text = sandbox
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(ANNOTATION_REQUEST_METADATA));
        let text = text.filter(|t| t.len() <= MAX_BYTES);
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    /// The annotation; none if it would be empty.
    pub(crate) fn annotation(&self) -> Option<String> {
        (*self != RequestMetadata::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether the annotation would be too long.
    pub(crate) fn exceeds_limit(&self) -> bool {
        self.annotation().is_some_and(|text| text.len() > MAX_BYTES)
    }
}

/// The name of the main container in the request.
pub(crate) fn main_name(sandbox: &Sandbox) -> &str {
    let annotations = sandbox.metadata.annotations.as_ref();
    annotations
        .and_then(|a| a.get(ANNOTATION_MAIN_NAME))
        .map_or(MAIN, String::as_str)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(mode: &i32) -> bool {
    *mode == 0
}
