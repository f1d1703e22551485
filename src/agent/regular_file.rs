//! Only regular files are read and written.

use super::file_error::FileError;
use rustix::fs::OFlags;
use std::fs::Metadata;

/// Flags with which `open` does not block, even if the path has become a pipe since it was checked.
pub(super) fn nonblocking() -> i32 {
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed()
}

pub(super) fn require_regular(metadata: &Metadata) -> Result<(), FileError> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(FileError::IsDirectory),
        _ => Err(FileError::NotRegular),
    }
}
