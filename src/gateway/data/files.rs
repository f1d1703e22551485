//! ReadFile and WriteFile.

use bytes::{Bytes, BytesMut};
use futures::stream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::target::{self, Place};
use crate::agent_client::MAX_PIECE;
use crate::gateway::error::{Violation, invalid, reason, with_metadata};
use crate::gateway::identity::Caller;
use crate::gateway::limits::{Room, WAIT};
use crate::gateway::state::Gateway;
use crate::proto::agent::write_file_request::Message;
use crate::proto::agent::{ReadFileRequest, WriteFileRequest, WriteFileStart};
use crate::proto::sandbox as pb;
use crate::text::short;

/// Longest path that Linux takes.
const MAX_PATH: usize = 4096;

/// ReadFile.
///
/// # Errors
/// One of the file reasons, with the path.
pub async fn read(gateway: &Gateway, caller: &Caller, request: pb::ReadFileRequest, room: Option<Room>) -> Result<pb::ReadFileResponse, Status> {
    let pb::ReadFileRequest { sandbox_id, path, container } = request;
    check(&sandbox_id, &path)?;
    let max_bytes = gateway.config.max_file_bytes;
    let mut place = target::place(gateway, caller, &sandbox_id, &container).await?;
    let asked = ReadFileRequest {
        path: path.clone(),
        max_bytes,
    };
    let mut pieces = match place.agent.read_file(asked).await {
        Ok(pieces) => pieces.into_inner(),
        Err(error) => return Err(failed(&place, &error, &path, max_bytes).await),
    };
    let mut content = BytesMut::new();
    loop {
        match pieces.message().await {
            Ok(Some(piece)) => {
                // Said with the first. It may be a lie; what comes then is counted as it comes.
                let size = usize::try_from(piece.size.min(max_bytes)).unwrap_or_default();
                Room::for_answer(room.as_ref(), size.max(content.len() + piece.data.len()), WAIT).await?;
                content.extend_from_slice(&piece.data);
            }
            Ok(None) => break,
            Err(error) => return Err(failed(&place, &error, &path, max_bytes).await),
        }
        // It was asked for no more.
        if content.len() as u64 > max_bytes {
            return Err(too_large(&path, max_bytes, Some(content.len() as u64)));
        }
    }
    Ok(pb::ReadFileResponse { content: content.freeze() })
}

/// WriteFile.
///
/// # Errors
/// As [`read`].
pub async fn write(gateway: &Gateway, caller: &Caller, request: pb::WriteFileRequest) -> Result<pb::WriteFileResponse, Status> {
    let pb::WriteFileRequest {
        sandbox_id,
        path,
        content,
        container,
    } = request;
    check(&sandbox_id, &path)?;
    let max_bytes = gateway.config.max_file_bytes;
    if content.len() as u64 > max_bytes {
        return Err(too_large(&path, max_bytes, Some(content.len() as u64)));
    }
    let mut place = target::place(gateway, caller, &sandbox_id, &container).await?;
    match place.agent.write_file(stream::iter(messages(path.clone(), content))).await {
        Ok(_) => Ok(pb::WriteFileResponse {}),
        Err(error) => Err(failed(&place, &error, &path, max_bytes).await),
    }
}

/// A file in pieces that an agent takes.
fn messages(path: String, mut content: Bytes) -> impl Iterator<Item = WriteFileRequest> {
    let start = Message::Start(WriteFileStart { path, mode: None });
    let pieces = std::iter::from_fn(move || {
        let piece = content.split_to(content.len().min(MAX_PIECE));
        (!piece.is_empty()).then_some(Message::Data(piece))
    });
    std::iter::once(start)
        .chain(pieces)
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
    if violations.is_empty() { Ok(()) } else { Err(invalid(violations)) }
}

/// An agent's error: about the file, or about the way to it.
async fn failed(place: &Place, error: &Status, path: &str, max_bytes: u64) -> Status {
    match of_file(error, path, max_bytes) {
        Some(status) => status,
        None => place.lost(error).await,
    }
}

/// What an agent says of a file. Nothing else of what it says is passed on.
fn of_file(error: &Status, path: &str, max_bytes: u64) -> Option<Status> {
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

/// FILE_TOO_LARGE. The SDK learns the limit from it, and goes on with exec if it knows the size.
fn too_large(path: &str, max_bytes: u64, size: Option<u64>) -> Status {
    // The size of a file that is too large, and still is not: it has shrunk meanwhile.
    let size = size.unwrap_or_default().max(max_bytes + 1);
    let facts = [
        ("filepath", path.to_owned()),
        ("size_bytes", size.to_string()),
        ("max_size_bytes", max_bytes.to_string()),
    ];
    let text = format!("{} has more than {max_bytes} bytes", short(path, 200));
    with_metadata(Code::FailedPrecondition, reason::FILE_TOO_LARGE, text, facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn from_agent(reason: &str, facts: &[(&str, &str)]) -> Status {
        let facts: std::collections::HashMap<_, _> = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Status::with_error_details(Code::Unknown, "said\nthe agent", ErrorDetails::with_error_info(reason, "agent", facts))
    }

    #[test]
    fn every_word_of_the_agent_about_a_file_is_the_sdks() {
        for (said, reason) in [
            ("NOT_FOUND", "CWSANDBOX_FILE_NOT_FOUND"),
            ("IS_DIRECTORY", "CWSANDBOX_FILE_IS_DIRECTORY"),
            ("PERMISSION_DENIED", "CWSANDBOX_FILE_PERMISSION_DENIED"),
            ("TOO_LARGE", "CWSANDBOX_FILE_TOO_LARGE"),
            ("IO_FAILED", "CWSANDBOX_FILE_IO_FAILED"),
        ] {
            let status = of_file(&from_agent(said, &[]), "/a", 7).unwrap();
            let info = status.get_error_details().error_info().cloned().unwrap();
            assert_eq!(
                (info.reason.as_str(), info.domain.as_str(), info.metadata["filepath"].as_str()),
                (reason, "cwsandbox.com", "/a")
            );
        }
        assert!(of_file(&from_agent("SOMETHING", &[]), "/a", 7).is_none());
        assert!(of_file(&Status::unavailable("gone"), "/a", 7).is_none());
    }

    #[test]
    fn the_sdk_learns_size_and_limit() {
        let facts = |status: Status| status.get_error_details().error_info().cloned().unwrap().metadata;
        let said = facts(of_file(&from_agent("TOO_LARGE", &[("size_bytes", "9")]), "/a", 7).unwrap());
        assert_eq!((said["size_bytes"].as_str(), said["max_size_bytes"].as_str()), ("9", "7"));
        let lied = facts(of_file(&from_agent("TOO_LARGE", &[("size_bytes", "-1\n")]), "/a", 7).unwrap());
        assert_eq!(lied["size_bytes"], "8");
    }

    #[test]
    fn a_file_goes_in_pieces() {
        let sizes = |n: usize| {
            let parts = messages("/a".into(), Bytes::from(vec![0; n])).skip(1);
            parts
                .map(|m| if let Some(Message::Data(d)) = m.message { d.len() } else { 0 })
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), Vec::<usize>::new());
        assert_eq!(sizes(MAX_PIECE), [MAX_PIECE]);
        assert_eq!(sizes(2 * MAX_PIECE + 3), [MAX_PIECE, MAX_PIECE, 3]);
    }

    #[test]
    fn a_path_must_be_one() {
        assert!(check("a", "hello.txt").is_ok());
        for path in ["", "a\0b", &"x".repeat(MAX_PATH + 1)] {
            assert!(check("a", path).unwrap_err().message().starts_with("path"));
        }
        assert!(check("", "/a").is_err());
    }
}
