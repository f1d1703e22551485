//! Volumes and where they are mounted.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Code;

use super::facts::Facts;
use super::problems::Problems;
use super::text::{self, quoted};
use crate::api::{Claim, Medium, Mount, Scratch, Volume, Workload};
use crate::gateway::error::reason;
use crate::proto::sandbox as pb;

/// A registered volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Name of its claim.
    pub claim: String,
    /// Whether sandboxes may only read it.
    pub read_only: bool,
    /// The folder in the claim that is the volume; may be empty.
    pub sub_path: String,
}

/// Ids of registered volumes that a request names.
pub fn ids(volumes: &[pb::SandboxVolume]) -> BTreeSet<&str> {
    volumes
        .iter()
        .filter_map(|v| match &v.source {
            Some(pb::sandbox_volume::Source::VolumeId(id)) => Some(id.as_str()),
            _ => None,
        })
        .collect()
}

/// Volumes of a request; `claims`: registered volumes by their ids.
pub fn from_proto(volumes: Vec<pb::SandboxVolume>, claims: &BTreeMap<String, Registered>, facts: &mut Facts, problems: &mut Problems) -> Vec<Volume> {
    let (mut all, mut seen) = (vec![], BTreeSet::new());
    for (i, volume) in volumes.into_iter().enumerate() {
        let at = format!("sandbox.spec.volumes[{i}]");
        let pb::SandboxVolume { name, source } = volume;
        problems.check(format!("{at}.name"), text::dns_label(&name));
        if name.starts_with("sandbox-operator") {
            problems.wrong(format!("{at}.name"), "names that begin with sandbox-operator are reserved");
        }
        if !seen.insert(name.clone()) {
            problems.wrong(format!("{at}.name"), format!("{} is there twice", quoted(&name)));
        }
        let mut volume = Volume { name, ..Volume::default() };
        match source {
            None => problems.wrong(at, "needs scratch or volume_id"),
            Some(pb::sandbox_volume::Source::Scratch(source)) => volume.scratch = Some(scratch(&at, source, problems)),
            Some(pb::sandbox_volume::Source::VolumeId(id)) => match claims.get(&id) {
                None => {
                    let text = format!("there is no volume {}", quoted(&id));
                    problems.refuse(Code::NotFound, reason::VOLUME_NOT_FOUND, &format!("{at}.volume_id"), &text);
                }
                Some(registered) => {
                    volume.persistent_volume_claim = Some(Claim {
                        claim_name: registered.claim.clone(),
                    });
                    facts.volumes.insert(volume.name.clone(), id);
                }
            },
        }
        all.push(volume);
    }
    all
}

fn scratch(at: &str, scratch: pb::ScratchVolume, problems: &mut Problems) -> Scratch {
    let pb::ScratchVolume {
        size,
        medium,
        restore_from_snapshot_id,
    } = scratch;
    if !restore_from_snapshot_id.is_empty() {
        let field = format!("{at}.scratch.restore_from_snapshot_id");
        problems.refuse(
            Code::Unimplemented,
            reason::SNAPSHOT_NOT_SUPPORTED,
            &field,
            "file system snapshots are not supported",
        );
    }
    if !size.is_empty() {
        problems.check(format!("{at}.scratch.size"), text::not_quantity(&size));
    }
    let medium = match pb::StorageMedium::try_from(medium) {
        Ok(pb::StorageMedium::Unspecified) => None,
        Ok(pb::StorageMedium::Disk) => Some(Medium::Disk),
        Ok(pb::StorageMedium::Memory) => Some(Medium::Memory),
        Err(_) => {
            problems.wrong(format!("{at}.scratch.medium"), "is not known");
            None
        }
    };
    if medium == Some(Medium::Memory) && size.is_empty() {
        problems.wrong(format!("{at}.scratch.size"), "is required with memory");
    }
    Scratch {
        size: (!size.is_empty()).then_some(Quantity(size)),
        medium,
    }
}

/// Mounts of one container. `taken`: paths where something is already.
pub fn mounts(at: &str, mounts: Vec<pb::VolumeMount>, taken: &mut BTreeSet<String>, problems: &mut Problems) -> Vec<Mount> {
    let mut all = vec![];
    for (i, mount) in mounts.into_iter().enumerate() {
        let at = format!("{at}.volume_mounts[{i}]");
        let pb::VolumeMount {
            volume,
            mount_path,
            read_only,
            sub_path,
        } = mount;
        match text::normal_path(&mount_path) {
            Some(path) if !path.starts_with('/') || path == "/" => problems.wrong(format!("{at}.mount_path"), "must be absolute, and not /"),
            None => problems.wrong(format!("{at}.mount_path"), "must not have '..'"),
            Some(path) if text::is_ours(&path) || path.contains([':', '\0']) => {
                problems.wrong(format!("{at}.mount_path"), format!("{} cannot be mounted at", quoted(&path)));
            }
            Some(path) if !taken.insert(path.clone()) => {
                problems.wrong(format!("{at}.mount_path"), format!("{} is there twice", quoted(&path)));
            }
            Some(_) => {}
        }
        if sub_path.starts_with('/') || text::normal_path(&sub_path).is_none() {
            problems.wrong(format!("{at}.sub_path"), "must be relative and without '..'");
        }
        all.push(Mount {
            name: volume,
            mount_path,
            sub_path: (!sub_path.is_empty()).then_some(sub_path),
            read_only: read_only.then_some(true),
        });
    }
    all
}

/// Keeps the mounts of registered volumes within what was registered.
pub fn bound(w: &mut Workload, claims: &BTreeMap<String, Registered>, facts: &Facts) {
    let sidecars = w.pod.sidecars.iter_mut().flatten().flat_map(|s| s.container.mounts.iter_mut().flatten());
    for mount in w.container.mounts.iter_mut().flatten().chain(sidecars) {
        let Some(registered) = facts.volumes.get(&mount.name).and_then(|id| claims.get(id)) else {
            continue;
        };
        if registered.read_only {
            mount.read_only = Some(true);
        }
        let folders = [Some(registered.sub_path.clone()), mount.sub_path.take()];
        let folders: Vec<String> = folders.into_iter().flatten().filter(|f| !f.is_empty()).collect();
        mount.sub_path = (!folders.is_empty()).then(|| folders.join("/"));
    }
}

/// The reverse of [`from_proto`]. A claim that is not registered is told by its name.
pub fn to_proto(volumes: &[Volume], facts: &Facts) -> Vec<pb::SandboxVolume> {
    let source = |v: &Volume| match (&v.scratch, &v.persistent_volume_claim) {
        (_, Some(claim)) => {
            let id = facts.volumes.get(&v.name).unwrap_or(&claim.claim_name);
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

/// Mounts, as the SDK sees them.
pub fn mounts_to_proto<'a>(mounts: impl IntoIterator<Item = &'a Mount>) -> Vec<pb::VolumeMount> {
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
