//! GetSandbox.

use tonic::Status;

use crate::gateway::convert::status::{sidecars, state};
use crate::gateway::sandboxes::lookup::SandboxLookup;
use crate::gateway::sandboxes::public_endpoints::PublicEndpoints;
use crate::gateway::sandboxes::view::SandboxView;
use crate::proto::sandbox as pb;

/// GetSandbox.
///
/// # Errors
/// NOT_FOUND, also for a sandbox of another tenant.
pub(crate) async fn get(
    lookup: &SandboxLookup,
    view: &SandboxView,
    endpoints: &PublicEndpoints,
    namespace: &str,
    request: pb::GetSandboxRequest,
) -> Result<pb::Sandbox, Status> {
    let sandbox = lookup.get(namespace, &request.sandbox_id).await?;
    let mut message = view.to_proto(&sandbox);
    endpoints.set_public_urls(&sandbox, &mut message).await;
    // The Sandbox has the status of the main container only. The call does not fail if the pod, for the others, cannot
    // be read.
    if sandbox.spec.workload.pod.sidecars.is_some()
        && !state(&sandbox).is_final()
        && let Some(status) = &mut message.status
        && let Ok(Some(pod)) = lookup.pod(&sandbox).await
    {
        status.container_statuses.extend(sidecars(&sandbox, &pod));
    }
    Ok(message)
}
