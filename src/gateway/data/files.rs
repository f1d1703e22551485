//! ReadFile and WriteFile.

use tonic::Status;

use crate::gateway::error::unimplemented;
use crate::gateway::identity::Caller;
use crate::gateway::state::Gateway;
use crate::proto::sandbox as pb;

/// ReadFile.
///
/// # Errors
/// One of the file reasons, with the path.
pub async fn read(_gateway: &Gateway, _caller: &Caller, _request: pb::ReadFileRequest) -> Result<pb::ReadFileResponse, Status> {
    Err(unimplemented("ReadFile"))
}

/// WriteFile.
///
/// # Errors
/// As [`read`].
pub async fn write(_gateway: &Gateway, _caller: &Caller, _request: pb::WriteFileRequest) -> Result<pb::WriteFileResponse, Status> {
    Err(unimplemented("WriteFile"))
}
