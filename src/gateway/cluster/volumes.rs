//! Registered volumes: PersistentVolumeClaims with a label that has the volume's id.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use tonic::Status;

use crate::api::VOLUME_ID;
use crate::gateway::error::of_kube;
use crate::kube::ApiClient;
use crate::resources::labels;

/// The claim that is registered as this volume in a namespace.
///
/// # Errors
/// UNAVAILABLE if the API server does not answer.
pub(crate) async fn find(api: &ApiClient, namespace: &str, id: &str) -> Result<Option<PersistentVolumeClaim>, Status> {
    if !labels::is_value(id) {
        return Ok(None);
    }
    let params = ListParams::default().labels(&format!("{VOLUME_ID}={id}")).limit(1);
    let list = api
        .list(namespace, &params)
        .await
        .map_err(|e| of_kube("finding a volume", &e))?;
    Ok(list.items.into_iter().next())
}
