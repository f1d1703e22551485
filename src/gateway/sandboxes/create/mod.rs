//! CreateSandbox and CreateSandboxFromTemplate. The Sandbox is created first, then the Secrets that it owns; the
//! operator waits for them. Each step can be repeated by any replica: a request that is sent again completes what the
//! first attempt did not.

pub(crate) mod create_request;
pub(crate) mod idempotency;
pub(crate) mod objects;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Code, Status};

use self::create_request::CreateRequest;
use self::idempotency::IdempotencyKey;
use crate::api::{
    ANNOTATION_HOLD, ANNOTATION_STORED_BYTES, LABEL_SECRET_STORE, Sandbox, SandboxTemplate, VOLUME_READ_ONLY,
    VOLUME_SUB_PATH, Workload,
};
use crate::gateway::cluster::sandbox_cache::Usage;
use crate::gateway::cluster::volumes::find;
use crate::gateway::config::Limits;
use crate::gateway::convert::context::ConvertContext;
use crate::gateway::convert::draft::Draft;
use crate::gateway::convert::from_proto;
use crate::gateway::convert::secrets::{self, ResolvedSecrets, StoreData};
use crate::gateway::convert::text::quoted;
use crate::gateway::convert::volumes::{self, RegisteredVolume};
use crate::gateway::edge::caller::Caller;
use crate::gateway::error::{self, of_kube, reason};
use crate::gateway::sandboxes::view::SandboxView;
use crate::kube::ApiClient;
use crate::proto::sandbox as pb;
use crate::resources::names;
use crate::resources::slim::is_stripped;

/// What the creation of sandboxes needs.
pub(crate) struct Creator {
    /// The API server.
    pub(crate) api: ApiClient,
    /// Converts the created sandbox for the response.
    pub(crate) view: SandboxView,
}

/// CreateSandbox.
///
/// # Errors
/// INVALID_ARGUMENT with the invalid fields; ALREADY_EXISTS for a `request_id` that another request has used.
pub(crate) async fn create(
    creator: &Creator,
    caller: &Caller,
    request: pb::CreateSandboxRequest,
) -> Result<pb::Sandbox, Status> {
    let (request, spec) = CreateRequest::from_create(caller, request)?;
    if let Some(sandbox) = created_before(creator, caller, &request.key)? {
        return Ok(sandbox);
    }
    create_sandbox(creator, caller, request, None, spec).await
}

/// CreateSandboxFromTemplate.
///
/// # Errors
/// As [`create`]; NOT_FOUND without such a template.
pub(crate) async fn from_template(
    creator: &Creator,
    caller: &Caller,
    request: pb::CreateSandboxFromTemplateRequest,
) -> Result<pb::Sandbox, Status> {
    let template_id = request.template_id.clone();
    let (mut request, spec) = CreateRequest::from_template(caller, request)?;
    if let Some(sandbox) = created_before(creator, caller, &request.key)? {
        return Ok(sandbox);
    }
    let template = match names::is_name(&template_id) {
        true => {
            creator
                .api
                .get::<SandboxTemplate>(&caller.namespace, &template_id)
                .await
        }
        false => Ok(None),
    };
    let template = template.map_err(|e| of_kube("reading the template", &e))?;
    let Some(template) = template else {
        let text = format!("template_id: there is no template {}", quoted(&template_id));
        return Err(error::status(Code::NotFound, reason::INVALID_REQUEST, text));
    };
    request.template = Some((template_id, template.metadata.generation.unwrap_or_default()));
    create_sandbox(creator, caller, request, Some(&template.spec.workload), spec).await
}

/// The sandbox that an earlier attempt of the same request created, if it is cached here and complete.
fn created_before(creator: &Creator, caller: &Caller, key: &IdempotencyKey) -> Result<Option<pb::Sandbox>, Status> {
    let cached = creator.view.cache.get(&caller.namespace, &key.name);
    let Some(sandbox) = cached.filter(|sandbox| !is_stripped(&sandbox.metadata)) else {
        return Ok(None);
    };
    key.check_same(&sandbox)?;
    let is_complete = !sandbox.annotations().contains_key(ANNOTATION_HOLD);
    Ok(is_complete.then(|| creator.view.to_proto(&sandbox)))
}

async fn create_sandbox(
    creator: &Creator,
    caller: &Caller,
    mut request: CreateRequest,
    template: Option<&Workload>,
    spec: pb::SandboxSpec,
) -> Result<pb::Sandbox, Status> {
    let volumes = registered_volumes(creator, caller, &spec).await?;
    let context = ConvertContext {
        config: &creator.view.config,
        runners: creator.view.runners.set(),
        volumes: &volumes,
        template,
    };
    let problems = std::mem::take(&mut request.problems);
    let draft = from_proto::draft(&request.key.name, spec, &context, problems)?;
    let stores = read_stores(creator, caller, &draft).await?;
    let spec_path = context.spec_path();
    let secrets = secrets::resolve(&spec_path.field("containers"), &draft.lookups, &stores)?;
    let sandbox = objects::sandbox(caller, &request, &spec_path, &draft, &secrets)?;
    check_usage(creator, &sandbox)?;
    let sandbox = create_or_read(creator, &request.key, sandbox).await?;
    let sandbox = complete(creator, sandbox, &draft, &secrets).await?;
    Ok(creator.view.to_proto(&sandbox))
}

/// Checks the namespace's usage of etcd. It is approximate: the cache lags, and other replicas create sandboxes too. A
/// ResourceQuota is exact.
fn check_usage(creator: &Creator, sandbox: &Sandbox) -> Result<(), Status> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let exists = creator.view.cache.get(&namespace, &sandbox.name_any()).is_some();
    let limits = &creator.view.config.limits;
    match over_limit(&namespace, creator.view.cache.usage(&namespace), limits, sandbox) {
        Some(text) if !exists => Err(error::retry(
            Code::ResourceExhausted,
            reason::RUNNER_CAPACITY_EXHAUSTED,
            text,
            Duration::from_secs(30),
        )),
        _ => Ok(()),
    }
}

/// Why the namespace cannot have another sandbox; `None` if it can.
fn over_limit(namespace: &str, usage: Usage, limits: &Limits, sandbox: &Sandbox) -> Option<String> {
    let what = "delete sandboxes (ended ones count too), or wait until their records expire";
    let most = limits.sandboxes_per_namespace;
    if usage.sandboxes >= most as usize {
        return Some(format!(
            "namespace {namespace} has {} sandboxes and may have {most} (gateway.config.limits.sandboxesPerNamespace): {what}",
            usage.sandboxes
        ));
    }
    let own: u64 = sandbox.annotations().get(ANNOTATION_STORED_BYTES)?.parse().ok()?;
    let most = limits.stored_bytes_per_namespace;
    (usage.bytes.saturating_add(own) > most).then(|| {
        format!(
            "the sandboxes of namespace {namespace} and their files take {} bytes, this one {own}, and they may take {most} \
             (gateway.config.limits.storedBytesPerNamespace): {what}",
            usage.bytes
        )
    })
}

/// The registered volumes that the request names.
async fn registered_volumes(
    creator: &Creator,
    caller: &Caller,
    spec: &pb::SandboxSpec,
) -> Result<BTreeMap<String, RegisteredVolume>, Status> {
    let found = volumes::registered_ids(&spec.volumes).into_iter().map(async |id| {
        let registered = |claim: PersistentVolumeClaim| RegisteredVolume {
            claim: claim.name_any(),
            read_only: claim.annotations().get(VOLUME_READ_ONLY).is_some_and(|v| v == "true"),
            sub_path: claim.annotations().get(VOLUME_SUB_PATH).cloned().unwrap_or_default(),
        };
        let claim = find(&creator.api, &caller.namespace, id).await?;
        Ok::<_, Status>(claim.map(|claim| (id.to_owned(), registered(claim))))
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

/// The secret stores that the request names: Secrets of the tenant's namespace with the label of a store.
async fn read_stores(creator: &Creator, caller: &Caller, draft: &Draft) -> Result<BTreeMap<String, StoreData>, Status> {
    let valid_names = secrets::store_names(&draft.lookups)
        .into_iter()
        .filter(|name| names::is_name(name));
    let found = valid_names.map(async |name| {
        let secret = creator.api.get::<Secret>(&caller.namespace, name).await;
        let secret = secret.map_err(|e| of_kube("reading a secret store", &e))?;
        let store = secret.filter(|s| s.labels().get(LABEL_SECRET_STORE).is_some_and(|v| v == "true"));
        Ok::<_, Status>((name.to_owned(), store.map(|s| s.data.unwrap_or_default())))
    });
    Ok(try_join_all(found).await?.into_iter().collect())
}

/// Creates the Sandbox, or returns the existing one if the same request created it.
async fn create_or_read(creator: &Creator, key: &IdempotencyKey, sandbox: Sandbox) -> Result<Sandbox, Status> {
    match creator.api.create(&sandbox).await {
        Ok(created) => return Ok(created),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(of_kube("creating the sandbox", &error)),
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let existing = creator.api.get::<Sandbox>(&namespace, &key.name).await;
    let existing = existing.map_err(|e| of_kube("reading the sandbox", &e))?;
    let existing = existing.ok_or_else(|| being_deleted("a sandbox of the same request"))?;
    key.check_same(&existing)?;
    Ok(existing)
}

/// Creates the Secrets and then lets the operator start the sandbox. Does nothing if the sandbox is complete.
async fn complete(
    creator: &Creator,
    sandbox: Sandbox,
    draft: &Draft,
    secrets: &ResolvedSecrets,
) -> Result<Sandbox, Status> {
    if !sandbox.annotations().contains_key(ANNOTATION_HOLD) || sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(sandbox);
    }
    let owned = objects::secrets(&sandbox, draft, secrets);
    try_join_all(owned.iter().map(|secret| create_secret(creator, &sandbox, secret))).await?;
    // With the UID, since our Secrets do not belong to another sandbox of the same name.
    let patch = json!({"metadata": {"uid": sandbox.uid(), "annotations": {ANNOTATION_HOLD: null}}});
    let namespace = sandbox.namespace().unwrap_or_default();
    let patched = creator
        .api
        .merge::<Sandbox>(&namespace, &sandbox.name_any(), &patch)
        .await;
    patched.map_err(|e| of_kube("completing the sandbox", &e))
}

async fn create_secret(creator: &Creator, sandbox: &Sandbox, secret: &Secret) -> Result<(), Status> {
    match creator.api.create(secret).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(of_kube("creating a Secret of the sandbox", &error)),
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let existing = creator.api.get::<Secret>(&namespace, &secret.name_any()).await;
    let existing = existing.map_err(|e| of_kube("reading a Secret of the sandbox", &e))?;
    match existing {
        Some(existing) if names::is_child(&existing.metadata, sandbox) => Ok(()),
        _ => Err(being_deleted(&format!("the Secret {}", secret.name_any()))),
    }
}

/// An object of an earlier sandbox of the same name still exists.
fn being_deleted(what: &str) -> Status {
    let text = format!("{what} is still being deleted");
    error::retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        text,
        Duration::from_secs(2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_limited_number_of_sandboxes_and_of_bytes() {
        let limits = Limits {
            sandboxes_per_namespace: 2,
            stored_bytes_per_namespace: 1_000,
            ..Limits::default()
        };
        let mut sandbox = Sandbox::default();
        sandbox
            .annotations_mut()
            .insert(ANNOTATION_STORED_BYTES.into(), "400".into());
        let text = |sandboxes, bytes| over_limit("n", Usage { sandboxes, bytes }, &limits, &sandbox);
        assert_eq!(text(1, 600), None);
        let text = [text(2, 0), text(1, 601)].map(Option::unwrap);
        assert!(
            text[0].starts_with(
                "namespace n has 2 sandboxes and may have 2 (gateway.config.limits.sandboxesPerNamespace)"
            )
        );
        assert!(text[1].starts_with("the sandboxes of namespace n and their files take 601 bytes, this one 400"));
    }
}
