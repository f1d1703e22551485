//! Why a file could not be read or written, as callers are told.

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
pub enum Failure {
    /// It is a folder.
    IsDirectory,
    /// It is a pipe, a device or a socket.
    NotRegular,
    /// It has more bytes than the caller takes; how many, if that is known.
    TooLarge(Option<u64>),
    /// The system said so.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Failure {
        Failure::Io(error.into())
    }
}

impl Failure {
    /// As a gRPC status with a reason.
    pub fn status(&self, path: &str) -> Status {
        let (code, reason) = match self {
            Failure::IsDirectory => (Code::FailedPrecondition, "IS_DIRECTORY"),
            Failure::NotRegular => (Code::FailedPrecondition, "IO_FAILED"),
            Failure::TooLarge(_) => (Code::FailedPrecondition, "TOO_LARGE"),
            Failure::Io(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => (Code::NotFound, "NOT_FOUND"),
                ErrorKind::IsADirectory => (Code::FailedPrecondition, "IS_DIRECTORY"),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (Code::PermissionDenied, "PERMISSION_DENIED"),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Code::ResourceExhausted, "IO_FAILED"),
                ErrorKind::InvalidInput | ErrorKind::InvalidFilename => (Code::InvalidArgument, "IO_FAILED"),
                _ => (Code::Internal, "IO_FAILED"),
            },
        };
        let text = match self {
            Failure::IsDirectory => "is a directory".to_owned(),
            Failure::NotRegular => "not a regular file".to_owned(),
            Failure::TooLarge(Some(size)) => format!("too large: {size} bytes"),
            Failure::TooLarge(None) => "too large".to_owned(),
            Failure::Io(error) => error.to_string(),
        };
        let facts: HashMap<String, String> = match self {
            Failure::TooLarge(Some(size)) => [("size_bytes".to_owned(), size.to_string())].into(),
            _ => HashMap::new(),
        };
        Status::with_error_details(
            code,
            format!("{}: {text}", short(path, MAX_PATH)),
            ErrorDetails::with_error_info(reason, DOMAIN, facts),
        )
    }
}
