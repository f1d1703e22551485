//! Replaces a file atomically.

use super::file_error::FileError;
use super::regular_file::{nonblocking, require_regular};
use rustix::fs::Access;
use rustix::io::Errno;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Mode of a new file, unless the caller sets one.
const MODE: u32 = 0o644;
/// As many symbolic links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// New content for a path. Dropping it before [`Replacement::commit`] removes it and leaves the old file as it is.
pub(super) struct Replacement {
    file: File,
    /// The path of `file` until it is renamed; none where the old file itself has to be overwritten.
    temporary: Option<PathBuf>,
    path: PathBuf,
    old: Option<Metadata>,
    mode: u32,
}

impl Replacement {
    /// Prepares to replace `path`, or the file that it links to.
    pub(super) fn begin(path: &Path, mode: Option<u32>) -> Result<Replacement, FileError> {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(FileError::IsDirectory);
        }
        let (path, old) = resolve_links(path.to_owned())?;
        if let Some(old) = &old {
            require_regular(old)?;
            // A rename checks only whether the directory is writable.
            rustix::fs::access(&path, Access::WRITE_OK)?;
        }
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let temporary = directory.join(format!(".sandbox-operator-{}", uuid::Uuid::new_v4()));
        let mode = mode.unwrap_or(MODE) & 0o7777;
        let (file, temporary) = match OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
        {
            Ok(file) => (file, Some(temporary)),
            Err(error)
                if old.is_some()
                    && matches!(
                        error.kind(),
                        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                    ) =>
            {
                (overwrite(&path)?, None)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Replacement {
            file,
            temporary,
            path,
            old,
            mode,
        })
    }

    /// Appends to the new content.
    pub(super) fn write(mut self, data: &[u8]) -> Result<Replacement, FileError> {
        self.file.write_all(data)?;
        Ok(self)
    }

    /// Replaces the file.
    pub(super) fn commit(mut self) -> Result<(), FileError> {
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        match self
            .set_owner_and_mode()
            .and_then(|()| fs::rename(temporary, &self.path))
        {
            Ok(()) => {
                self.temporary = None;
                Ok(())
            }
            // A mounted file cannot be replaced by a rename, and not every user may give the new file its old owner.
            Err(error) if self.old.is_some() && prevents_rename(&error) => {
                let mut file = overwrite(&self.path)?;
                self.file.rewind()?;
                io::copy(&mut self.file, &mut file)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the new file the owner and the mode of the old one.
    fn set_owner_and_mode(&self) -> io::Result<()> {
        let mut mode = self.mode;
        if let Some(old) = &self.old {
            let new = self.file.metadata()?;
            if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
                fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
            }
            mode = old.mode() & 0o7777;
        }
        self.file.set_permissions(Permissions::from_mode(mode))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The path behind all symbolic links, and the metadata of the file there if one exists.
fn resolve_links(mut path: PathBuf) -> Result<(PathBuf, Option<Metadata>), FileError> {
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => {
                let link = fs::read_link(&path)?;
                path = path.parent().unwrap_or(Path::new("")).join(link);
            }
            Ok(there) => return Ok((path, Some(there))),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((path, None)),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::LOOP.into())
}

fn overwrite(path: &Path) -> Result<File, FileError> {
    let file = OpenOptions::new().write(true).custom_flags(nonblocking()).open(path)?;
    require_regular(&file.metadata()?)?;
    file.set_len(0)?;
    Ok(file)
}

fn prevents_rename(error: &io::Error) -> bool {
    [Errno::BUSY, Errno::XDEV, Errno::PERM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
