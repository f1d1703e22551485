//! ReadFile and WriteFile.

use bytes::{Bytes, BytesMut};
use futures::stream;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::agent_client::MAX_PIECE;
use crate::gateway::dataplane::agent_handle::{AgentHandle, Agents};
use crate::gateway::edge::body_budget::{BodyBudget, MAX_WAIT, SMALL_BODY, transfer_time};
use crate::gateway::error::{Violation, invalid, reason, retry, with_metadata};
use crate::proto::agent::write_file_request::Message;
use crate::proto::agent::{ReadFileRequest, WriteFileRequest, WriteFileStart};
use crate::proto::sandbox as pb;
use crate::text::short;

/// Longest path in Linux, PATH_MAX.
const MAX_PATH: usize = 4096;

/// ReadFile.
///
/// # Errors
/// NOT_FOUND, FAILED_PRECONDITION unless the sandbox is running, or one of the file reasons with the path.
pub(crate) async fn read(
    agents: &Agents,
    max_bytes: u64,
    namespace: &str,
    request: pb::ReadFileRequest,
    budget: Option<BodyBudget>,
) -> Result<pb::ReadFileResponse, Status> {
    let pb::ReadFileRequest {
        sandbox_id,
        path,
        container,
    } = request;
    check(&sandbox_id, &path)?;
    let mut handle = agents.handle(namespace, &sandbox_id, &container).await?;
    let request = ReadFileRequest {
        path: path.clone(),
        max_bytes,
    };
    let mut chunks = match handle.agent.read_file(request).await {
        Ok(chunks) => chunks.into_inner(),
        Err(error) => return Err(error_of(&handle, &error, &path, max_bytes).await),
    };
    let mut content = BytesMut::new();
    let (mut is_large, begun) = (false, Instant::now());
    loop {
        let next = match is_large {
            true => timeout_at(begun + transfer_time(content.len()), chunks.message()).await,
            false => Ok(chunks.message().await),
        };
        match next.map_err(|_| stalled())? {
            Ok(Some(chunk)) => {
                // The first chunk announces the size, so that reads do not hold a part of their memory and block each
                // other. The size is not trusted: bytes are counted as they arrive, and must keep arriving.
                let size = usize::try_from(chunk.size.min(max_bytes)).unwrap_or_default();
                let size = size.max(content.len() + chunk.data.len());
                BodyBudget::reserve_response(budget.as_ref(), size, MAX_WAIT).await?;
                is_large |= size > SMALL_BODY;
                content.extend_from_slice(&chunk.data);
            }
            Ok(None) => break,
            Err(error) => return Err(error_of(&handle, &error, &path, max_bytes).await),
        }
        // The request limited the agent to this.
        if content.len() as u64 > max_bytes {
            return Err(too_large(&path, max_bytes, Some(content.len() as u64)));
        }
    }
    Ok(pb::ReadFileResponse {
        content: content.freeze(),
    })
}

/// WriteFile.
///
/// # Errors
/// As [`read`].
pub(crate) async fn write(
    agents: &Agents,
    max_bytes: u64,
    namespace: &str,
    request: pb::WriteFileRequest,
) -> Result<pb::WriteFileResponse, Status> {
    let pb::WriteFileRequest {
        sandbox_id,
        path,
        content,
        container,
    } = request;
    check(&sandbox_id, &path)?;
    if content.len() as u64 > max_bytes {
        return Err(too_large(&path, max_bytes, Some(content.len() as u64)));
    }
    let mut handle = agents.handle(namespace, &sandbox_id, &container).await?;
    let time = match content.len() {
        ..=SMALL_BODY => Duration::MAX,
        bytes => transfer_time(bytes),
    };
    let write = handle.agent.write_file(stream::iter(messages(path.clone(), content)));
    match tokio::time::timeout(time, write).await.map_err(|_| stalled())? {
        Ok(_) => Ok(pb::WriteFileResponse {}),
        Err(error) => Err(error_of(&handle, &error, &path, max_bytes).await),
    }
}

/// UNAVAILABLE: the transfer stalls, and other calls wait for its memory.
fn stalled() -> Status {
    let text = "the sandbox's agent takes too long to transfer the file";
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        text,
        Duration::from_secs(1),
    )
}

/// A file in chunks of the agent's maximum size.
fn messages(path: String, mut content: Bytes) -> impl Iterator<Item = WriteFileRequest> {
    let start = Message::Start(WriteFileStart { path, mode: None });
    let chunks = std::iter::from_fn(move || {
        let chunk = content.split_to(content.len().min(MAX_PIECE));
        (!chunk.is_empty()).then_some(Message::Data(chunk))
    });
    std::iter::once(start)
        .chain(chunks)
        .map(|message| WriteFileRequest { message: Some(message) })
}

fn check(sandbox_id: &str, path: &str) -> Result<(), Status> {
    let mut violations = vec![];
    if sandbox_id.is_empty() {
        violations.push(Violation::new("sandbox_id", "must be set"));
    }
    if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
        violations.push(Violation::new("path", "must be 1 to 4096 bytes without NUL"));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(invalid(violations))
    }
}

/// The caller's error for a failed call to the agent.
async fn error_of(handle: &AgentHandle, error: &Status, path: &str, max_bytes: u64) -> Status {
    match file_error(error, path, max_bytes) {
        Some(status) => status,
        None => handle.to_caller_error(error).await,
    }
}

/// An agent's error about a file. Nothing else of the agent's details is passed on.
fn file_error(error: &Status, path: &str, max_bytes: u64) -> Option<Status> {
    let info = error.get_error_details().error_info().cloned()?;
    let size = info.metadata.get("size_bytes").and_then(|size| size.parse().ok());
    let (code, reason) = match info.reason.as_str() {
        "NOT_FOUND" => (Code::NotFound, reason::FILE_NOT_FOUND),
        "IS_DIRECTORY" => (Code::FailedPrecondition, reason::FILE_IS_DIRECTORY),
        "PERMISSION_DENIED" => (Code::PermissionDenied, reason::FILE_PERMISSION_DENIED),
        "TOO_LARGE" => return Some(too_large(path, max_bytes, size)),
        "IO_FAILED" => (Code::Internal, reason::FILE_IO_FAILED),
        _ => return None,
    };
    let text: String = error.message().chars().filter(|c| !c.is_control()).take(300).collect();
    Some(with_metadata(code, reason, text, [("filepath", path.to_owned())]))
}

/// FILE_TOO_LARGE. The SDK reads the limit from it, and falls back to exec if it knows the size.
fn too_large(path: &str, max_bytes: u64, size: Option<u64>) -> Status {
    // A size within the limit: the file shrank after it was refused, or the agent's value is wrong.
    let size = size.unwrap_or_default().max(max_bytes + 1);
    let metadata = [
        ("filepath", path.to_owned()),
        ("size_bytes", size.to_string()),
        ("max_size_bytes", max_bytes.to_string()),
    ];
    let text = format!("{} has more than {max_bytes} bytes", short(path, 200));
    with_metadata(Code::FailedPrecondition, reason::FILE_TOO_LARGE, text, metadata)
}

#[cfg(test)]
mod tests;
