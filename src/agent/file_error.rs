//! Errors of file operations, as gRPC statuses.

use crate::text::short;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of the reasons.
const DOMAIN: &str = "sandbox-operator.dev";
/// Bytes of a path in a message: it travels as a header.
const MAX_PATH: usize = 200;

/// Why a file could not be read or written.
#[derive(Debug)]
pub(super) enum FileError {
    /// The path is a directory.
    IsDirectory,
    /// The path is a pipe, a device or a socket.
    NotRegular,
    /// The file has more bytes than the caller takes; how many, if known.
    TooLarge(Option<u64>),
    /// The system call failed.
    Io(io::Error),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        FileError::Io(error)
    }
}

impl From<rustix::io::Errno> for FileError {
    fn from(error: rustix::io::Errno) -> FileError {
        FileError::Io(error.into())
    }
}

impl FileError {
    /// The status, with its reason in the details.
    pub(super) fn status(&self, path: &str) -> Status {
        let (code, reason) = match self {
            FileError::IsDirectory => (Code::FailedPrecondition, "IS_DIRECTORY"),
            FileError::NotRegular => (Code::FailedPrecondition, "IO_FAILED"),
            FileError::TooLarge(_) => (Code::FailedPrecondition, "TOO_LARGE"),
            FileError::Io(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => (Code::NotFound, "NOT_FOUND"),
                ErrorKind::IsADirectory => (Code::FailedPrecondition, "IS_DIRECTORY"),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    (Code::PermissionDenied, "PERMISSION_DENIED")
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Code::ResourceExhausted, "IO_FAILED"),
                ErrorKind::InvalidInput | ErrorKind::InvalidFilename => (Code::InvalidArgument, "IO_FAILED"),
                _ => (Code::Internal, "IO_FAILED"),
            },
        };
        let text = match self {
            FileError::IsDirectory => "is a directory".to_owned(),
            FileError::NotRegular => "not a regular file".to_owned(),
            FileError::TooLarge(Some(size)) => format!("too large: {size} bytes"),
            FileError::TooLarge(None) => "too large".to_owned(),
            FileError::Io(error) => error.to_string(),
        };
        let metadata: HashMap<String, String> = match self {
            FileError::TooLarge(Some(size)) => [("size_bytes".to_owned(), size.to_string())].into(),
            _ => HashMap::new(),
        };
        Status::with_error_details(
            code,
            format!("{}: {text}", short(path, MAX_PATH)),
            ErrorDetails::with_error_info(reason, DOMAIN, metadata),
        )
    }
}
