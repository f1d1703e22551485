//! The deadline that a caller gives a call.

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::gateway::error::status;
use crate::net::grpc_timeout;

/// The reason of a deadline that has passed.
const COMMAND_TIMEOUT: &str = "CWSANDBOX_COMMAND_TIMEOUT";

/// When the caller stops waiting, if ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Of a call that begins now.
    pub fn of(metadata: &MetadataMap) -> Deadline {
        let left = grpc_timeout(metadata);
        Deadline(left.and_then(|left| Instant::now().checked_add(left)))
    }

    /// Comes when it has passed.
    pub async fn passed(self) -> Status {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        exceeded()
    }

    /// `work`, unless the deadline passes first.
    pub async fn within<T>(self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            result = work => result,
            passed = self.passed() => Err(passed),
        }
    }
}

/// DEADLINE_EXCEEDED.
pub fn exceeded() -> Status {
    status(Code::DeadlineExceeded, COMMAND_TIMEOUT, "the deadline of the call has passed")
}
