//! StreamLogs.

pub mod render;
pub mod session;

use tonic::Status;

use crate::gateway::error::unimplemented;
use crate::gateway::identity::Caller;
use crate::gateway::service::Answers;
use crate::gateway::state::Gateway;
use crate::proto::sandbox as pb;

/// StreamLogs.
///
/// # Errors
/// NOT_FOUND; what happens to a stream that has begun is told in it.
pub async fn stream_logs(_gateway: &Gateway, _caller: &Caller, _request: pb::StreamLogsRequest) -> Result<Answers<pb::LogEntry>, Status> {
    Err(unimplemented("StreamLogs"))
}
