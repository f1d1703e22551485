//! Files that came with the pod, put where the sandbox wants them.

use std::fs;
use std::io;
use std::path::Path;

/// Deepest folder that is looked into: a link may lead back to where it is.
const MAX_DEPTH: u32 = 32;

/// Copies the regular files below `from` to the same places below `to`. Links are followed; names that begin with `..` are the
/// kubelet's own.
///
/// # Errors
/// Names the file.
pub fn place(from: &Path, to: &Path) -> Result<(), String> {
    copy(from, to, MAX_DEPTH)
}

fn copy(from: &Path, to: &Path, depth: u32) -> Result<(), String> {
    let about = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| format!("{path}: {error}")
    };
    for entry in fs::read_dir(from).map_err(about(from))? {
        let name = entry.map_err(about(from))?.file_name();
        if name.as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        let (from, to) = (from.join(&name), to.join(&name));
        let kind = fs::metadata(&from).map_err(about(&from))?;
        if kind.is_dir() {
            let depth = depth.checked_sub(1).ok_or_else(|| format!("{}: too deep", from.display()))?;
            copy(&from, &to, depth)?;
        } else if kind.is_file() {
            let parent = to.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent).map_err(about(parent))?;
            fs::copy(&from, &to).map_err(about(&to))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_secret_volume_is_placed_without_the_kubelets_names() {
        let root = std::env::temp_dir().join(format!("place-{}", uuid::Uuid::new_v4()));
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

        place(&from, &to).unwrap();

        assert_eq!(fs::read_to_string(to.join("train.py")).unwrap(), "print(1)");
        let script = to.join("a/b/run.sh");
        assert_eq!(fs::metadata(script).unwrap().permissions().mode() & 0o777, 0o755);
        let placed = fs::read_dir(&to).unwrap().count();
        assert_eq!(placed, 2, "nothing else");

        symlink(".", from.join("self")).unwrap();
        let error = place(&from, &to).unwrap_err();
        assert!(error.ends_with("too deep"), "{error}");
        let error = place(&root.join("none"), &to).unwrap_err();
        assert!(error.contains("none: No such file"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
