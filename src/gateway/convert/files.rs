//! Mounted files: their contents go into Secrets of the sandbox's own.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use super::problems::Problems;
use super::text::{self, quoted};
use crate::api::{File, KeyRef};
use crate::proto::sandbox as pb;
use crate::resources::names;

/// Most bytes in one Secret: the API server ends an object at 1 MiB of data.
pub const MAX_SECRET_BYTES: usize = 900 << 10;
/// Most bytes of all files of a sandbox.
pub const MAX_BYTES: usize = 8 << 20;

/// The contents of the files of a sandbox, in as few Secrets as they fit in.
#[derive(Debug, Default)]
pub struct Contents {
    /// Contents by key, for each Secret.
    pub secrets: Vec<BTreeMap<String, Bytes>>,
    in_last: usize,
    count: usize,
    total: usize,
}

impl Contents {
    fn add(&mut self, sandbox: &str, content: Bytes) -> KeyRef {
        self.total += content.len();
        if self.secrets.is_empty() || self.in_last + content.len() > MAX_SECRET_BYTES {
            self.secrets.push(BTreeMap::new());
            self.in_last = 0;
        }
        self.in_last += content.len();
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

    /// What the sum of all files breaks.
    pub fn check(&self, problems: &mut Problems) {
        if self.total > MAX_BYTES {
            let text = format!("the files are {} bytes; a sandbox may have {MAX_BYTES} in all", self.total);
            problems.wrong("sandbox.spec.containers[].files", text);
        }
    }
}

/// Where the files of one container go.
pub struct Place<'a> {
    /// Path of the container in the request.
    pub at: &'a str,
    /// Name of the sandbox.
    pub sandbox: &'a str,
    /// Working directory of the container; empty: the image's.
    pub working_dir: &'a str,
    /// Whether the agent starts the container's command: only then can a file lie relative to the image's working directory.
    pub has_agent: bool,
}

/// Files of one container. `taken`: paths where something is already.
pub fn from_proto(
    place: &Place<'_>,
    files: Vec<pb::FileMount>,
    taken: &mut BTreeSet<String>,
    contents: &mut Contents,
    problems: &mut Problems,
) -> Vec<File> {
    let mut all = vec![];
    for (i, file) in files.into_iter().enumerate() {
        let at = format!("{}.files[{i}]", place.at);
        let pb::FileMount { path, content } = file;
        match resolve(place, &path) {
            Err(problem) => problems.wrong(format!("{at}.path"), problem),
            Ok(path) if !taken.insert(path.clone()) => problems.wrong(format!("{at}.path"), format!("{} is there twice", quoted(&path))),
            Ok(_) if content.len() > MAX_SECRET_BYTES => {
                let text = format!("is {} bytes; one file may have {MAX_SECRET_BYTES}", content.len());
                problems.wrong(format!("{at}.content"), text);
            }
            Ok(path) => all.push(File {
                path,
                secret_key_ref: Some(contents.add(place.sandbox, content)),
                ..File::default()
            }),
        }
    }
    all
}

fn resolve(place: &Place<'_>, path: &str) -> Result<String, String> {
    let whole = if path.starts_with('/') || place.working_dir.is_empty() {
        path.to_owned()
    } else {
        format!("{}/{path}", place.working_dir)
    };
    let normal = text::normal_path(&whole).ok_or("must not have '..'")?;
    if path.is_empty() || path.ends_with('/') || normal.is_empty() || normal == "/" {
        return Err("must be the path of a file".into());
    }
    if normal.contains([':', '\0']) || normal.len() > 1024 {
        return Err("must not have ':' or NUL, nor be longer than 1024 bytes".into());
    }
    if text::is_ours(&normal) {
        return Err(format!("{} is in a folder of the platform", quoted(&normal)));
    }
    if !normal.starts_with('/') && !place.has_agent {
        return Err("must be absolute, or the container needs a command or a working_dir".into());
    }
    Ok(normal)
}
