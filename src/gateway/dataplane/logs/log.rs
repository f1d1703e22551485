//! A log as it is sent to one caller, and the entries that end it.

use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tonic::Status;

use super::render::Start;
use super::rotation::Files;
use super::session::Session;
use crate::api::Sandbox;
use crate::gateway::edge::log_search::LogSearchPermits;
use crate::gateway::sandboxes::lookup::{SandboxLookup, not_running};
use crate::proto::sandbox as pb;

/// The error code for missing lines. The SDK raises it. After `REPLAY_GAP`, the other code for them, the SDK reads on
/// from the present without a word.
pub(super) const TRUNCATED: &str = "STREAM_TRUNCATED";

/// An entry, or what ends the stream instead.
pub(super) type Entry = Result<pb::LogEntry, Status>;

/// A log as it is sent to one caller.
pub(super) struct Log {
    pub sandboxes: SandboxLookup,
    pub sandbox: Arc<Sandbox>,
    pub container: String,
    pub entries: Sender<Entry>,
    /// Where the next read begins.
    pub start: Start,
    /// The session, from the first line on.
    pub session: Option<Session>,
    pub timestamps: bool,
    /// Bytes of the session that were delivered.
    pub offset: u64,
    /// Lines from the end with which to begin.
    pub tail: Option<usize>,
    /// What bounds the searches for them.
    pub searches: Option<LogSearchPermits>,
    /// The last read ended before the first byte to be delivered.
    pub past_end: bool,
    /// The files of the log that is followed.
    pub files: Option<Files>,
}

/// The log of a sandbox without a pod: empty if it never ran, otherwise lost.
pub(super) fn no_pod(sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    let status = sandbox.status.as_ref();
    if status.is_some_and(|s| s.state.is_final() && s.started_at.is_none()) {
        Ok(())
    } else {
        Err(not_running(sandbox))
    }
}

/// The last entry of a stream that ends before the log.
pub(super) fn error_entry(code: &str, message: &str) -> pb::LogEntry {
    pb::LogEntry {
        error: Some(pb::LogStreamError {
            code: code.into(),
            message: message.into(),
        }),
        ..pb::LogEntry::default()
    }
}
