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

use super::{Effective, names};
use crate::api::{File, KeyRef, Sandbox, limits};

/// Name of the pod's volume that holds the files.
pub const VOLUME: &str = "sandbox-operator-files";
/// Name of the pod's volume that holds the files with relative paths, each at its path.
const PLACED_VOLUME: &str = "sandbox-operator-placed-files";
/// Where the agent finds them.
pub(super) const PLACED_DIRECTORY: &str = "/.sandbox-operator-files";
/// Permission bits of a file that names none: 0644.
const DEFAULT_MODE: i32 = 0o644;

/// The Secret with the inline contents; none without such files. An error names the field.
pub fn secret(sandbox: &Sandbox, effective: &Effective) -> Result<Option<Secret>, String> {
    let mut data = BTreeMap::new();
    for (i, file) in numbered(effective) {
        if let Some(content) = inline(file).map_err(|e| format!("spec.files[{i}].contentBase64: {e}"))? {
            data.insert(key(i), ByteString(content));
        }
    }
    let size: usize = data.values().map(|b| b.0.len()).sum();
    if size > limits::MAX_INLINE_FILE_BYTES {
        return Err(format!(
            "spec.files: inline content is {size} bytes, more than {}; use a Secret or ConfigMap for the rest",
            limits::MAX_INLINE_FILE_BYTES
        ));
    }
    Ok((!data.is_empty()).then(|| Secret {
        metadata: names::child_meta(sandbox),
        data: Some(data),
        immutable: Some(true),
        ..Secret::default()
    }))
}

/// The pod's volumes: one for each way in which files come.
pub fn volumes(sandbox: &Sandbox, effective: &Effective) -> Vec<Volume> {
    let of = |name: &str, relative: bool| {
        let sources = numbered(effective).filter(|(_, f)| is_relative(f) == relative);
        let sources: Vec<_> = sources
            .map(|(i, file)| projection(sandbox, i, file, if relative { file.path.clone() } else { key(i) }))
            .collect();
        (!sources.is_empty()).then(|| Volume {
            name: name.into(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(sources),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        })
    };
    [of(VOLUME, false), of(PLACED_VOLUME, true)].into_iter().flatten().collect()
}

/// One mount per file with an absolute path, and one for all the others.
pub fn mounts(effective: &Effective) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, key: Option<String>| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        sub_path: key,
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let absolute = numbered(effective).filter(|(_, f)| !is_relative(f));
    let placed = places(effective).then(|| mount(PLACED_VOLUME, PLACED_DIRECTORY, None));
    absolute.map(|(i, file)| mount(VOLUME, &file.path, Some(key(i)))).chain(placed).collect()
}

/// Whether the agent has files to copy.
pub fn places(effective: &Effective) -> bool {
    files(effective).iter().any(is_relative)
}

fn is_relative(file: &File) -> bool {
    !file.path.starts_with('/')
}

fn numbered(effective: &Effective) -> impl Iterator<Item = (usize, &File)> {
    files(effective).iter().enumerate()
}

fn files(effective: &Effective) -> &[File] {
    effective.workload.files.as_deref().unwrap_or_default()
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

fn projection(sandbox: &Sandbox, index: usize, file: &File, path: String) -> VolumeProjection {
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
                key: key(index),
            };
            VolumeProjection {
                secret: Some(of_secret(&own)),
                ..VolumeProjection::default()
            }
        }
    }
}
