//! VolumeService: a volume is a PersistentVolumeClaim of the tenant's namespace, registered by a label with its id. Nothing else is kept.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

use super::convert::status::time;
use super::error::{Violation, invalid, of_kube, reason, status, with_metadata};
use super::identity::{Caller, Right};
use super::runners::Runners;
use super::service::admit;
use super::state::Gateway;
use crate::api::{Sandbox, VOLUME_DESCRIPTION, VOLUME_ID, VOLUME_READ_ONLY, VOLUME_RUNNER, VOLUME_SUB_PATH};
use crate::proto::sandbox as pb;
use crate::proto::sandbox::volume_service_server::VolumeService;
use crate::proto::sandbox::volume_spec::Source;
use crate::resources::{labels, names};

const DOING: &str = "look after volumes";

/// Serves VolumeService.
#[derive(Clone)]
pub struct Volumes(pub Arc<Gateway>);

#[tonic::async_trait]
impl VolumeService for Volumes {
    async fn create_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = admit(&self.0, &request, Right::RegisterVolumes).await?;
        let asked = request.into_inner().volume.unwrap_or_default();
        let wanted = registration(&asked, &caller.namespace, &self.0.runners)?;
        if let Some(there) = find(&self.0, &caller.namespace, &asked.volume_id).await? {
            if there.name_any() == wanted.claim {
                return Ok(Response::new(self.volume(&there)));
            }
            let text = format!("volume {} is another claim already", asked.volume_id);
            return Err(status(Code::AlreadyExists, reason::INVALID_REQUEST, text));
        }
        let claim = self.0.cluster.get::<PersistentVolumeClaim>(&caller.namespace, &wanted.claim).await;
        let claim = claim.map_err(|e| of_kube(DOING, &e))?.ok_or_else(|| backend_not_found(&wanted.claim))?;
        if let Some(other) = claim.labels().get(VOLUME_ID) {
            let text = format!("claim {} is volume {other} already", wanted.claim);
            return Err(status(Code::AlreadyExists, reason::INVALID_REQUEST, text));
        }
        let body = json!({"metadata": {"labels": {VOLUME_ID: asked.volume_id}, "annotations": {
            VOLUME_DESCRIPTION: wanted.description,
            VOLUME_READ_ONLY: wanted.read_only.then_some("true"),
            VOLUME_SUB_PATH: wanted.sub_path,
            VOLUME_RUNNER: wanted.runner,
        }}});
        self.write(&claim, body).await
    }

    async fn get_volume(&self, request: Request<pb::GetVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = admit(&self.0, &request, Right::GetVolumes).await?;
        let claim = self.known(&caller, &request.into_inner().volume_id).await?;
        Ok(Response::new(self.volume(&claim)))
    }

    async fn list_volumes(&self, request: Request<pb::ListVolumesRequest>) -> Result<Response<pb::ListVolumesResponse>, Status> {
        let caller = admit(&self.0, &request, Right::GetVolumes).await?;
        let asked = request.into_inner();
        if !asked.page_token.is_empty() {
            return Err(invalid(vec![Violation::new("page_token", "all volumes come in one page")]));
        }
        let registered = ListParams::default().labels(VOLUME_ID);
        let claims = self
            .0
            .cluster
            .list(&caller.namespace, &registered)
            .await
            .map_err(|e| of_kube(DOING, &e))?;
        let mut volumes: Vec<pb::Volume> = claims.iter().map(|c| self.volume(c)).collect();
        let on = |v: &pb::Volume| {
            let source = v.spec.as_ref().and_then(|s| s.source.as_ref());
            source.is_some_and(|Source::Pvc(pvc)| asked.runner_ids.contains(&pvc.runner_id))
        };
        volumes.retain(|v| {
            let state = v.status.as_ref().map(|s| s.state).unwrap_or_default();
            (asked.states.is_empty() || asked.states.contains(&state)) && (asked.runner_ids.is_empty() || on(v))
        });
        volumes.sort_by(|a, b| a.volume_id.cmp(&b.volume_id));
        Ok(Response::new(pb::ListVolumesResponse {
            volumes,
            next_page_token: String::new(),
        }))
    }

    async fn update_volume(&self, request: Request<pb::UpdateVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = admit(&self.0, &request, Right::RegisterVolumes).await?;
        let asked = request.into_inner();
        let paths = asked.update_mask.map(|m| m.paths).unwrap_or_default();
        if paths != ["spec.description"] {
            return Err(invalid(vec![Violation::new("update_mask", "only spec.description can be changed")]));
        }
        let claim = self.known(&caller, &asked.volume_id).await?;
        let description = asked.volume.and_then(|v| v.spec).unwrap_or_default().description;
        self.write(&claim, json!({"metadata": {"annotations": {VOLUME_DESCRIPTION: description}}}))
            .await
    }

    async fn delete_volume(&self, request: Request<pb::DeleteVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = admit(&self.0, &request, Right::RegisterVolumes).await?;
        let asked = request.into_inner();
        let claim = match find(&self.0, &caller.namespace, &asked.volume_id).await? {
            Some(claim) => claim,
            None if asked.allow_missing => return Ok(Response::new(pb::Volume::default())),
            None => return Err(not_found(&asked.volume_id)),
        };
        let mut volume = self.volume(&claim);
        let attached = volume.status.as_ref().map(|s| s.attached_sandbox_count).unwrap_or_default();
        if attached > 0 && !asked.force {
            let text = format!("volume {} is used by {attached} sandboxes", asked.volume_id);
            return Err(status(Code::FailedPrecondition, reason::VOLUME_IN_USE, text));
        }
        // The claim itself stays: it was there before.
        let body = json!({"metadata": {"labels": {VOLUME_ID: null}, "annotations": {VOLUME_DESCRIPTION: null, VOLUME_READ_ONLY: null, VOLUME_SUB_PATH: null, VOLUME_RUNNER: null}}});
        self.write(&claim, body).await?;
        if let Some(status) = volume.status.as_mut() {
            status.state = pb::VolumeState::Deleting as i32;
        }
        Ok(Response::new(volume))
    }

    async fn validate_volume(&self, request: Request<pb::ValidateVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = admit(&self.0, &request, Right::GetVolumes).await?;
        let claim = self.known(&caller, &request.into_inner().volume_id).await?;
        Ok(Response::new(self.volume(&claim)))
    }
}

impl Volumes {
    async fn known(&self, caller: &Caller, id: &str) -> Result<PersistentVolumeClaim, Status> {
        find(&self.0, &caller.namespace, id).await?.ok_or_else(|| not_found(id))
    }

    async fn write(&self, claim: &PersistentVolumeClaim, body: serde_json::Value) -> Result<Response<pb::Volume>, Status> {
        let namespace = claim.namespace().unwrap_or_default();
        let claim = self
            .0
            .cluster
            .merge(&namespace, &claim.name_any(), &body)
            .await
            .map_err(|e| of_kube(DOING, &e))?;
        Ok(Response::new(self.volume(&claim)))
    }

    fn volume(&self, claim: &PersistentVolumeClaim) -> pb::Volume {
        volume(
            claim,
            &self.0.runners.all()[0].id,
            attached(claim, &self.0.caches.sandboxes(&claim.namespace().unwrap_or_default())),
        )
    }
}

/// The claim that is registered as this volume.
///
/// # Errors
/// UNAVAILABLE when the API server does not answer.
pub async fn find(gateway: &Gateway, namespace: &str, id: &str) -> Result<Option<PersistentVolumeClaim>, Status> {
    if !labels::is_value(id) {
        return Ok(None);
    }
    let params = ListParams::default().labels(&format!("{VOLUME_ID}={id}")).limit(1);
    let list = gateway
        .cluster
        .list(namespace, &params)
        .await
        .map_err(|e| of_kube("looking for a volume", &e))?;
    Ok(list.items.into_iter().next())
}

/// What a registration says of a claim.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    claim: String,
    sub_path: Option<String>,
    read_only: bool,
    description: String,
    runner: Option<String>,
}

fn registration(volume: &pb::Volume, namespace: &str, runners: &Runners) -> Result<Registration, Status> {
    let spec = volume.spec.clone().unwrap_or_default();
    let source = spec.source.map(|Source::Pvc(pvc)| pvc);
    let mut wrong = vec![];
    if !labels::is_value(&volume.volume_id) {
        let text = "must be 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
        wrong.push(Violation::new("volume.volume_id", text));
    }
    let pvc = source.unwrap_or_default();
    if !names::is_name(&pvc.claim_name) {
        wrong.push(Violation::new("volume.spec.pvc.claim_name", "name an existing PersistentVolumeClaim"));
    }
    if !pvc.namespace.is_empty() && pvc.namespace != namespace {
        let text = format!("must be your own namespace, {namespace}");
        wrong.push(Violation::new("volume.spec.pvc.namespace", text));
    }
    if pvc.sub_path.starts_with('/') || pvc.sub_path.split('/').any(|part| part == "..") {
        wrong.push(Violation::new("volume.spec.pvc.sub_path", "must be relative, without '..'"));
    }
    if !pvc.runner_id.is_empty() && runners.find(&pvc.runner_id).is_none() {
        wrong.push(Violation::new("volume.spec.pvc.runner_id", "there is no such runner"));
    }
    if !wrong.is_empty() {
        return Err(invalid(wrong));
    }
    Ok(Registration {
        claim: pvc.claim_name,
        sub_path: Some(pvc.sub_path).filter(|p| !p.is_empty()),
        read_only: spec.read_only,
        description: spec.description,
        runner: Some(pvc.runner_id).filter(|id| !id.is_empty()),
    })
}

fn attached(claim: &PersistentVolumeClaim, sandboxes: &[Arc<Sandbox>]) -> usize {
    let name = claim.name_any();
    let uses = |s: &Sandbox| {
        let volumes = s.spec.workload.pod.volumes.iter().flatten();
        volumes.filter_map(|v| v.persistent_volume_claim.as_ref()).any(|c| c.claim_name == name)
    };
    let active = |s: &Sandbox| !s.status.as_ref().is_some_and(|s| s.state.is_final());
    sandboxes.iter().filter(|s| active(s) && uses(s)).count()
}

fn volume(claim: &PersistentVolumeClaim, runner: &str, attached: usize) -> pb::Volume {
    let status = claim.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let (state, why) = match phase {
        _ if claim.metadata.deletion_timestamp.is_some() => (pb::VolumeState::Deleting, "the claim is being deleted".to_owned()),
        "Bound" => (pb::VolumeState::Ready, String::new()),
        // A claim whose storage is made for its first user stays so until then: it can be used.
        "Pending" => (pb::VolumeState::Ready, "the claim is bound when a sandbox first uses it".to_owned()),
        other => (pb::VolumeState::Error, format!("the claim is {other}")),
    };
    let note = |key: &str| claim.annotations().get(key).cloned().unwrap_or_default();
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec.resources.and_then(|r| r.requests).and_then(|mut r| r.remove("storage"));
    let capacity = status.capacity.and_then(|mut c| c.remove("storage")).or(requested);
    let created = time(claim.metadata.creation_timestamp.as_ref());
    pb::Volume {
        volume_id: claim.labels().get(VOLUME_ID).cloned().unwrap_or_default(),
        spec: Some(pb::VolumeSpec {
            read_only: note(VOLUME_READ_ONLY) == "true",
            description: note(VOLUME_DESCRIPTION),
            source: Some(Source::Pvc(pb::PvcVolumeSource {
                // One that kubectl registered is the first one's.
                runner_id: Some(note(VOLUME_RUNNER)).filter(|id| !id.is_empty()).unwrap_or_else(|| runner.into()),
                namespace: claim.namespace().unwrap_or_default(),
                claim_name: claim.name_any(),
                sub_path: note(VOLUME_SUB_PATH),
            })),
        }),
        status: Some(pb::VolumeStatus {
            state: state as i32,
            state_reason: why,
            locality: pb::VolumeLocality::ClusterLocal as i32,
            create_time: created,
            update_time: created,
            last_validated_time: created,
            access_modes: spec.access_modes.unwrap_or_default(),
            capacity: capacity.map(|q| q.0).unwrap_or_default(),
            attached_sandbox_count: i32::try_from(attached).unwrap_or(i32::MAX),
        }),
    }
}

fn not_found(id: &str) -> Status {
    status(Code::NotFound, reason::VOLUME_NOT_FOUND, format!("there is no volume {id}"))
}

fn backend_not_found(claim: &str) -> Status {
    let text = format!("there is no PersistentVolumeClaim {claim} in your namespace");
    with_metadata(
        Code::FailedPrecondition,
        reason::VOLUME_BACKEND_NOT_FOUND,
        text,
        [("claim_name", claim.to_owned())],
    )
}
