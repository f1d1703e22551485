//! The containers of a sandbox's pod.

use k8s_openapi::api::core::v1::{
    self as v1, Capabilities, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceRequirements,
    SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use std::collections::BTreeMap;

use super::files::Files;
use super::{AgentKey, Effective, Settings};
use crate::agent_contract::{
    AgentCommand, BINARY, DIRECTORY, FILES_DIRECTORY, IMAGE_BINARY, POD_UID_VARIABLE, RunArgs,
};
use crate::api::{Container, Sandbox, SecurityProfile, Sidecar};

/// Name of the main container, whose exit decides the outcome.
pub(crate) const MAIN: &str = "main";
/// Name of the init container that copies the agent.
pub(crate) const INSTALL_AGENT: &str = "sandbox-operator-agent";
pub(super) const AGENT_VOLUME: &str = "sandbox-operator-agent";
pub(super) const SHM_VOLUME: &str = "sandbox-operator-shm";
const SHM: &str = "/dev/shm";
/// The environment variable with the sandbox's name; the hosted service sets the same.
const SANDBOX_ID: &str = "CW_SANDBOX_ID";
/// The capabilities that package managers and `su` need; Pod Security's `baseline` allows all of them.
pub(crate) const BASELINE_CAPABILITIES: [&str; 8] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// `agent`: the public key of those who may call the agent; none where the image's own entrypoint runs in the agent's
/// place.
pub(super) fn main(
    sandbox: &Sandbox,
    effective: &Effective,
    settings: &Settings,
    agent: Option<&AgentKey>,
) -> v1::Container {
    let w = &effective.workload;
    let ports = w.ports.iter().flatten().map(|p| ContainerPort {
        name: Some(p.name.clone()),
        container_port: p.port,
        protocol: Some(p.protocol.unwrap_or_default().as_str().into()),
        ..ContainerPort::default()
    });
    let ports: Vec<_> = ports.collect();
    let own_mounts = w.pod.volumes.iter().flatten().filter_map(|v| {
        let path = v.mount_path.as_deref()?;
        Some(mount(&v.name, path, v.sub_path.as_ref(), v.read_only))
    });
    let base = v1::Container {
        name: MAIN.into(),
        image: Some(effective.image.clone()),
        image_pull_policy: w.pod.image_pull_policy.map(|p| p.as_str().into()),
        command: agent.map(|key| agent_command(effective, settings, key)),
        env: agent.map(|_| vec![pod_uid()]),
        ports: (!ports.is_empty()).then_some(ports),
        volume_mounts: Some(own_mounts.collect()),
        ..v1::Container::default()
    };
    container(
        base,
        &w.container,
        &w.container,
        Files::of_main(effective),
        sandbox,
        settings,
    )
}

/// `index`: its position among the sidecars.
pub(super) fn sidecar(
    index: usize,
    sidecar: &Sidecar,
    sandbox: &Sandbox,
    effective: &Effective,
    settings: &Settings,
) -> v1::Container {
    let w = &effective.workload;
    let files = Files::of_sidecar(index, sidecar, &w.container);
    let base = v1::Container {
        name: sidecar.name.clone(),
        image: Some(sidecar.image.clone()),
        image_pull_policy: w.pod.image_pull_policy.map(|p| p.as_str().into()),
        command: match &sidecar.container.command {
            // The agent copies the files and runs the command; it serves no calls here.
            Some(command) if files.have_relative_paths() => Some(run_agent(RunArgs {
                files: Some(FILES_DIRECTORY.into()),
                command: command.clone(),
                ..RunArgs::default()
            })),
            command => command.clone(),
        },
        // Makes an init container a native sidecar: it runs beside the main one and does not keep the pod from ending.
        restart_policy: Some("Always".into()),
        ..v1::Container::default()
    };
    container(base, &sidecar.container, &w.container, files, sandbox, settings)
}

/// Adds to `base` what every container gets from its fields. Destructures without `..`, so that a new field cannot be
/// forgotten. `main`: the main container's fields, which are a sidecar's defaults for its user and profile.
fn container(
    base: v1::Container,
    own: &Container,
    main: &Container,
    files: Files,
    sandbox: &Sandbox,
    settings: &Settings,
) -> v1::Container {
    let Container {
        command: _, // In `base`, since the agent may start it.
        args,
        working_dir,
        env: own_env,
        env_from,
        resources: own_resources,
        security_profile,
        run_as_user,
        run_as_group,
        read_only_root_filesystem,
        files: _,
        mounts,
    } = own;
    let mounts = mounts.iter().flatten();
    let mounts = mounts.map(|m| mount(&m.name, &m.mount_path, m.sub_path.as_ref(), m.read_only));
    let mounts = base
        .volume_mounts
        .into_iter()
        .flatten()
        .chain(mounts)
        .chain(files.mounts());
    v1::Container {
        args: args.clone(),
        working_dir: working_dir.clone(),
        env: Some(
            base.env
                .into_iter()
                .flatten()
                .chain(env(sandbox, own_env.as_deref()))
                .collect(),
        ),
        env_from: env_from.clone(),
        resources: Some(resources(own_resources.as_ref(), settings)),
        security_context: Some(security_context(
            security_profile.or(main.security_profile),
            run_as_user.or(main.run_as_user),
            run_as_group.or(main.run_as_group),
            *read_only_root_filesystem,
        )),
        volume_mounts: Some(with_ours(mounts.collect())),
        ..base
    }
}

pub(super) fn install_agent(settings: &Settings, effective: &Effective) -> v1::Container {
    let main = &effective.workload.container;
    let directory = "/install";
    let install = AgentCommand::Install {
        directory: directory.into(),
    };
    v1::Container {
        name: INSTALL_AGENT.into(),
        image: Some(settings.agent.image.clone()),
        image_pull_policy: Some(settings.agent.image_pull_policy.clone()),
        command: Some(install.argv(IMAGE_BINARY)),
        resources: Some(small()),
        security_context: Some(security_context(
            main.security_profile,
            main.run_as_user,
            main.run_as_group,
            Some(true),
        )),
        volume_mounts: Some(vec![mount(AGENT_VOLUME, directory, None, None)]),
        ..v1::Container::default()
    }
}

fn agent_command(effective: &Effective, settings: &Settings, key: &AgentKey) -> Vec<String> {
    // Without a user namespace the kernel counts processes by uid across the whole node: one sandbox could starve
    // another.
    let own_user_namespace = !effective
        .workload
        .pod
        .host_users
        .unwrap_or(settings.defaults.host_users);
    run_agent(RunArgs {
        port: Some(settings.agent.port),
        keys: vec![key.public_key.clone()],
        // In the environment.
        pod_uid: None,
        files: Files::of_main(effective)
            .have_relative_paths()
            .then(|| FILES_DIRECTORY.into()),
        max_processes: own_user_namespace.then_some(settings.agent.max_processes),
        command: effective.workload.container.command.clone().unwrap_or_default(),
    })
}

fn run_agent(args: RunArgs) -> Vec<String> {
    AgentCommand::Run(args).argv(BINARY)
}

fn env(sandbox: &Sandbox, own: Option<&[EnvVar]>) -> Vec<EnvVar> {
    let id = EnvVar {
        name: SANDBOX_ID.into(),
        value: Some(sandbox.name_any()),
        value_from: None,
    };
    std::iter::once(id)
        .chain(
            own.into_iter()
                .flatten()
                .filter(|e| e.name != SANDBOX_ID && e.name != POD_UID_VARIABLE)
                .cloned(),
        )
        .collect()
}

/// The agent answers calls for its own pod only.
fn pod_uid() -> EnvVar {
    EnvVar {
        name: POD_UID_VARIABLE.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.uid".into(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// With the agent's folder, and shared memory of a bounded size unless the container has something of its own there.
fn with_ours(own: Vec<VolumeMount>) -> Vec<VolumeMount> {
    // Also where it is not PID 1: commands and files in such a container go through a program of ours that is started
    // there.
    let has_shm = own.iter().any(|m| m.mount_path.trim_end_matches('/') == SHM);
    let shm = (!has_shm).then(|| mount(SHM_VOLUME, SHM, None, None));
    std::iter::once(agent_mount()).chain(shm).chain(own).collect()
}

/// The agent's directory.
pub(super) fn agent_mount() -> VolumeMount {
    mount(AGENT_VOLUME, DIRECTORY, None, Some(true))
}

fn mount(name: &str, path: &str, sub_path: Option<&String>, read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        sub_path: sub_path.cloned(),
        read_only,
        ..VolumeMount::default()
    }
}

fn security_context(
    profile: Option<SecurityProfile>,
    user: Option<i64>,
    group: Option<i64>,
    read_only_root: Option<bool>,
) -> SecurityContext {
    let add = match profile.unwrap_or_default() {
        SecurityProfile::Baseline => Some(BASELINE_CAPABILITIES.map(String::from).to_vec()),
        SecurityProfile::Restricted => None,
    };
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            add,
            drop: Some(vec!["ALL".into()]),
        }),
        read_only_root_filesystem: read_only_root,
        run_as_user: user,
        run_as_group: group,
        // Known if a uid is set; never guessed for the image's own user.
        run_as_non_root: user.filter(|uid| *uid != 0).map(|_| true),
        ..SecurityContext::default()
    }
}

/// Requests *and* limits, since quotas refuse pods without. What the user gives one of is given the other: a lone limit
/// is also the request (as Kubernetes has it), a lone request is also the limit. What the user does not name gets the
/// defaults.
pub(super) fn resources(own: Option<&ResourceRequirements>, settings: &Settings) -> ResourceRequirements {
    let own = own.cloned().unwrap_or_default();
    let (mut requests, mut limits) = (own.requests.unwrap_or_default(), own.limits.unwrap_or_default());
    for name in ["cpu", "memory", "ephemeral-storage"] {
        match (requests.get(name).cloned(), limits.get(name).cloned()) {
            (Some(_), Some(_)) => {}
            (Some(request), None) => drop(limits.insert(name.into(), request)),
            (None, Some(limit)) => drop(requests.insert(name.into(), limit)),
            (None, None) => {
                let copy = |from: &BTreeMap<String, Quantity>, to: &mut BTreeMap<String, Quantity>| {
                    if let Some(quantity) = from.get(name) {
                        to.insert(name.into(), quantity.clone());
                    }
                };
                copy(&settings.defaults.requests, &mut requests);
                copy(&settings.defaults.limits, &mut limits);
            }
        }
    }
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(limits),
        claims: own.claims,
    }
}

fn small() -> ResourceRequirements {
    let of = |cpu: &str, memory: &str| {
        let pairs = [("cpu", cpu), ("memory", memory), ("ephemeral-storage", "128Mi")];
        Some(
            pairs
                .map(|(k, v)| (k.to_owned(), Quantity(v.into())))
                .into_iter()
                .collect(),
        )
    };
    ResourceRequirements {
        requests: of("10m", "32Mi"),
        limits: of("1", "64Mi"),
        claims: None,
    }
}
