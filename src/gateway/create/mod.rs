//! CreateSandbox: from a request to a Sandbox and what belongs to it.

use tonic::Status;

use super::error::unimplemented;
use super::identity::Caller;
use super::state::Gateway;
use crate::proto::sandbox as pb;

/// CreateSandbox.
///
/// # Errors
/// INVALID_ARGUMENT with the fields that are wrong; ALREADY_EXISTS for a `request_id` that came with another body.
pub async fn create(_gateway: &Gateway, _caller: &Caller, _request: pb::CreateSandboxRequest) -> Result<pb::Sandbox, Status> {
    Err(unimplemented("CreateSandbox"))
}

/// CreateSandboxFromTemplate.
///
/// # Errors
/// As `create`; NOT_FOUND without such a template.
pub async fn from_template(_gateway: &Gateway, _caller: &Caller, _request: pb::CreateSandboxFromTemplateRequest) -> Result<pb::Sandbox, Status> {
    Err(unimplemented("CreateSandboxFromTemplate"))
}
