//! A file that takes another's place as a whole, or not at all.

use super::file_error::Failure;
use super::files::{never_wait, regular};
use rustix::fs::Access;
use rustix::io::Errno;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Mode of a new file, unless the caller says another.
const MODE: u32 = 0o644;
/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// New content on its way to a path. Dropped before [`Replacement::commit`], it leaves nothing behind.
pub struct Replacement {
    /// Takes the content.
    file: File,
    /// Its own name, until it has the other; none where only the old file itself can be written.
    temporary: Option<PathBuf>,
    path: PathBuf,
    old: Option<Metadata>,
    mode: u32,
}

impl Replacement {
    /// Prepares to replace `path`, or what it links to.
    pub fn begin(path: &Path, mode: Option<u32>) -> Result<Replacement, Failure> {
        if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return Err(Failure::IsDirectory);
        }
        let (path, old) = follow(path.to_owned())?;
        if let Some(old) = &old {
            regular(old)?;
            // Renaming asks only whether the folder may be written.
            rustix::fs::access(&path, Access::WRITE_OK)?;
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let temporary = folder.join(format!(".sandbox-operator-{}", uuid::Uuid::new_v4()));
        let mode = mode.unwrap_or(MODE) & 0o7777;
        let (file, temporary) = match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => (file, Some(temporary)),
            Err(error) if old.is_some() && matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
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
    pub fn write(mut self, data: &[u8]) -> Result<Replacement, Failure> {
        self.file.write_all(data)?;
        Ok(self)
    }

    /// Puts the new content in place.
    pub fn commit(mut self) -> Result<(), Failure> {
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        match self.dress().and_then(|()| fs::rename(temporary, &self.path)) {
            Ok(()) => {
                self.temporary = None;
                Ok(())
            }
            // A file that is mounted cannot be renamed over; one of another owner could not be given back to them.
            Err(error) if self.old.is_some() && is_in_the_way(&error) => {
                let mut file = overwrite(&self.path)?;
                self.file.rewind()?;
                io::copy(&mut self.file, &mut file)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the new file the old one's owner and mode.
    fn dress(&self) -> io::Result<()> {
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

/// The path behind all links, and what is there.
fn follow(mut path: PathBuf) -> Result<(PathBuf, Option<Metadata>), Failure> {
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

fn overwrite(path: &Path) -> Result<File, Failure> {
    let file = OpenOptions::new().write(true).custom_flags(never_wait()).open(path)?;
    regular(&file.metadata()?)?;
    file.set_len(0)?;
    Ok(file)
}

fn is_in_the_way(error: &io::Error) -> bool {
    [Errno::BUSY, Errno::XDEV, Errno::PERM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
