//! `spec.files`: inline content goes into a Secret of the sandbox's own. A file with an absolute path comes into the main container as a
//! read-only mount: it is there before the main command starts, in any image, with a read-only root as well, and under any entrypoint.
//! Where a relative path begins only the image knows: the agent copies such files to its working directory before the main command starts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, KeyToPath, ProjectedVolumeSource, Secret, SecretProjection, Volume, VolumeMount, VolumeProjection,
};
use std::collections::BTreeMap;

use super::effective::path_of;
use super::{Effective, names};
use crate::agent_contract::FILES_DIRECTORY;
use crate::api::{FieldError, FieldPath, File, KeyRef, Sandbox, Sidecar, limits};

/// Name of the pod's volume that holds the main container's files.
pub const VOLUME: &str = "sandbox-operator-files";
/// Name of the pod's volume that holds those with relative paths, each at its path.
const PLACED_VOLUME: &str = "sandbox-operator-placed-files";
/// Permission bits of a file that names none: 0644.
const DEFAULT_MODE: i32 = 0o644;

/// The files of one container.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    files: &'a [File],
    /// The place of its sidecar; none for the main container.
    sidecar: Option<usize>,
}

impl<'a> Files<'a> {
    /// The main container's.
    pub fn of_main(effective: &'a Effective) -> Files<'a> {
        Files {
            files: effective.workload.container.files.as_deref().unwrap_or_default(),
            sidecar: None,
        }
    }

    /// A sidecar's.
    pub fn of_sidecar(place: usize, sidecar: &'a Sidecar) -> Files<'a> {
        Files {
            files: sidecar.container.files.as_deref().unwrap_or_default(),
            sidecar: Some(place),
        }
    }

    fn of_all(effective: &'a Effective) -> impl Iterator<Item = Files<'a>> {
        let sidecars = effective.workload.pod.sidecars.iter().flatten().enumerate();
        std::iter::once(Files::of_main(effective)).chain(sidecars.map(|(place, sidecar)| Files::of_sidecar(place, sidecar)))
    }

    /// One mount per file with an absolute path, and one for all the others.
    pub fn mounts(self) -> Vec<VolumeMount> {
        let mount = |name: &str, path: &str, key: Option<String>| VolumeMount {
            name: self.named(name),
            mount_path: path.into(),
            sub_path: key,
            read_only: Some(true),
            ..VolumeMount::default()
        };
        let absolute = self.numbered(false).map(|(i, file)| mount(VOLUME, &file.path, Some(key(i))));
        let placed = self.are_placed().then(|| mount(PLACED_VOLUME, FILES_DIRECTORY, None));
        absolute.chain(placed).collect()
    }

    /// Whether there are some that the agent has to copy.
    pub fn are_placed(self) -> bool {
        self.numbered(true).next().is_some()
    }

    /// One volume for each way in which they come.
    fn volumes(self, sandbox: &Sandbox) -> Vec<Volume> {
        let of = |name: &str, relative: bool| {
            let sources = self.numbered(relative);
            let sources: Vec<_> = sources
                .map(|(i, file)| self.projection(sandbox, i, file, if relative { file.path.clone() } else { key(i) }))
                .collect();
            (!sources.is_empty()).then(|| Volume {
                name: self.named(name),
                projected: Some(ProjectedVolumeSource {
                    sources: Some(sources),
                    ..ProjectedVolumeSource::default()
                }),
                ..Volume::default()
            })
        };
        [of(VOLUME, false), of(PLACED_VOLUME, true)].into_iter().flatten().collect()
    }

    fn numbered(self, relative: bool) -> impl Iterator<Item = (usize, &'a File)> {
        self.files.iter().enumerate().filter(move |(_, f)| f.path.starts_with('/') != relative)
    }

    fn named(self, name: &str) -> String {
        match self.sidecar {
            None => name.into(),
            Some(place) => format!("{name}-{place}"),
        }
    }

    /// The key of an inline content in the sandbox's own Secret.
    fn key(self, index: usize) -> String {
        match self.sidecar {
            None => key(index),
            Some(place) => format!("sidecar-{place}-{}", key(index)),
        }
    }

    fn path(self, sandbox: &Sandbox) -> FieldPath {
        match self.sidecar {
            None => path_of(sandbox, "files"),
            Some(index) => path_of(sandbox, "sidecars").index(index).field("files"),
        }
    }
}

/// The Secret with the inline contents; none without such files. An error names the field.
pub fn secret(sandbox: &Sandbox, effective: &Effective) -> Result<Option<Secret>, FieldError> {
    let mut data = BTreeMap::new();
    for of in Files::of_all(effective) {
        for (i, file) in of.files.iter().enumerate() {
            if let Some(content) = inline(file).map_err(|e| of.path(sandbox).index(i).field("contentBase64").error(e))? {
                data.insert(of.key(i), ByteString(content));
            }
        }
    }
    let size: usize = data.values().map(|b| b.0.len()).sum();
    if size > limits::MAX_INLINE_FILE_BYTES {
        let of_main = effective.workload.container.files.is_some();
        let path = path_of(sandbox, if of_main { "files" } else { "sidecars" });
        return Err(path.error(format!(
            "inline content of all files has {size} bytes, more than {}; use a Secret or ConfigMap for the rest",
            limits::MAX_INLINE_FILE_BYTES
        )));
    }
    Ok((!data.is_empty()).then(|| Secret {
        metadata: names::child_meta(sandbox),
        data: Some(data),
        immutable: Some(true),
        ..Secret::default()
    }))
}

/// The pod's volumes with files.
pub fn volumes(sandbox: &Sandbox, effective: &Effective) -> Vec<Volume> {
    Files::of_all(effective).flat_map(|of| of.volumes(sandbox)).collect()
}

fn key(index: usize) -> String {
    format!("file-{index}")
}

fn inline(file: &File) -> Result<Option<Vec<u8>>, String> {
    match (&file.content, &file.content_base64) {
        (Some(text), _) => Ok(Some(text.clone().into_bytes())),
        (None, Some(text)) => {
            let dense: String = text.split_ascii_whitespace().collect();
            STANDARD.decode(dense).map(Some).map_err(|e| e.to_string())
        }
        (None, None) => Ok(None),
    }
}

impl Files<'_> {
    fn projection(self, sandbox: &Sandbox, index: usize, file: &File, path: String) -> VolumeProjection {
        let item = |from: &str| {
            Some(vec![KeyToPath {
                key: from.into(),
                path: path.clone(),
                mode: Some(file.mode.unwrap_or(DEFAULT_MODE)),
            }])
        };
        let of_secret = |r: &KeyRef| SecretProjection {
            name: r.name.clone(),
            items: item(&r.key),
            optional: None,
        };
        match (&file.secret_key_ref, &file.config_map_key_ref) {
            (Some(r), _) => VolumeProjection {
                secret: Some(of_secret(r)),
                ..VolumeProjection::default()
            },
            (None, Some(r)) => VolumeProjection {
                config_map: Some(ConfigMapProjection {
                    name: r.name.clone(),
                    items: item(&r.key),
                    optional: None,
                }),
                ..VolumeProjection::default()
            },
            (None, None) => {
                let own = KeyRef {
                    name: names::child(sandbox),
                    key: self.key(index),
                };
                VolumeProjection {
                    secret: Some(of_secret(&own)),
                    ..VolumeProjection::default()
                }
            }
        }
    }
}
