//! DeleteSandbox.

use kube::ResourceExt;
use serde_json::json;
use tonic::{Code, Status};

use crate::api::Sandbox;
use crate::gateway::convert::status::state;
use crate::gateway::error::{Violation, invalid, of_kube, reason, sandbox_not_found, status};
use crate::gateway::sandboxes::lookup::SandboxLookup;
use crate::gateway::sandboxes::view::SandboxView;
use crate::proto::sandbox as pb;

/// Longest grace period in seconds that a Sandbox takes.
const MAX_GRACE: i32 = 3600;

/// DeleteSandbox: requests a stop. The Sandbox stays, so that its outcome can be read.
///
/// # Errors
/// NOT_FOUND unless `allow_missing`.
pub(crate) async fn delete(
    lookup: &SandboxLookup,
    view: &SandboxView,
    namespace: &str,
    request: pb::DeleteSandboxRequest,
) -> Result<pb::DeleteSandboxResponse, Status> {
    let pb::DeleteSandboxRequest {
        sandbox_id: id,
        grace_period_seconds,
        snapshot_volumes,
        // A stop is idempotent without it.
        request_id: _,
        allow_missing,
    } = request;
    if !snapshot_volumes.is_empty() {
        let text = "snapshot_volumes: file system snapshots are not supported";
        return Err(status(Code::Unimplemented, reason::SNAPSHOT_NOT_SUPPORTED, text));
    }
    if grace_period_seconds < 0 {
        return Err(invalid(vec![Violation::new(
            "grace_period_seconds",
            "must not be negative",
        )]));
    }
    let response = |sandbox: Option<&Sandbox>| pb::DeleteSandboxResponse {
        sandbox: sandbox.map(|s| view.to_proto(s)),
        file_system_snapshot_ids: vec![],
    };
    let missing = || {
        if allow_missing {
            Ok(response(None))
        } else {
            Err(sandbox_not_found(&id))
        }
    };
    let Some(sandbox) = lookup.find(namespace, &id).await? else {
        return missing();
    };
    if state(&sandbox).is_final() || sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(response(Some(&sandbox)));
    }
    // With the UID, so that a later sandbox of the same name is not stopped.
    let patch = json!({
        "metadata": {"uid": sandbox.uid()},
        "spec": {"desiredState": "Stopped", "stopGracePeriodSeconds": grace_period_seconds.min(MAX_GRACE)},
    });
    match lookup.api.merge::<Sandbox>(namespace, &id, &patch).await {
        Ok(stopping) => Ok(response(Some(&stopping))),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => missing(),
        Err(error) => Err(of_kube("stopping the sandbox", &error)),
    }
}
