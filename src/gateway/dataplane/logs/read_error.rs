//! Why a read ended early.

use tonic::Status;

use super::render::RenderError;
use super::rotation::Missed;
use super::source::unavailable;

/// Why a read ended early.
pub(super) enum ReadError {
    /// The node does not keep what comes next.
    Gap,
    Failed(Status),
}

impl From<RenderError> for ReadError {
    fn from(error: RenderError) -> ReadError {
        match error {
            RenderError::Gap | RenderError::NextFile => ReadError::Gap,
            RenderError::Kubelet(text) => ReadError::Failed(unavailable(&text)),
        }
    }
}

impl From<Status> for ReadError {
    fn from(status: Status) -> ReadError {
        ReadError::Failed(status)
    }
}

impl From<Missed> for ReadError {
    fn from(_: Missed) -> ReadError {
        ReadError::Gap
    }
}
