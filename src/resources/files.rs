//! `spec.files`: inline content goes into a Secret of the sandbox's own; all files come into the main container as read-only mounts.
//! So they are there before the main command starts, in any image, with a read-only root as well, and under any entrypoint.

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
/// Permission bits of a file that names none: 0644.
const DEFAULT_MODE: i32 = 0o644;

/// The Secret with the inline contents; none without such files. An error names the field.
pub fn secret(sandbox: &Sandbox, effective: &Effective) -> Result<Option<Secret>, String> {
    let mut data = BTreeMap::new();
    for (i, file) in files(effective).iter().enumerate() {
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

/// The pod's volume; none without files.
pub fn volume(sandbox: &Sandbox, effective: &Effective) -> Option<Volume> {
    let sources: Vec<_> = files(effective)
        .iter()
        .enumerate()
        .map(|(i, file)| projection(sandbox, i, file))
        .collect();
    let projected = ProjectedVolumeSource {
        sources: Some(sources),
        ..ProjectedVolumeSource::default()
    };
    (!files(effective).is_empty()).then(|| Volume {
        name: VOLUME.into(),
        projected: Some(projected),
        ..Volume::default()
    })
}

/// One mount per file.
pub fn mounts(effective: &Effective) -> Vec<VolumeMount> {
    let mount = |(i, file): (usize, &File)| VolumeMount {
        name: VOLUME.into(),
        mount_path: file.path.clone(),
        sub_path: Some(key(i)),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    files(effective).iter().enumerate().map(mount).collect()
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

fn projection(sandbox: &Sandbox, index: usize, file: &File) -> VolumeProjection {
    let item = |from: &str| {
        Some(vec![KeyToPath {
            key: from.into(),
            path: key(index),
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
