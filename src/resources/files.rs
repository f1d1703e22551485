//! `spec.files`: inline content is stored in a ConfigMap of the sandbox. The content is in the Sandbox anyway, and the
//! operator needs no right to read Secrets. A file with an absolute path comes into the main container as a read-only
//! mount: it exists before the main command starts, in any image, with a read-only root as well, and under any
//! entrypoint. Where a relative path begins only the image knows: the agent copies such files to its working directory
//! before the main command starts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, EmptyDirVolumeSource, KeyToPath, ProjectedVolumeSource, SecretProjection, Volume,
    VolumeMount, VolumeProjection,
};
use std::collections::BTreeMap;

use super::effective::path_of;
use super::{Effective, names};
use crate::agent_contract::FILES_DIRECTORY;
use crate::api::{Container, FieldError, FieldPath, File, KeyRef, Sandbox, Sidecar, limits};

/// Name of the pod's volume that holds the main container's files.
pub(crate) const VOLUME: &str = "sandbox-operator-files";
/// Name of the pod's volume with the contents of files that are copied for the container's user.
const SOURCES_VOLUME: &str = "sandbox-operator-file-sources";
/// Name of the pod's volume that holds those with relative paths, each at its path.
const PLACED_VOLUME: &str = "sandbox-operator-placed-files";
/// Where a copied file is in its volume.
const ABSOLUTE: &str = "absolute";
const RELATIVE: &str = "relative";
/// Permission bits of contents that are copied.
const READABLE: i32 = 0o444;
/// Permission bits of a file that names none: 0644.
const DEFAULT_MODE: i32 = 0o644;

/// The files of one container.
#[derive(Clone, Copy)]
pub struct Files<'a> {
    files: &'a [File],
    /// The place of its sidecar; none for the main container.
    sidecar: Option<usize>,
    /// The user that the container runs as; none for the image's own.
    user: Option<i64>,
}

impl<'a> Files<'a> {
    /// The main container's.
    pub(crate) fn of_main(effective: &'a Effective) -> Files<'a> {
        Files {
            files: effective.workload.container.files.as_deref().unwrap_or_default(),
            sidecar: None,
            user: effective.workload.container.run_as_user,
        }
    }

    /// A sidecar's. `main`: the main container's fields, which have the default for its user.
    pub(crate) fn of_sidecar(place: usize, sidecar: &'a Sidecar, main: &Container) -> Files<'a> {
        Files {
            files: sidecar.container.files.as_deref().unwrap_or_default(),
            sidecar: Some(place),
            user: sidecar.container.run_as_user.or(main.run_as_user),
        }
    }

    /// Whether the files have to be copied for the container's user: a volume gives them to root.
    pub(super) fn need_copies(self) -> bool {
        self.files.iter().any(|file| match self.user {
            Some(0) => false,
            Some(_) => is_absolute(file) || !is_open(file),
            None => !is_open(file),
        })
    }

    fn of_all(effective: &'a Effective) -> impl Iterator<Item = Files<'a>> {
        let sidecars = effective.workload.pod.sidecars.iter().flatten().enumerate();
        std::iter::once(Files::of_main(effective))
            .chain(sidecars.map(|(place, sidecar)| Files::of_sidecar(place, sidecar, &effective.workload.container)))
    }

    /// One mount per file with an absolute path, and one for all the others.
    pub(crate) fn mounts(self) -> Vec<VolumeMount> {
        let copied = self.need_copies();
        let absolute = self.numbered(false).map(|(i, file)| {
            let sub_path = if copied {
                format!("{ABSOLUTE}/{}", key(i))
            } else {
                key(i)
            };
            self.mount(VOLUME, &file.path, Some(sub_path))
        });
        let (volume, sub_path) = if copied {
            (VOLUME, Some(RELATIVE.into()))
        } else {
            (PLACED_VOLUME, None)
        };
        let placed = self
            .have_relative_paths()
            .then(|| self.mount(volume, FILES_DIRECTORY, sub_path));
        absolute.chain(placed).collect()
    }

    /// The mounts of the init container that copies the files.
    pub(super) fn preparation_mounts(self, from: &str, to: &str) -> [VolumeMount; 2] {
        let to = VolumeMount {
            read_only: None,
            ..self.mount(VOLUME, to, None)
        };
        [self.mount(SOURCES_VOLUME, from, None), to]
    }

    /// The name of the init container that prepares the container.
    pub(super) fn preparation_name(self) -> String {
        self.named(VOLUME)
    }

    fn mount(self, volume: &str, path: &str, sub_path: Option<String>) -> VolumeMount {
        VolumeMount {
            name: self.named(volume),
            mount_path: path.into(),
            sub_path,
            read_only: Some(true),
            ..VolumeMount::default()
        }
    }

    /// Whether there are some that the agent has to copy.
    pub(crate) fn have_relative_paths(self) -> bool {
        self.numbered(true).next().is_some()
    }

    /// One volume for each way in which they come.
    fn volumes(self, sandbox: &Sandbox) -> Vec<Volume> {
        if self.need_copies() {
            return self.copied_volumes(sandbox);
        }
        let of = |name: &str, relative: bool| {
            let sources = self.numbered(relative);
            let sources: Vec<_> = sources
                .map(|(i, file)| {
                    let path = if relative { file.path.clone() } else { key(i) };
                    self.projection(sandbox, i, file, path, mode(file))
                })
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
        [of(VOLUME, false), of(PLACED_VOLUME, true)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The contents, which every user may read, each below a directory that names its mode; and memory for the copies.
    /// Only the init container that copies them mounts the contents.
    fn copied_volumes(self, sandbox: &Sandbox) -> Vec<Volume> {
        let sources = self.files.iter().enumerate().map(|(i, file)| {
            let name = if is_absolute(file) {
                format!("{ABSOLUTE}/{}", key(i))
            } else {
                format!("{RELATIVE}/{}", file.path)
            };
            self.projection(sandbox, i, file, format!("{:04o}/{name}", mode(file)), READABLE)
        });
        let sources = Volume {
            name: self.named(SOURCES_VOLUME),
            projected: Some(ProjectedVolumeSource {
                sources: Some(sources.collect()),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        };
        let copies = Volume {
            name: self.named(VOLUME),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: None,
            }),
            ..Volume::default()
        };
        vec![sources, copies]
    }

    fn numbered(self, relative: bool) -> impl Iterator<Item = (usize, &'a File)> {
        self.files
            .iter()
            .enumerate()
            .filter(move |(_, f)| is_absolute(f) != relative)
    }

    fn named(self, name: &str) -> String {
        match self.sidecar {
            None => name.into(),
            Some(place) => format!("{name}-{place}"),
        }
    }

    /// The key of an inline content in the sandbox's own ConfigMap.
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

/// The ConfigMap with the inline contents; none without such files. An error names the field.
pub(crate) fn config_map(sandbox: &Sandbox, effective: &Effective) -> Result<Option<ConfigMap>, FieldError> {
    let mut data = BTreeMap::new();
    for of in Files::of_all(effective) {
        for (i, file) in of.files.iter().enumerate() {
            if let Some(content) =
                inline(file).map_err(|e| of.path(sandbox).index(i).field("contentBase64").error(e))?
            {
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
    Ok((!data.is_empty()).then(|| ConfigMap {
        metadata: names::child_meta(sandbox),
        binary_data: Some(data),
        immutable: Some(true),
        ..ConfigMap::default()
    }))
}

/// The pod's volumes with files.
pub(crate) fn volumes(sandbox: &Sandbox, effective: &Effective) -> Vec<Volume> {
    Files::of_all(effective).flat_map(|of| of.volumes(sandbox)).collect()
}

fn is_absolute(file: &File) -> bool {
    file.path.starts_with('/')
}

fn mode(file: &File) -> i32 {
    file.mode.unwrap_or(DEFAULT_MODE)
}

/// Whether any user can do with the file what its owner can: read and execute it, since it is mounted read-only. The
/// agent has to read those with relative paths in any case.
fn is_open(file: &File) -> bool {
    let (owner, others) = (mode(file) >> 6 & 0o5, mode(file) & 0o5);
    owner & !others == 0 && (is_absolute(file) || others & 0o4 != 0)
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
    fn projection(self, sandbox: &Sandbox, index: usize, file: &File, path: String, mode: i32) -> VolumeProjection {
        let item = |from: &str| {
            Some(vec![KeyToPath {
                key: from.into(),
                path: path.clone(),
                mode: Some(mode),
            }])
        };
        let of_config_map = |r: &KeyRef| VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: r.name.clone(),
                items: item(&r.key),
                optional: None,
            }),
            ..VolumeProjection::default()
        };
        match (&file.secret_key_ref, &file.config_map_key_ref) {
            (Some(r), _) => VolumeProjection {
                secret: Some(SecretProjection {
                    name: r.name.clone(),
                    items: item(&r.key),
                    optional: None,
                }),
                ..VolumeProjection::default()
            },
            (None, Some(r)) => of_config_map(r),
            (None, None) => of_config_map(&KeyRef {
                name: names::child(sandbox),
                key: self.key(index),
            }),
        }
    }
}
