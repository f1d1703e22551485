//! The objects of a draft: the Sandbox, and the Secrets that it owns. Pure functions.

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use std::collections::BTreeMap;
use tonic::Status;

use super::create_request::CreateRequest;
use crate::api::FieldPath;
use crate::api::{
    ANNOTATION_CREATED_BY, ANNOTATION_DISPLAY_NAME, ANNOTATION_HOLD, ANNOTATION_MAIN_NAME, ANNOTATION_REQUEST,
    ANNOTATION_REQUEST_METADATA, ANNOTATION_STORED_BYTES, ANNOTATION_TEMPLATE, ANNOTATION_TEMPLATE_REVISION, Sandbox,
    SandboxSpec,
};
use crate::gateway::convert::draft::Draft;
use crate::gateway::convert::problems::Problems;
use crate::gateway::convert::secrets::ResolvedSecrets;
use crate::gateway::edge::caller::Caller;
use crate::resources::names;

/// Most bytes of a Sandbox: etcd accepts 1.5 MiB, and the operator adds a status.
const MAX_BYTES: usize = 1 << 20;

/// The Sandbox. The operator does not start it before the Secrets exist that it owns. `spec_path`: where the spec is in
/// the request.
///
/// # Errors
/// INVALID_ARGUMENT if it is larger than an object can be.
pub(crate) fn sandbox(
    caller: &Caller,
    request: &CreateRequest,
    spec_path: &FieldPath,
    draft: &Draft,
    secrets: &ResolvedSecrets,
) -> Result<Sandbox, Status> {
    let spec = SandboxSpec {
        workload: draft.workload.clone(),
        ..SandboxSpec::default()
    };
    let mut sandbox = Sandbox::new(&request.key.name, spec);
    sandbox.metadata.namespace = Some(caller.namespace.clone());
    let is_held = !owned(draft, secrets).is_empty();
    let (template, revision) = request.template.clone().unzip();
    let annotations = [
        (ANNOTATION_CREATED_BY, Some(caller.user.clone())),
        (ANNOTATION_REQUEST, Some(request.key.body_sha256.clone())),
        (ANNOTATION_REQUEST_METADATA, draft.metadata.annotation()),
        (ANNOTATION_MAIN_NAME, draft.main_name.clone()),
        (
            ANNOTATION_DISPLAY_NAME,
            Some(request.display_name.clone()).filter(|n| !n.is_empty()),
        ),
        (ANNOTATION_TEMPLATE, template),
        (ANNOTATION_TEMPLATE_REVISION, revision.map(|r| r.to_string())),
        (ANNOTATION_HOLD, is_held.then(|| "files".into())),
    ];
    let annotations = annotations
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    sandbox.metadata.annotations = Some(annotations.collect());
    let size = serde_json::to_vec(&sandbox)
        .map(|bytes| bytes.len())
        .unwrap_or_default();
    if size > MAX_BYTES {
        let mut problems = Problems::default();
        problems.invalid(
            spec_path,
            format!("must have at most {MAX_BYTES} bytes without its files, not {size}"),
        );
        problems.into_result()?;
    }
    let secrets: usize = owned(draft, secrets)
        .iter()
        .flat_map(|(_, _, data)| data.values())
        .map(Bytes::len)
        .sum();
    let stored = (size + secrets).to_string();
    sandbox.annotations_mut().insert(ANNOTATION_STORED_BYTES.into(), stored);
    Ok(sandbox)
}

/// The Secrets that `sandbox` owns. It must be the object that the API server returned, with a UID.
pub(crate) fn secrets(sandbox: &Sandbox, draft: &Draft, secrets: &ResolvedSecrets) -> Vec<Secret> {
    owned(draft, secrets)
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

/// Names, types and contents of the Secrets.
fn owned(draft: &Draft, secrets: &ResolvedSecrets) -> Vec<Owned> {
    let files = draft.contents.secrets.iter().enumerate();
    let mut all: Vec<Owned> = files
        .map(|(i, data)| (names::files_secret(&draft.name, i), None, data.clone()))
        .collect();
    if !secrets.values.is_empty() {
        all.push((names::values_secret(&draft.name), None, secrets.values.clone()));
    }
    if let Some(config) = &secrets.registries {
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), config.clone())]);
        all.push((
            names::registry_secret(&draft.name),
            Some("kubernetes.io/dockerconfigjson"),
            data,
        ));
    }
    all
}

#[cfg(test)]
pub(crate) mod tests;
