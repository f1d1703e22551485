//! Copies the files that came with the pod into the working directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Most levels of directories: a symbolic link may lead back to its own directory.
const MAX_DEPTH: u32 = 32;

/// Copies the regular files below `from` to the same paths below `to`. Follows symbolic links. Skips names that begin
/// with `..`: they are the kubelet's own. `mode`: that of the copies, by default that of each file. An error names the
/// file.
pub(super) fn copy_files(from: &Path, to: &Path, mode: Option<u32>) -> Result<(), String> {
    copy(from, to, mode, MAX_DEPTH)
}

fn copy(from: &Path, to: &Path, mode: Option<u32>, depth: u32) -> Result<(), String> {
    let context = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    for entry in fs::read_dir(from).map_err(context(from))? {
        let name = entry.map_err(context(from))?.file_name();
        if name.as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        let (from, to) = (from.join(&name), to.join(&name));
        let kind = fs::metadata(&from).map_err(context(&from))?;
        if kind.is_dir() {
            let depth = depth
                .checked_sub(1)
                .ok_or_else(|| format!("{}: too deep", from.display()))?;
            copy(&from, &to, mode, depth)?;
        } else if kind.is_file() {
            let parent = to.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(context(parent))?;
            copy_file(&from, &to, mode).map_err(context(&to))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, mode: Option<u32>) -> io::Result<()> {
    let content = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", from.display()));
    let mut source = File::open(from).map_err(content)?;
    let mode = mode.unwrap_or(source.metadata().map_err(content)?.permissions().mode() & 0o7777);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut target = match options.open(to) {
        // An earlier copy that may not be written even by its owner: the container was restarted.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && fs::remove_file(to).is_ok() => {
            options.open(to)?
        }
        opened => opened?,
    };
    io::copy(&mut source, &mut target)?;
    target.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_secret_volume_is_copied_without_the_kubelets_own_names() {
        let root = std::env::temp_dir().join(format!("copy-files-{}", uuid::Uuid::new_v4()));
        let (from, to) = (root.join("from"), root.join("to"));
        let data = from.join("..2026_01_01");
        fs::create_dir_all(data.join("a/b")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(data.join("train.py"), "print(1)").unwrap();
        fs::write(data.join("a/b/run.sh"), "#!/bin/sh").unwrap();
        fs::set_permissions(data.join("a/b/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("..2026_01_01", from.join("..data")).unwrap();
        symlink("..data/train.py", from.join("train.py")).unwrap();
        symlink("..data/a", from.join("a")).unwrap();
        fs::write(to.join("train.py"), "an older and longer one").unwrap();

        copy_files(&from, &to, None).unwrap();

        assert_eq!(fs::read_to_string(to.join("train.py")).unwrap(), "print(1)");
        let script = to.join("a/b/run.sh");
        assert_eq!(fs::metadata(script).unwrap().permissions().mode() & 0o777, 0o755);
        let copied = fs::read_dir(&to).unwrap().count();
        assert_eq!(copied, 2, "nothing else");

        symlink(".", from.join("self")).unwrap();
        let error = copy_files(&from, &to, None).unwrap_err();
        assert!(error.ends_with("too deep"), "{error}");
        let error = copy_files(&root.join("none"), &to, None).unwrap_err();
        assert!(error.contains("none: No such file"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
