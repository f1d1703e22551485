//! CreateSandbox and CreateSandboxFromTemplate: the Sandbox is written first, then the Secrets that it owns, and the operator waits for
//! them. Each step may be done again, by any replica: a request that is sent twice finishes what the first attempt left undone.

pub mod objects;
pub mod order;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Code, Status};

use self::order::Order;
use super::convert::request::{self, Draft, Known};
use super::convert::secrets;
use super::convert::text::quoted;
use super::convert::volumes::{self, Registered};
use super::error::{self, of_kube, reason};
use super::identity::Caller;
use super::state::Gateway;
use super::volumes::find;
use crate::api::{ANNOTATION_HOLD, LABEL_SECRET_STORE, Sandbox, SandboxTemplate, VOLUME_READ_ONLY, VOLUME_SUB_PATH, Workload};
use crate::proto::sandbox as pb;
use crate::resources::names;

/// CreateSandbox.
///
/// # Errors
/// INVALID_ARGUMENT with the fields that are wrong; ALREADY_EXISTS for a `request_id` that came with another body.
pub async fn create(gateway: &Gateway, caller: &Caller, request: pb::CreateSandboxRequest) -> Result<pb::Sandbox, Status> {
    let (order, spec) = Order::of_create(caller, request)?;
    if let Some(sandbox) = replayed(gateway, caller, &order)? {
        return Ok(sandbox);
    }
    write(gateway, caller, order, None, spec).await
}

/// CreateSandboxFromTemplate.
///
/// # Errors
/// As [`create`]; NOT_FOUND without such a template.
pub async fn from_template(gateway: &Gateway, caller: &Caller, request: pb::CreateSandboxFromTemplateRequest) -> Result<pb::Sandbox, Status> {
    let template_id = request.template_id.clone();
    let (mut order, spec) = Order::of_template(caller, request)?;
    if let Some(sandbox) = replayed(gateway, caller, &order)? {
        return Ok(sandbox);
    }
    let template = match names::is_name(&template_id) {
        true => gateway.cluster.get::<SandboxTemplate>(&caller.namespace, &template_id).await,
        false => Ok(None),
    };
    let template = template.map_err(|e| of_kube("reading the template", &e))?;
    let Some(template) = template else {
        let text = format!("template_id: there is no template {}", quoted(&template_id));
        return Err(error::status(Code::NotFound, reason::INVALID_REQUEST, text));
    };
    order.template = Some((template_id, template.metadata.generation.unwrap_or_default()));
    write(gateway, caller, order, Some(&template.spec.workload), spec).await
}

/// What an earlier attempt of the same request made, if it is known here and complete.
fn replayed(gateway: &Gateway, caller: &Caller, order: &Order) -> Result<Option<pb::Sandbox>, Status> {
    let Some(sandbox) = gateway.caches.sandbox(&caller.namespace, &order.name) else {
        return Ok(None);
    };
    order.check_same(&sandbox)?;
    let whole = !sandbox.annotations().contains_key(ANNOTATION_HOLD);
    Ok(whole.then(|| gateway.told(&sandbox)))
}

async fn write(gateway: &Gateway, caller: &Caller, order: Order, base: Option<&Workload>, spec: pb::SandboxSpec) -> Result<pb::Sandbox, Status> {
    let claims = claims(gateway, caller, &spec).await?;
    let known = Known {
        config: &gateway.config,
        runners: &gateway.runners,
        claims: &claims,
    };
    let draft = request::draft(&order.name, base, spec, &known, order.problems())?;
    let resolved = secrets::resolve(&draft.needs, &stores(gateway, caller, &draft).await?)?;
    let sandbox = objects::sandbox(&caller.namespace, &order, &draft, &resolved)?;
    let sandbox = create_or_read(gateway, &order, sandbox).await?;
    let sandbox = complete(gateway, sandbox, &draft, &resolved).await?;
    Ok(gateway.told(&sandbox))
}

/// The registered volumes that the request names.
async fn claims(gateway: &Gateway, caller: &Caller, spec: &pb::SandboxSpec) -> Result<BTreeMap<String, Registered>, Status> {
    let found = volumes::ids(&spec.volumes).into_iter().map(async |id| {
        let registered = |claim: PersistentVolumeClaim| Registered {
            claim: claim.name_any(),
            read_only: claim.annotations().get(VOLUME_READ_ONLY).is_some_and(|v| v == "true"),
            sub_path: claim.annotations().get(VOLUME_SUB_PATH).cloned().unwrap_or_default(),
        };
        let claim = find(gateway, &caller.namespace, id).await?;
        Ok::<_, Status>(claim.map(|claim| (id.to_owned(), registered(claim))))
    });
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

/// The secret stores that the request names: Secrets of the tenant's namespace that are marked as such.
async fn stores(gateway: &Gateway, caller: &Caller, draft: &Draft) -> Result<BTreeMap<String, secrets::Store>, Status> {
    let known_form = secrets::stores(&draft.needs).into_iter().filter(|name| names::is_name(name));
    let found = known_form.map(async |name| {
        let secret = gateway.cluster.get::<Secret>(&caller.namespace, name).await;
        let secret = secret.map_err(|e| of_kube("reading a secret store", &e))?;
        let marked = secret.filter(|s| s.labels().get(LABEL_SECRET_STORE).is_some_and(|v| v == "true"));
        Ok::<_, Status>((name.to_owned(), marked.map(|s| s.data.unwrap_or_default())))
    });
    Ok(try_join_all(found).await?.into_iter().collect())
}

/// Creates the Sandbox; one that is there already is as good if the same request made it.
async fn create_or_read(gateway: &Gateway, order: &Order, sandbox: Sandbox) -> Result<Sandbox, Status> {
    match gateway.cluster.create(&sandbox).await {
        Ok(created) => return Ok(created),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(of_kube("creating the sandbox", &error)),
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let there = gateway.cluster.get::<Sandbox>(&namespace, &order.name).await;
    let there = there.map_err(|e| of_kube("reading the sandbox", &e))?;
    let there = there.ok_or_else(|| still_going("a sandbox of the same request"))?;
    order.check_same(&there)?;
    Ok(there)
}

/// Makes the Secrets and lets the operator go on. Nothing to do for a sandbox that is complete.
async fn complete(gateway: &Gateway, sandbox: Sandbox, draft: &Draft, resolved: &secrets::Resolved) -> Result<Sandbox, Status> {
    if !sandbox.annotations().contains_key(ANNOTATION_HOLD) || sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(sandbox);
    }
    let all = objects::secrets(&sandbox, draft, resolved);
    try_join_all(all.iter().map(|secret| create_secret(gateway, &sandbox, secret))).await?;
    // The UID: another sandbox of that name would not be complete by our Secrets.
    let patch = json!({"metadata": {"uid": sandbox.uid(), "annotations": {ANNOTATION_HOLD: null}}});
    let namespace = sandbox.namespace().unwrap_or_default();
    let patched = gateway.cluster.merge::<Sandbox>(&namespace, &sandbox.name_any(), &patch).await;
    patched.map_err(|e| of_kube("completing the sandbox", &e))
}

async fn create_secret(gateway: &Gateway, sandbox: &Sandbox, secret: &Secret) -> Result<(), Status> {
    match gateway.cluster.create(secret).await {
        Ok(_) => return Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(of_kube("creating a Secret of the sandbox", &error)),
    }
    let namespace = sandbox.namespace().unwrap_or_default();
    let there = gateway.cluster.get::<Secret>(&namespace, &secret.name_any()).await;
    let there = there.map_err(|e| of_kube("reading a Secret of the sandbox", &e))?;
    match there {
        Some(there) if names::is_child(&there.metadata, sandbox) => Ok(()),
        _ => Err(still_going(&format!("the Secret {}", secret.name_any()))),
    }
}

/// Something of an earlier sandbox of the same name is not gone yet.
fn still_going(what: &str) -> Status {
    let text = format!("{what} is still being deleted");
    error::retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, text, Duration::from_secs(2))
}
