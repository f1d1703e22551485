//! Volumes and where they are mounted.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Code;

use super::problems::Problems;
use super::request_metadata::RequestMetadata;
use super::text::{self, non_empty, quoted};
use crate::api::FieldPath;
use crate::api::{Claim, Medium, Mount, Scratch, Volume, Workload};
use crate::gateway::error::reason;
use crate::proto::sandbox as pb;

const MAX_VOLUMES: usize = 32;
const MAX_MOUNTS: usize = 32;
const MAX_PATH_BYTES: usize = 1024;

/// A PersistentVolumeClaim that is registered as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegisteredVolume {
    /// Name of the claim.
    pub(crate) claim: String,
    /// Whether sandboxes can only read it.
    pub(crate) read_only: bool,
    /// The directory in the claim that is the volume; may be empty.
    pub(crate) sub_path: String,
}

/// The ids of the registered volumes that a request names.
pub(crate) fn registered_ids(volumes: &[pb::SandboxVolume]) -> BTreeSet<&str> {
    volumes
        .iter()
        .filter_map(|v| match &v.source {
            Some(pb::sandbox_volume::Source::VolumeId(id)) => Some(id.as_str()),
            _ => None,
        })
        .collect()
}

/// Converts the volumes of a request. `registered`: the volumes that it names, by id.
pub(crate) fn from_proto(
    path: &FieldPath,
    volumes: Vec<pb::SandboxVolume>,
    registered: &BTreeMap<String, RegisteredVolume>,
    metadata: &mut RequestMetadata,
    problems: &mut Problems,
) -> Vec<Volume> {
    problems.at_most(path, volumes.len(), MAX_VOLUMES);
    let (mut converted, mut seen) = (vec![], BTreeSet::new());
    for (i, volume) in volumes.into_iter().enumerate() {
        let path = path.index(i);
        let pb::SandboxVolume { name, source } = volume;
        problems.check(&path.field("name"), text::dns_label_error(&name));
        if name.starts_with("sandbox-operator") {
            problems.invalid(
                &path.field("name"),
                "names that begin with sandbox-operator are reserved",
            );
        }
        if !seen.insert(name.clone()) {
            problems.invalid(&path.field("name"), format!("duplicate name {}", quoted(&name)));
        }
        let mut volume = Volume {
            name,
            ..Volume::default()
        };
        match source {
            None => problems.invalid(&path, "must have scratch or volume_id"),
            Some(pb::sandbox_volume::Source::Scratch(source)) => {
                volume.scratch = Some(scratch_from_proto(&path.field("scratch"), source, problems));
            }
            Some(pb::sandbox_volume::Source::VolumeId(id)) => match registered.get(&id) {
                None => {
                    let text = format!("there is no volume {}", quoted(&id));
                    problems.refuse(
                        Code::NotFound,
                        reason::VOLUME_NOT_FOUND,
                        &path.field("volume_id"),
                        &text,
                    );
                }
                Some(registered) => {
                    volume.persistent_volume_claim = Some(Claim {
                        claim_name: registered.claim.clone(),
                    });
                    metadata.volumes.insert(volume.name.clone(), id);
                }
            },
        }
        converted.push(volume);
    }
    converted
}

fn scratch_from_proto(path: &FieldPath, scratch: pb::ScratchVolume, problems: &mut Problems) -> Scratch {
    let pb::ScratchVolume {
        size,
        medium,
        restore_from_snapshot_id,
    } = scratch;
    if !restore_from_snapshot_id.is_empty() {
        problems.refuse(
            Code::Unimplemented,
            reason::SNAPSHOT_NOT_SUPPORTED,
            &path.field("restore_from_snapshot_id"),
            "file system snapshots are not supported",
        );
    }
    if !size.is_empty() {
        problems.check(&path.field("size"), text::size_error(&size));
    }
    let medium = match pb::StorageMedium::try_from(medium) {
        Ok(pb::StorageMedium::Unspecified) => None,
        Ok(pb::StorageMedium::Disk) => Some(Medium::Disk),
        Ok(pb::StorageMedium::Memory) => Some(Medium::Memory),
        Err(_) => {
            problems.invalid(&path.field("medium"), "must be a StorageMedium");
            None
        }
    };
    if medium == Some(Medium::Memory) && size.is_empty() {
        problems.invalid(&path.field("size"), "is required with STORAGE_MEDIUM_MEMORY");
    }
    Scratch {
        size: non_empty(size).map(Quantity),
        medium,
    }
}

/// Converts the mounts of one container. `declared`: the names of the sandbox's volumes. `taken`: paths that already
/// have a file or a volume.
pub(crate) fn mounts_from_proto(
    path: &FieldPath,
    mounts: Vec<pb::VolumeMount>,
    declared: &BTreeSet<&str>,
    taken: &mut BTreeSet<String>,
    problems: &mut Problems,
) -> Vec<Mount> {
    problems.at_most(path, mounts.len(), MAX_MOUNTS);
    let mut converted = vec![];
    for (i, mount) in mounts.into_iter().enumerate() {
        let path = path.index(i);
        let pb::VolumeMount {
            volume,
            mount_path,
            read_only,
            sub_path,
        } = mount;
        if !declared.contains(volume.as_str()) {
            let text = format!(
                "must be the name of a volume of the sandbox; there is no volume {}",
                quoted(&volume)
            );
            problems.invalid(&path.field("volume"), text);
        }
        problems.check(&path.field("mount_path"), mount_path_error(&mount_path, taken));
        if sub_path.starts_with('/')
            || text::normalized_path(&sub_path).is_none()
            || sub_path.len() > MAX_PATH_BYTES
            || sub_path.contains('\0')
        {
            let text = format!("must be relative, without '..' and NUL, and at most {MAX_PATH_BYTES} bytes");
            problems.invalid(&path.field("sub_path"), text);
        }
        converted.push(Mount {
            name: volume,
            mount_path,
            sub_path: non_empty(sub_path),
            read_only: read_only.then_some(true),
        });
    }
    converted
}

fn mount_path_error(mount_path: &str, taken: &mut BTreeSet<String>) -> Option<String> {
    let Some(path) = text::normalized_path(mount_path) else {
        return Some("must not contain '..'".into());
    };
    if !path.starts_with('/') || path == "/" {
        Some("must be an absolute path other than /".into())
    } else if text::is_reserved_path(&path) {
        Some(format!(
            "{} is in a directory of the platform; choose another path",
            quoted(&path)
        ))
    } else if path.contains([':', '\0']) || mount_path.len() > MAX_PATH_BYTES {
        Some(format!("must have at most {MAX_PATH_BYTES} bytes, without ':' and NUL"))
    } else if !taken.insert(path.clone()) {
        Some(format!("duplicate path {}", quoted(&path)))
    } else {
        None
    }
}

/// Limits of the mounts of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MountLimit {
    read_only: bool,
    /// The directory of the volume that is the root for the sandbox; empty for the whole volume.
    sub_path: String,
}

/// How a template mounts its volumes, by name. Containers of a request get no more access than that. If a template
/// mounts a volume several times, the first mount counts, those of the main container before those of sidecars.
pub(crate) fn template_limits(template: &Workload) -> BTreeMap<String, MountLimit> {
    let limit = |read_only: Option<bool>, sub_path: &Option<String>| MountLimit {
        read_only: read_only.unwrap_or_default(),
        sub_path: sub_path.clone().unwrap_or_default(),
    };
    let sidecars = template.pod.sidecars.iter().flatten();
    let sidecars = sidecars.flat_map(|s| s.container.mounts.iter().flatten());
    let mounts: Vec<&Mount> = template.container.mounts.iter().flatten().chain(sidecars).collect();
    let limits = template.pod.volumes.iter().flatten().map(|volume| {
        let mount = mounts.iter().find(|m| m.name == volume.name);
        let own = limit(volume.read_only, &volume.sub_path);
        match mount.filter(|_| volume.mount_path.is_none()) {
            Some(mount) => (volume.name.clone(), limit(mount.read_only, &mount.sub_path)),
            None => (volume.name.clone(), own),
        }
    });
    limits.collect()
}

/// Limits the mounts of registered volumes to the registered directory and access.
pub(crate) fn limit_registered_mounts(
    w: &mut Workload,
    registered: &BTreeMap<String, RegisteredVolume>,
    metadata: &RequestMetadata,
) {
    limit_mounts(w, |name| {
        let registered = registered.get(metadata.volumes.get(name)?)?;
        Some(MountLimit {
            read_only: registered.read_only,
            sub_path: registered.sub_path.clone(),
        })
    });
}

/// Limits the mounts of all containers. `limit` returns the limits by the name of the volume.
pub(crate) fn limit_mounts(w: &mut Workload, limit: impl Fn(&str) -> Option<MountLimit>) {
    let sidecars = w
        .pod
        .sidecars
        .iter_mut()
        .flatten()
        .flat_map(|s| s.container.mounts.iter_mut().flatten());
    for mount in w.container.mounts.iter_mut().flatten().chain(sidecars) {
        let Some(limit) = limit(&mount.name) else {
            continue;
        };
        if limit.read_only {
            mount.read_only = Some(true);
        }
        let directories = [Some(limit.sub_path), mount.sub_path.take()];
        let directories: Vec<String> = directories.into_iter().flatten().filter(|d| !d.is_empty()).collect();
        mount.sub_path = (!directories.is_empty()).then(|| directories.join("/"));
    }
}

/// The reverse of [`from_proto`]. The id of a claim that is not registered is its name.
pub(crate) fn to_proto(volumes: &[Volume], metadata: &RequestMetadata) -> Vec<pb::SandboxVolume> {
    let source = |v: &Volume| match (&v.scratch, &v.persistent_volume_claim) {
        (_, Some(claim)) => {
            let id = metadata.volumes.get(&v.name).unwrap_or(&claim.claim_name);
            Some(pb::sandbox_volume::Source::VolumeId(id.clone()))
        }
        (Some(scratch), None) => Some(pb::sandbox_volume::Source::Scratch(pb::ScratchVolume {
            size: scratch.size.as_ref().map(|q| q.0.clone()).unwrap_or_default(),
            medium: match scratch.medium {
                None => pb::StorageMedium::Unspecified,
                Some(Medium::Disk) => pb::StorageMedium::Disk,
                Some(Medium::Memory) => pb::StorageMedium::Memory,
            }
            .into(),
            restore_from_snapshot_id: String::new(),
        })),
        (None, None) => None,
    };
    volumes
        .iter()
        .map(|v| pb::SandboxVolume {
            name: v.name.clone(),
            source: source(v),
        })
        .collect()
}

/// The reverse of [`mounts_from_proto`].
pub(crate) fn mounts_to_proto<'a>(mounts: impl IntoIterator<Item = &'a Mount>) -> Vec<pb::VolumeMount> {
    mounts
        .into_iter()
        .map(|m| pb::VolumeMount {
            volume: m.name.clone(),
            mount_path: m.mount_path.clone(),
            read_only: m.read_only.unwrap_or_default(),
            sub_path: m.sub_path.clone().unwrap_or_default(),
        })
        .collect()
}
