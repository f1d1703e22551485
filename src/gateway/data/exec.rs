//! Exec and StreamExec.

use tonic::{Request, Status, Streaming};

use crate::gateway::error::unimplemented;
use crate::gateway::identity::Caller;
use crate::gateway::service::Answers;
use crate::gateway::state::Gateway;
use crate::proto::sandbox as pb;

/// Exec: a command without input, its output in one answer.
///
/// # Errors
/// NOT_FOUND, FAILED_PRECONDITION unless the sandbox is RUNNING.
pub async fn exec(_gateway: &Gateway, _caller: &Caller, _request: Request<pb::ExecRequest>) -> Result<pb::ExecResponse, Status> {
    Err(unimplemented("Exec"))
}

/// StreamExec.
///
/// # Errors
/// As [`exec`].
pub async fn stream_exec(
    _gateway: &Gateway,
    _caller: &Caller,
    _request: Request<Streaming<pb::ExecStreamRequest>>,
) -> Result<Answers<pb::ExecStreamResponse>, Status> {
    Err(unimplemented("StreamExec"))
}
