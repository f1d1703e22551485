//! The objects of a draft: the Sandbox, and the Secrets that it owns. Pure.

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;
use tonic::Status;

use super::order::Order;
use crate::api::{
    ANNOTATION_DISPLAY_NAME, ANNOTATION_HOLD, ANNOTATION_MAIN_NAME, ANNOTATION_REQUEST, ANNOTATION_REQUEST_FACTS, ANNOTATION_TEMPLATE,
    ANNOTATION_TEMPLATE_REVISION, Sandbox, SandboxSpec,
};
use crate::gateway::convert::request::Draft;
use crate::gateway::convert::secrets::Resolved;
use crate::gateway::error;
use crate::resources::names;

/// Most bytes of a Sandbox: etcd ends an object at 1.5 MiB, and the operator adds a status.
const MAX_BYTES: usize = 1 << 20;

/// The Sandbox. It is held back where Secrets must follow.
///
/// # Errors
/// INVALID_ARGUMENT if it is larger than an object can be.
pub fn sandbox(namespace: &str, order: &Order, draft: &Draft, resolved: &Resolved) -> Result<Sandbox, Status> {
    let spec = SandboxSpec {
        workload: draft.workload.clone(),
        ..SandboxSpec::default()
    };
    let mut sandbox = Sandbox::new(&order.name, spec);
    sandbox.metadata.namespace = Some(namespace.into());
    let held = !owned(draft, resolved).is_empty();
    let (template, revision) = order.template.clone().unzip();
    let annotations = [
        (ANNOTATION_REQUEST, Some(order.hash.clone())),
        (ANNOTATION_REQUEST_FACTS, draft.facts.annotation()),
        (ANNOTATION_MAIN_NAME, draft.main_name.clone()),
        (ANNOTATION_DISPLAY_NAME, Some(order.display_name.clone()).filter(|n| !n.is_empty())),
        (ANNOTATION_TEMPLATE, template),
        (ANNOTATION_TEMPLATE_REVISION, revision.map(|r| r.to_string())),
        (ANNOTATION_HOLD, held.then(|| "files".into())),
    ];
    let annotations = annotations.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    sandbox.metadata.annotations = Some(annotations.collect());
    let size = serde_json::to_vec(&sandbox).map(|bytes| bytes.len()).unwrap_or_default();
    if size > MAX_BYTES {
        let text = format!("is {size} bytes without its files; it may be {MAX_BYTES}");
        return Err(error::invalid(vec![error::Violation::new("sandbox.spec", text)]));
    }
    Ok(sandbox)
}

/// The Secrets that `sandbox`, as the API server has it, owns.
pub fn secrets(sandbox: &Sandbox, draft: &Draft, resolved: &Resolved) -> Vec<Secret> {
    owned(draft, resolved)
        .into_iter()
        .map(|(name, kind, data)| Secret {
            metadata: names::owned_meta(sandbox, name),
            type_: kind.map(Into::into),
            data: Some(data.into_iter().map(|(k, v)| (k, ByteString(v.to_vec()))).collect()),
            immutable: Some(true),
            ..Secret::default()
        })
        .collect()
}

type Owned = (String, Option<&'static str>, BTreeMap<String, Bytes>);

/// Names, types and contents.
fn owned(draft: &Draft, resolved: &Resolved) -> Vec<Owned> {
    let files = draft.contents.secrets.iter().enumerate();
    let mut all: Vec<Owned> = files.map(|(i, data)| (names::files_secret(&draft.name, i), None, data.clone())).collect();
    if !resolved.values.is_empty() {
        all.push((names::values_secret(&draft.name), None, resolved.values.clone()));
    }
    if let Some(config) = &resolved.registries {
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), config.clone())]);
        all.push((names::registry_secret(&draft.name), Some("kubernetes.io/dockerconfigjson"), data));
    }
    all
}
