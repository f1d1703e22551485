//! The init container that prepares the files of a container whose user is not root. The kubelet gives every file of a
//! Secret or ConfigMap to root, and the runtime creates missing parents of mount points as root. So the agent's binary
//! runs first, in the container's own image and as its user: it copies the files into memory, with the mode that each
//! names, and creates the parents inside scratch volumes.

use k8s_openapi::api::core::v1::{Container, SecurityContext, VolumeMount};
use std::collections::{BTreeMap, BTreeSet};

use super::Effective;
use super::files::{self, Files};
use super::pod_containers::agent_mount;
use crate::agent_contract::{AgentCommand, BINARY, FILES_DIRECTORY, PrepareArgs};

/// Where the init container writes the files.
const OUTPUT_DIRECTORY: &str = "/.sandbox-operator-output";
/// Where it has the scratch volumes, each below its position.
const SCRATCH_DIRECTORY: &str = "/.sandbox-operator-scratch";

/// The init containers that prepare the main container and the sidecars, given as they are in the pod.
pub(super) fn init_containers(effective: &Effective, main: &Container, sidecars: &[Container]) -> Vec<Container> {
    let workload = &effective.workload;
    let volumes = workload.pod.volumes.iter().flatten();
    let scratch: BTreeSet<&str> = volumes
        .filter(|v| v.persistent_volume_claim.is_none())
        .map(|v| v.name.as_str())
        .collect();
    let own = workload.pod.sidecars.iter().flatten().enumerate();
    let sidecars = own
        .zip(sidecars)
        .map(|((i, own), built)| (built, Files::of_sidecar(i, own, &workload.container)));
    std::iter::once((main, Files::of_main(effective)))
        .chain(sidecars)
        .filter_map(|(of, files)| init_container(of, files, &scratch))
        .collect()
}

/// The init container for `of`, the complete container; none where nothing has to be prepared. `scratch`: names of the
/// scratch volumes.
fn init_container(of: &Container, files: Files, scratch: &BTreeSet<&str>) -> Option<Container> {
    let copies = files.need_copies();
    let user = of.security_context.as_ref().and_then(|s| s.run_as_user);
    let directories = parents_in_scratch(of.volume_mounts.as_deref().unwrap_or_default(), scratch);
    if !copies && (directories.is_empty() || matches!(user, None | Some(0))) {
        return None;
    }
    let mut mounts = vec![agent_mount()];
    let mut args = PrepareArgs::default();
    if copies {
        mounts.extend(files.preparation_mounts(FILES_DIRECTORY, OUTPUT_DIRECTORY));
        args.from = Some(FILES_DIRECTORY.into());
        args.to = Some(OUTPUT_DIRECTORY.into());
    }
    for (index, ((name, sub_path), below)) in directories.into_iter().enumerate() {
        let path = format!("{SCRATCH_DIRECTORY}/{index}");
        args.directories
            .extend(below.iter().map(|directory| format!("{path}/{directory}")));
        mounts.push(VolumeMount {
            name: name.into(),
            mount_path: path,
            sub_path: sub_path.map(Into::into),
            ..VolumeMount::default()
        });
    }
    Some(Container {
        name: files.preparation_name(),
        image: of.image.clone(),
        image_pull_policy: of.image_pull_policy.clone(),
        command: Some(AgentCommand::Prepare(args).argv(BINARY)),
        // Those of the container that it runs before: the pod needs no more because of it.
        resources: of.resources.clone(),
        security_context: Some(SecurityContext {
            read_only_root_filesystem: Some(true),
            ..of.security_context.clone().unwrap_or_default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    })
}

/// Whether an init container of this name prepares a container.
pub fn is_preparation(container: &str) -> bool {
    container.starts_with(files::VOLUME)
}

/// A volume and the part of it that is mounted.
type Part<'a> = (&'a str, Option<&'a str>);

/// Directories inside scratch volumes that would be created for the mount points below them.
fn parents_in_scratch<'a>(
    mounts: &'a [VolumeMount],
    scratch: &BTreeSet<&str>,
) -> BTreeMap<Part<'a>, BTreeSet<&'a str>> {
    let mut found: BTreeMap<Part, BTreeSet<&str>> = BTreeMap::new();
    for mount in mounts {
        let outer = mounts
            .iter()
            .filter_map(|m| Some((m, below(&mount.mount_path, &m.mount_path)?)));
        let Some((outer, relative)) = outer.min_by_key(|(_, relative)| relative.len()) else {
            continue;
        };
        if let Some((parent, _)) = relative.rsplit_once('/')
            && scratch.contains(outer.name.as_str())
            && outer.read_only != Some(true)
        {
            let part = (outer.name.as_str(), outer.sub_path.as_deref());
            found.entry(part).or_default().insert(parent);
        }
    }
    found
}

/// The rest of `path` below `directory`; none if it is not below it.
fn below<'a>(path: &'a str, directory: &str) -> Option<&'a str> {
    path.strip_prefix(directory.trim_end_matches('/'))?
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::Sandbox;
    use crate::resources::pod;
    use crate::resources::{AgentDelivery, AgentInjection, AgentKey, Settings};
    use serde_json::{Value, json};

    fn mount(name: &str, path: &str) -> VolumeMount {
        VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            ..VolumeMount::default()
        }
    }

    #[test]
    fn parents_of_mount_points_are_found_in_the_innermost_scratch_volume() {
        let mounts = [
            mount("work", "/work"),
            mount("files", "/work/direct"),
            mount("files", "/work/a/b/file"),
            mount("data", "/work/a/data"),
            mount("files", "/work/a/data/c/file"),
            mount("claim", "/claim"),
            mount("files", "/claim/a/file"),
            mount("files", "/workshop/a/file"),
            VolumeMount {
                read_only: Some(true),
                ..mount("work", "/read-only")
            },
            mount("files", "/read-only/a/file"),
            VolumeMount {
                sub_path: Some("part".into()),
                ..mount("work", "/part")
            },
            mount("files", "/part/d/file"),
        ];
        let scratch = BTreeSet::from(["work", "data"]);
        let expected = [
            (("data", None), BTreeSet::from(["c"])),
            (("work", None), BTreeSet::from(["a", "a/b"])),
            (("work", Some("part")), BTreeSet::from(["d"])),
        ];
        assert_eq!(parents_in_scratch(&mounts, &scratch), BTreeMap::from(expected));
    }

    fn pod(spec: Value) -> Value {
        let object = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": spec,
            "metadata": {"name": "a", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"}});
        let sandbox: Sandbox = serde_json::from_value(object).unwrap();
        let settings = Settings::default();
        let agent = AgentInjection {
            delivery: AgentDelivery::ImageVolume,
            key: AgentKey::default(),
        };
        let effective = Effective::new(&sandbox, None, &settings);
        serde_json::to_value(pod::build(&sandbox, &effective, &settings, &agent).unwrap()).unwrap()["spec"].clone()
    }

    #[test]
    fn files_are_copied_only_where_a_volume_does_not_give_them_to_the_user() {
        let file = |path: &str, mode: i32| json!({"path": path, "content": "x", "mode": mode});
        for (user, file, copied) in [
            (None, file("/a", 0o644), false),
            (None, file("/a", 0o755), false),
            (None, file("/a", 0o400), true),
            (None, file("/a", 0o750), true),
            (None, file("a", 0o644), false),
            (None, file("a", 0o600), true),
            (None, file("a", 0), true),
            (Some(0), file("/a", 0o400), false),
            (Some(0), file("a", 0o400), false),
            (Some(1000), file("/a", 0o644), true),
            (Some(1000), file("/a", 0o400), true),
            (Some(1000), file("a", 0o644), false),
            (Some(1000), file("a", 0o400), true),
        ] {
            for sidecar in [false, true] {
                let text = format!("{user:?} {file} sidecar: {sidecar}");
                let files = json!([file]);
                let spec = if sidecar {
                    json!({"runAsUser": user, "sidecars": [{"name": "s", "image": "i", "command": ["c"], "files": files}]})
                } else {
                    json!({"runAsUser": user, "files": files})
                };
                let spec = pod(spec);
                let init: Vec<_> = spec["initContainers"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|c| c["name"].as_str().unwrap())
                    .collect();
                let expected = match (sidecar, copied) {
                    (false, false) => vec![],
                    (false, true) => vec!["sandbox-operator-files"],
                    (true, false) => vec!["s"],
                    (true, true) => vec!["sandbox-operator-files-0", "s"],
                };
                assert_eq!(init, expected, "{text}");
            }
        }
    }

    #[test]
    fn the_init_container_is_like_the_container_that_it_prepares() {
        let spec = pod(json!({
            "containerImage": "image", "imagePullPolicy": "Always", "securityProfile": "Restricted", "runAsUser": 1000, "runAsGroup": 100,
            "command": ["c"], "resources": {"limits": {"memory": "1Gi"}},
            "volumes": [{"name": "work", "mountPath": "/work", "subPath": "part", "scratch": {}}],
            "files": [{"path": "/work/a/key", "content": "x", "mode": 256}, {"path": "bin/run", "content": "x", "mode": 493}],
        }));
        let (init, main) = (&spec["initContainers"][0], &spec["containers"][0]);
        for field in ["image", "imagePullPolicy", "resources"] {
            assert_eq!(init[field], main[field], "{field}");
        }
        let mut security = main["securityContext"].clone();
        security["readOnlyRootFilesystem"] = true.into();
        assert_eq!(init["securityContext"], security);
        let command = [
            "/.sandbox-operator/sandbox-operator",
            "agent",
            "prepare",
            "--from",
            "/.sandbox-operator-files",
            "--to",
            "/.sandbox-operator-output",
            "--directory",
            "/.sandbox-operator-scratch/0/a",
        ];
        assert_eq!(init["command"], json!(command));
        assert_eq!(
            init["volumeMounts"],
            json!([
                {"name": "sandbox-operator-agent", "mountPath": "/.sandbox-operator", "readOnly": true},
                {"name": "sandbox-operator-file-sources", "mountPath": "/.sandbox-operator-files", "readOnly": true},
                {"name": "sandbox-operator-files", "mountPath": "/.sandbox-operator-output"},
                {"name": "work", "mountPath": "/.sandbox-operator-scratch/0", "subPath": "part"},
            ])
        );
        let mounts = main["volumeMounts"].as_array().unwrap();
        let of_files: Vec<_> = mounts
            .iter()
            .filter(|m| m["name"] == "sandbox-operator-files")
            .collect();
        assert_eq!(
            json!(of_files),
            json!([
                {"name": "sandbox-operator-files", "mountPath": "/work/a/key", "subPath": "absolute/file-0", "readOnly": true},
                {"name": "sandbox-operator-files", "mountPath": "/.sandbox-operator-files", "subPath": "relative", "readOnly": true},
            ])
        );
        assert!(
            mounts.iter().all(|m| m["name"] != "sandbox-operator-file-sources"),
            "the contents are not shown to the main container"
        );
        let volumes = spec["volumes"].as_array().unwrap();
        let sources = volumes
            .iter()
            .find(|v| v["name"] == "sandbox-operator-file-sources")
            .unwrap();
        let items: Vec<_> = sources["projected"]["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| &s["configMap"]["items"][0])
            .collect();
        assert_eq!(
            json!(items),
            json!([
                {"key": "file-0", "path": "0400/absolute/file-0", "mode": 0o444},
                {"key": "file-1", "path": "0755/relative/bin/run", "mode": 0o444},
            ])
        );
    }

    #[test]
    fn without_files_only_a_user_needs_parents_in_scratch_volumes() {
        for (user, needed) in [(None, false), (Some(0), false), (Some(1000), true)] {
            let spec = pod(json!({"runAsUser": user, "volumes": [
                {"name": "outer", "mountPath": "/work", "scratch": {}}, {"name": "inner", "mountPath": "/work/a/b", "scratch": {}},
            ]}));
            assert_eq!(spec["initContainers"].is_array(), needed, "{user:?}");
        }
    }
}
