//! GetSandbox, ListSandboxes, DeleteSandbox.

use tonic::Status;

use super::error::unimplemented;
use super::identity::Caller;
use super::state::Gateway;
use crate::proto::sandbox as pb;

/// GetSandbox.
///
/// # Errors
/// NOT_FOUND, also for a sandbox of another tenant.
pub async fn get(_gateway: &Gateway, _caller: &Caller, _request: pb::GetSandboxRequest) -> Result<pb::Sandbox, Status> {
    Err(unimplemented("GetSandbox"))
}

/// ListSandboxes.
///
/// # Errors
/// INVALID_ARGUMENT for a page token that is not ours.
pub async fn list(_gateway: &Gateway, _caller: &Caller, _request: pb::ListSandboxesRequest) -> Result<pb::ListSandboxesResponse, Status> {
    Err(unimplemented("ListSandboxes"))
}

/// DeleteSandbox.
///
/// # Errors
/// NOT_FOUND unless `allow_missing`.
pub async fn delete(_gateway: &Gateway, _caller: &Caller, _request: pb::DeleteSandboxRequest) -> Result<pb::DeleteSandboxResponse, Status> {
    Err(unimplemented("DeleteSandbox"))
}
