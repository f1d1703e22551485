//! What a request said that no field of a Sandbox says: kept in an annotation, so that the sandbox is told as it was asked for. It decides
//! nothing about the pod, and a sandbox without it (made by kubectl) is told from its spec alone.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::api::{ANNOTATION_REQUEST_FACTS, Sandbox};

/// Most bytes of the annotation: lists read it of each sandbox, and who may edit one may write there what they like.
const MAX_BYTES: usize = 32 << 10;

/// What a request said that no field of a Sandbox says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// `SandboxMode`.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: i32,
    /// Runners that would do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runner_ids: Vec<String>,
    /// `Visibility` of the ports, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub visibilities: BTreeMap<String, i32>,
    /// Where the values of variables come from that are members of a secret: by container, then by variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, BTreeMap<String, Source>>,
    /// Registry credentials, by container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, Registry>,
    /// Ids of registered volumes, by the names they have in the sandbox.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
}

/// A secret, or a member of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the store.
    pub store: String,
    /// Key in the store.
    pub path: String,
    /// Member of the value; empty: the whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// Credentials of a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// Host, and port where it has one.
    pub registry: String,
    /// Where they come from.
    #[serde(flatten)]
    pub source: Source,
}

impl Facts {
    /// Those of a sandbox; none of one that was not made through the gateway, or whose annotation somebody edited.
    pub fn of(sandbox: &Sandbox) -> Facts {
        let text = sandbox.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_REQUEST_FACTS));
        let text = text.filter(|t| t.len() <= MAX_BYTES);
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default()
    }

    /// The annotation; none if there is nothing to say.
    pub fn annotation(&self) -> Option<String> {
        (*self != Facts::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether there is more to say than an annotation takes.
    pub fn is_too_much(&self) -> bool {
        self.annotation().is_some_and(|text| text.len() > MAX_BYTES)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(mode: &i32) -> bool {
    *mode == 0
}
