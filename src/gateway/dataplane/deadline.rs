//! The deadline of a call, from the `grpc-timeout` header.

use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::gateway::error::status;
use crate::net::grpc_timeout;

/// Reason of an exceeded deadline.
const COMMAND_TIMEOUT: &str = "CWSANDBOX_COMMAND_TIMEOUT";

/// The time at which the caller stops waiting, if any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline of a call that starts now.
    pub(crate) fn of(metadata: &MetadataMap) -> Deadline {
        Deadline(grpc_timeout(metadata).and_then(|timeout| Instant::now().checked_add(timeout)))
    }

    /// Completes when the deadline has passed.
    pub(crate) async fn passed(self) -> Status {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        exceeded()
    }

    /// Runs `work` until the deadline.
    pub(crate) async fn within<T>(self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        tokio::select! {
            result = work => result,
            passed = self.passed() => Err(passed),
        }
    }
}

/// DEADLINE_EXCEEDED.
pub(crate) fn exceeded() -> Status {
    status(
        Code::DeadlineExceeded,
        COMMAND_TIMEOUT,
        "the deadline of the call has passed",
    )
}
