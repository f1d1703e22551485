//! Mounted files: their contents go into Secrets that the sandbox owns.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::problems::Problems;
use super::text::{self, quoted};
use crate::api::FieldPath;
use crate::api::{File, KeyRef};
use crate::proto::sandbox as pb;
use crate::resources::names;

/// Most bytes in one Secret: the API server accepts 1 MiB of data.
pub(crate) const MAX_SECRET_BYTES: usize = 900 << 10;
/// Most bytes of all files of a sandbox.
const MAX_TOTAL_BYTES: usize = 8 << 20;
const MAX_PATH_BYTES: usize = 1024;

/// The contents of a sandbox's files, in as few Secrets as possible.
#[derive(Debug, Default)]
pub(crate) struct FileContents {
    /// Contents by key, for each Secret.
    pub(crate) secrets: Vec<BTreeMap<String, Bytes>>,
    bytes_in_last: usize,
    count: usize,
    total_bytes: usize,
}

impl FileContents {
    fn add(&mut self, sandbox: &str, content: Bytes) -> KeyRef {
        self.total_bytes += content.len();
        if self.secrets.is_empty() || self.bytes_in_last + content.len() > MAX_SECRET_BYTES {
            self.secrets.push(BTreeMap::new());
            self.bytes_in_last = 0;
        }
        self.bytes_in_last += content.len();
        let key = format!("file-{}", self.count);
        self.count += 1;
        let number = self.secrets.len() - 1;
        if let Some(secret) = self.secrets.last_mut() {
            secret.insert(key.clone(), content);
        }
        KeyRef {
            name: names::files_secret(sandbox, number),
            key,
        }
    }

    /// Checks the total size. `containers`: the containers of the request.
    pub(crate) fn check(&self, containers: &FieldPath, problems: &mut Problems) {
        if self.total_bytes > MAX_TOTAL_BYTES {
            let text = format!(
                "files must have at most {MAX_TOTAL_BYTES} bytes in total, not {}; use a volume",
                self.total_bytes
            );
            problems.invalid(containers, text);
        }
    }
}

/// What the paths of a container's files depend on.
pub(crate) struct FileContext<'a> {
    /// Name of the sandbox.
    pub(crate) sandbox: &'a str,
    /// Working directory of the container; empty: the image's.
    pub(crate) working_dir: &'a str,
    /// Whether the agent starts the container's command: only the agent can place a file relative to the image's
    /// working directory.
    pub(crate) has_agent: bool,
    /// Most files that the container can have.
    pub(crate) max_files: usize,
}

/// Converts the files of one container. `taken`: paths that already have a file or a volume.
pub(crate) fn from_proto(
    path: &FieldPath,
    files: Vec<pb::FileMount>,
    context: &FileContext<'_>,
    taken: &mut BTreeSet<String>,
    contents: &mut FileContents,
    problems: &mut Problems,
) -> Vec<File> {
    problems.at_most(path, files.len(), context.max_files);
    let mut converted = vec![];
    for (i, file) in files.into_iter().enumerate() {
        let field = path.index(i);
        let pb::FileMount { path, content } = file;
        match resolve(context, &path) {
            Err(error) => problems.invalid(&field.field("path"), error),
            Ok(path) if !taken.insert(path.clone()) => {
                problems.invalid(&field.field("path"), format!("duplicate path {}", quoted(&path)));
            }
            Ok(_) if content.len() > MAX_SECRET_BYTES => {
                let text = format!(
                    "must have at most {MAX_SECRET_BYTES} bytes, not {}; use a volume",
                    content.len()
                );
                problems.invalid(&field.field("content"), text);
            }
            Ok(path) => converted.push(File {
                path,
                secret_key_ref: Some(contents.add(context.sandbox, content)),
                ..File::default()
            }),
        }
    }
    converted
}

fn resolve(context: &FileContext<'_>, path: &str) -> Result<String, String> {
    let joined = if path.starts_with('/') || context.working_dir.is_empty() {
        path.to_owned()
    } else {
        format!("{}/{path}", context.working_dir)
    };
    let normalized = text::normalized_path(&joined).ok_or("must not contain '..'")?;
    if path.is_empty() || path.ends_with('/') || normalized.is_empty() || normalized == "/" {
        return Err("must be the path of a file".into());
    }
    if normalized.contains([':', '\0']) || normalized.len() > MAX_PATH_BYTES {
        return Err(format!("must have at most {MAX_PATH_BYTES} bytes, without ':' and NUL"));
    }
    if text::is_reserved_path(&normalized) {
        return Err(format!(
            "{} is in a directory of the platform; choose another path",
            quoted(&normalized)
        ));
    }
    if !normalized.starts_with('/') && !context.has_agent {
        return Err("must be absolute in a container without command and working_dir".into());
    }
    Ok(normalized)
}
