//! Prepares the files of a container before it starts: see [`PrepareArgs`].

use super::copy_files;
use crate::agent_contract::PrepareArgs;
use std::fs;
use std::path::Path;

/// Creates the directories and copies the files, as the user that this process runs as. An error names the path.
pub(super) fn prepare(args: &PrepareArgs) -> Result<(), String> {
    for directory in &args.directories {
        fs::create_dir_all(directory).map_err(|error| format!("{directory}: {error}"))?;
    }
    if let (Some(from), Some(to)) = (&args.from, &args.to) {
        for (mode, directory) in modes(Path::new(from))? {
            copy_files::copy_files(&directory, Path::new(to), Some(mode))?;
        }
    }
    Ok(())
}

/// The directories whose names are modes in octal.
fn modes(from: &Path) -> Result<Vec<(u32, std::path::PathBuf)>, String> {
    let context = |error: std::io::Error| format!("{}: {error}", from.display());
    let mut found = vec![];
    for entry in fs::read_dir(from).map_err(context)? {
        let entry = entry.map_err(context)?;
        let mode = entry
            .file_name()
            .to_str()
            .and_then(|name| u32::from_str_radix(name, 8).ok());
        found.extend(mode.map(|mode| (mode, entry.path())));
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn each_file_gets_the_mode_of_its_directory() {
        let root = std::env::temp_dir().join(format!("prepare-{}", uuid::Uuid::new_v4()));
        let (from, to) = (root.join("from"), root.join("to"));
        let data = from.join("..2026_01_01");
        for (path, content) in [
            ("0400/absolute/file-0", "key"),
            ("0755/relative/bin/run", "#!/bin/sh"),
            ("0755/absolute/file-1", "x"),
        ] {
            let path = data.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }
        symlink("..2026_01_01", from.join("..data")).unwrap();
        symlink("..data/0400", from.join("0400")).unwrap();
        symlink("..data/0755", from.join("0755")).unwrap();
        fs::create_dir_all(&to).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let args = PrepareArgs {
            from: Some(text(&from)),
            to: Some(text(&to)),
            directories: vec![text(&root.join("scratch/a/b")), text(&root.join("scratch/a"))],
        };
        prepare(&args).unwrap();
        for (path, content, mode) in [
            ("absolute/file-0", "key", 0o400),
            ("absolute/file-1", "x", 0o755),
            ("relative/bin/run", "#!/bin/sh", 0o755),
        ] {
            let path = to.join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                mode,
                "{path:?}"
            );
        }
        assert!(root.join("scratch/a/b").is_dir());
        let missing = PrepareArgs {
            from: Some(text(&root.join("none"))),
            ..args
        };
        let error = prepare(&missing).unwrap_err();
        assert!(error.contains("none: No such file"), "{error}");
        fs::remove_dir_all(root).unwrap();
    }
}
