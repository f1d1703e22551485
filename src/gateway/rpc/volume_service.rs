//! VolumeService: a volume is a PersistentVolumeClaim of the tenant's namespace, registered by a label with its id.
//! There is no other state.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

use crate::api::{Sandbox, VOLUME_DESCRIPTION, VOLUME_ID, VOLUME_READ_ONLY, VOLUME_RUNNER, VOLUME_SUB_PATH};
use crate::gateway::cluster::runners::Runners;
use crate::gateway::cluster::sandbox_cache::SandboxCache;
use crate::gateway::cluster::volumes::find;
use crate::gateway::convert::runners::RunnerSet;
use crate::gateway::convert::status::time;
use crate::gateway::edge::caller::{Caller, Permission};
use crate::gateway::edge::identity::Identity;
use crate::gateway::error::{Violation, invalid, of_kube, reason, status, with_metadata};
use crate::gateway::rpc::authorize::authorize;
use crate::kube::ApiClient;
use crate::proto::sandbox as pb;
use crate::proto::sandbox::volume_service_server::VolumeService;
use crate::proto::sandbox::volume_spec::Source;
use crate::resources::{labels, names};

/// The action in errors of the API server.
const ACTION: &str = "managing volumes";

/// The service.
#[derive(Clone)]
pub(crate) struct Volumes {
    /// Authorizes callers.
    pub(crate) identity: Arc<Identity>,
    /// The API server.
    pub(crate) api: ApiClient,
    /// Sandboxes, which may use a volume.
    pub(crate) cache: SandboxCache,
    /// Runners, on which a volume may be.
    pub(crate) runners: Runners,
}

#[tonic::async_trait]
impl VolumeService for Volumes {
    async fn create_volume(&self, request: Request<pb::CreateVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = authorize(&self.identity, &request, Permission::RegisterVolumes).await?;
        let volume = request.into_inner().volume.unwrap_or_default();
        let registration = registration(&volume, &caller.namespace, self.runners.set())?;
        if let Some(existing) = find(&self.api, &caller.namespace, &volume.volume_id).await? {
            if existing.name_any() == registration.claim {
                return Ok(Response::new(self.volume(&existing)));
            }
            let text = format!(
                "volume {} exists and uses claim {}",
                volume.volume_id,
                existing.name_any()
            );
            return Err(status(Code::AlreadyExists, reason::INVALID_REQUEST, text));
        }
        let claim = self
            .api
            .get::<PersistentVolumeClaim>(&caller.namespace, &registration.claim)
            .await;
        let claim = claim
            .map_err(|e| of_kube(ACTION, &e))?
            .ok_or_else(|| backend_not_found(&registration.claim))?;
        if let Some(other) = claim.labels().get(VOLUME_ID) {
            let text = format!("claim {} is already registered as volume {other}", registration.claim);
            return Err(status(Code::AlreadyExists, reason::INVALID_REQUEST, text));
        }
        let body = json!({"metadata": {"labels": {VOLUME_ID: volume.volume_id}, "annotations": {
            VOLUME_DESCRIPTION: registration.description,
            VOLUME_READ_ONLY: registration.read_only.then_some("true"),
            VOLUME_SUB_PATH: registration.sub_path,
            VOLUME_RUNNER: registration.runner,
        }}});
        self.patch(&claim, body).await
    }

    async fn get_volume(&self, request: Request<pb::GetVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = authorize(&self.identity, &request, Permission::GetVolumes).await?;
        let claim = self.find(&caller, &request.into_inner().volume_id).await?;
        Ok(Response::new(self.volume(&claim)))
    }

    async fn list_volumes(
        &self,
        request: Request<pb::ListVolumesRequest>,
    ) -> Result<Response<pb::ListVolumesResponse>, Status> {
        let caller = authorize(&self.identity, &request, Permission::GetVolumes).await?;
        let request = request.into_inner();
        if !request.page_token.is_empty() {
            return Err(invalid(vec![Violation::new(
                "page_token",
                "must be empty: all volumes are in one page",
            )]));
        }
        let registered = ListParams::default().labels(VOLUME_ID);
        let claims = self
            .api
            .list(&caller.namespace, &registered)
            .await
            .map_err(|e| of_kube(ACTION, &e))?;
        let mut volumes: Vec<pb::Volume> = claims.iter().map(|c| self.volume(c)).collect();
        let on_runner = |v: &pb::Volume| {
            let source = v.spec.as_ref().and_then(|s| s.source.as_ref());
            source.is_some_and(|Source::Pvc(pvc)| request.runner_ids.contains(&pvc.runner_id))
        };
        volumes.retain(|v| {
            let state = v.status.as_ref().map(|s| s.state).unwrap_or_default();
            (request.states.is_empty() || request.states.contains(&state))
                && (request.runner_ids.is_empty() || on_runner(v))
        });
        volumes.sort_by(|a, b| a.volume_id.cmp(&b.volume_id));
        Ok(Response::new(pb::ListVolumesResponse {
            volumes,
            next_page_token: String::new(),
        }))
    }

    async fn update_volume(&self, request: Request<pb::UpdateVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = authorize(&self.identity, &request, Permission::RegisterVolumes).await?;
        let request = request.into_inner();
        let paths = request.update_mask.map(|m| m.paths).unwrap_or_default();
        if paths != ["spec.description"] {
            return Err(invalid(vec![Violation::new(
                "update_mask",
                "only spec.description can be updated",
            )]));
        }
        let claim = self.find(&caller, &request.volume_id).await?;
        let description = request.volume.and_then(|v| v.spec).unwrap_or_default().description;
        self.patch(
            &claim,
            json!({"metadata": {"annotations": {VOLUME_DESCRIPTION: description}}}),
        )
        .await
    }

    async fn delete_volume(&self, request: Request<pb::DeleteVolumeRequest>) -> Result<Response<pb::Volume>, Status> {
        let caller = authorize(&self.identity, &request, Permission::RegisterVolumes).await?;
        let request = request.into_inner();
        let claim = match find(&self.api, &caller.namespace, &request.volume_id).await? {
            Some(claim) => claim,
            None if request.allow_missing => return Ok(Response::new(pb::Volume::default())),
            None => return Err(not_found(&request.volume_id)),
        };
        let mut volume = self.volume(&claim);
        let attached = volume
            .status
            .as_ref()
            .map(|s| s.attached_sandbox_count)
            .unwrap_or_default();
        if attached > 0 && !request.force {
            let text = format!(
                "volume {} is used by {attached} sandboxes; set force to delete it anyway",
                request.volume_id
            );
            return Err(status(Code::FailedPrecondition, reason::VOLUME_IN_USE, text));
        }
        // Only the registration is removed, not the claim.
        let body = json!({"metadata": {"labels": {VOLUME_ID: null}, "annotations": {VOLUME_DESCRIPTION: null, VOLUME_READ_ONLY: null, VOLUME_SUB_PATH: null, VOLUME_RUNNER: null}}});
        self.patch(&claim, body).await?;
        if let Some(status) = volume.status.as_mut() {
            status.state = pb::VolumeState::Deleting as i32;
        }
        Ok(Response::new(volume))
    }

    async fn validate_volume(
        &self,
        request: Request<pb::ValidateVolumeRequest>,
    ) -> Result<Response<pb::Volume>, Status> {
        let caller = authorize(&self.identity, &request, Permission::GetVolumes).await?;
        let claim = self.find(&caller, &request.into_inner().volume_id).await?;
        Ok(Response::new(self.volume(&claim)))
    }
}

impl Volumes {
    async fn find(&self, caller: &Caller, id: &str) -> Result<PersistentVolumeClaim, Status> {
        find(&self.api, &caller.namespace, id)
            .await?
            .ok_or_else(|| not_found(id))
    }

    async fn patch(
        &self,
        claim: &PersistentVolumeClaim,
        body: serde_json::Value,
    ) -> Result<Response<pb::Volume>, Status> {
        let namespace = claim.namespace().unwrap_or_default();
        let claim = self
            .api
            .merge(&namespace, &claim.name_any(), &body)
            .await
            .map_err(|e| of_kube(ACTION, &e))?;
        Ok(Response::new(self.volume(&claim)))
    }

    fn volume(&self, claim: &PersistentVolumeClaim) -> pb::Volume {
        volume(
            claim,
            &self.runners.set().all()[0].id,
            attached(claim, &self.cache.list(&claim.namespace().unwrap_or_default())),
        )
    }
}

/// A claim and its registered attributes.
#[derive(Debug, PartialEq, Eq)]
struct Registration {
    claim: String,
    sub_path: Option<String>,
    read_only: bool,
    description: String,
    runner: Option<String>,
}

fn registration(volume: &pb::Volume, namespace: &str, runners: &RunnerSet) -> Result<Registration, Status> {
    let spec = volume.spec.clone().unwrap_or_default();
    let source = spec.source.map(|Source::Pvc(pvc)| pvc);
    let mut violations = vec![];
    if !labels::is_value(&volume.volume_id) {
        let text = "must be 1 to 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";
        violations.push(Violation::new("volume.volume_id", text));
    }
    let pvc = source.unwrap_or_default();
    if !names::is_name(&pvc.claim_name) {
        violations.push(Violation::new(
            "volume.spec.pvc.claim_name",
            "must name an existing PersistentVolumeClaim",
        ));
    }
    if !pvc.namespace.is_empty() && pvc.namespace != namespace {
        let text = format!("must be your own namespace, {namespace}");
        violations.push(Violation::new("volume.spec.pvc.namespace", text));
    }
    if pvc.sub_path.starts_with('/') || pvc.sub_path.split('/').any(|part| part == "..") {
        violations.push(Violation::new(
            "volume.spec.pvc.sub_path",
            "must be relative, without '..'",
        ));
    }
    if !pvc.runner_id.is_empty() && runners.find(&pvc.runner_id).is_none() {
        violations.push(Violation::new("volume.spec.pvc.runner_id", "no such runner"));
    }
    if !violations.is_empty() {
        return Err(invalid(violations));
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
        volumes
            .filter_map(|v| v.persistent_volume_claim.as_ref())
            .any(|c| c.claim_name == name)
    };
    sandboxes.iter().filter(|s| !s.is_final() && uses(s)).count()
}

fn volume(claim: &PersistentVolumeClaim, runner: &str, attached: usize) -> pb::Volume {
    let status = claim.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    let (state, state_reason) = match phase {
        _ if claim.metadata.deletion_timestamp.is_some() => {
            (pb::VolumeState::Deleting, "the claim is being deleted".to_owned())
        }
        "Bound" => (pb::VolumeState::Ready, String::new()),
        // With volumeBindingMode WaitForFirstConsumer a claim is pending until a pod uses it.
        "Pending" => (
            pb::VolumeState::Ready,
            "the claim is bound when a sandbox first uses it".to_owned(),
        ),
        other => (pb::VolumeState::Error, format!("the claim is {other}")),
    };
    let annotation = |key: &str| claim.annotations().get(key).cloned().unwrap_or_default();
    let spec = claim.spec.clone().unwrap_or_default();
    let requested = spec
        .resources
        .and_then(|r| r.requests)
        .and_then(|mut r| r.remove("storage"));
    let capacity = status.capacity.and_then(|mut c| c.remove("storage")).or(requested);
    let created = time(claim.metadata.creation_timestamp.as_ref());
    pb::Volume {
        volume_id: claim.labels().get(VOLUME_ID).cloned().unwrap_or_default(),
        spec: Some(pb::VolumeSpec {
            read_only: annotation(VOLUME_READ_ONLY) == "true",
            description: annotation(VOLUME_DESCRIPTION),
            source: Some(Source::Pvc(pb::PvcVolumeSource {
                // A volume that was registered by kubectl belongs to the first runner.
                runner_id: Some(annotation(VOLUME_RUNNER))
                    .filter(|id| !id.is_empty())
                    .unwrap_or_else(|| runner.into()),
                namespace: claim.namespace().unwrap_or_default(),
                claim_name: claim.name_any(),
                sub_path: annotation(VOLUME_SUB_PATH),
            })),
        }),
        status: Some(pb::VolumeStatus {
            state: state as i32,
            state_reason,
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
    status(Code::NotFound, reason::VOLUME_NOT_FOUND, format!("no volume {id}"))
}

fn backend_not_found(claim: &str) -> Status {
    let text = format!("no PersistentVolumeClaim {claim} in your namespace");
    with_metadata(
        Code::FailedPrecondition,
        reason::VOLUME_BACKEND_NOT_FOUND,
        text,
        [("claim_name", claim.to_owned())],
    )
}
