//! The spec of a Sandbox as a request would have said it: from the resource alone, so that sandboxes made by kubectl are told as well.
//! Secrets are told by reference, files by their paths.

use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;

use super::facts::{Facts, Source};
use super::request::NODE_DEFAULT;
use super::security::{self, Security};
use super::text::unescape;
use super::{network, resources, services, volumes};
use crate::api::{
    ANNOTATION_DISPLAY_NAME, ANNOTATION_MAIN_NAME, ANNOTATION_TEMPLATE, ANNOTATION_TEMPLATE_REVISION, File, Mount, Sandbox, Sidecar, Workload,
};
use crate::gateway::config::Config;
use crate::gateway::runners::Runner;
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::MAIN;

/// The whole sandbox. `runner`: where it is, if that is known.
pub fn sandbox(sandbox: &Sandbox, config: &Config, runner: Option<&Runner>) -> pb::Sandbox {
    let facts = Facts::of(sandbox);
    let annotation = |key: &str| sandbox.annotations().get(key).cloned().unwrap_or_default();
    pb::Sandbox {
        sandbox_id: sandbox.name_any(),
        spec: Some(spec(sandbox, &facts, config)),
        status: Some(super::status::status(sandbox, &facts, config, runner)),
        source_template_id: annotation(ANNOTATION_TEMPLATE),
        source_template_revision: annotation(ANNOTATION_TEMPLATE_REVISION).parse().unwrap_or_default(),
        display_name: annotation(ANNOTATION_DISPLAY_NAME),
        endpoint_share_token: String::new(),
        control: pb::Control::Platform.into(),
    }
}

/// What callers call the main container.
pub fn main_name(sandbox: &Sandbox) -> &str {
    sandbox.annotations().get(ANNOTATION_MAIN_NAME).map_or(MAIN, String::as_str)
}

/// The spec.
fn spec(sandbox: &Sandbox, facts: &Facts, config: &Config) -> pb::SandboxSpec {
    let w = &sandbox.spec.workload;
    let ports = w.ports.as_deref().unwrap_or_default();
    let rules = w.network.as_ref().and_then(|n| n.ingress.as_ref()).map(|i| i.rules.as_slice());
    let opened = services::ingress(ports, &facts.visibilities);
    pb::SandboxSpec {
        containers: containers(sandbox, facts, config),
        volumes: volumes::to_proto(w.pod.volumes.as_deref().unwrap_or_default(), facts),
        services: services::to_proto(ports, &facts.visibilities, rules.unwrap_or_default()),
        max_lifetime_seconds: w.lifecycle.max_lifetime_seconds.and_then(|s| i32::try_from(s).ok()).unwrap_or_default(),
        network_ids: vec![],
        object_storage_access: None,
        tags: w.tags.clone().unwrap_or_default(),
        runner_ids: facts.runner_ids.clone(),
        network: network::to_proto(w.network.as_ref(), &opened),
        annotations: w.pod.pod_annotations.clone().unwrap_or_default(),
        instance_type: String::new(),
        mode: facts.mode,
        runtime_class: w.pod.runtime_class_name.clone().unwrap_or_default(),
        network_config_id: String::new(),
        runtime_class_selection: 0,
    }
}

/// RuntimeClass in effect.
pub fn runtime_class(w: &Workload) -> String {
    w.pod.runtime_class_name.clone().unwrap_or_else(|| NODE_DEFAULT.into())
}

fn containers(sandbox: &Sandbox, facts: &Facts, config: &Config) -> Vec<pb::Container> {
    let w = &sandbox.spec.workload;
    let image = sandbox.status.as_ref().and_then(|s| s.container_image.clone());
    let (command, args) = command(w.container.command.as_ref(), w.container.args.as_ref());
    let own_mounts: Vec<Mount> = w.pod.volumes.iter().flatten().filter_map(own_mount).collect();
    let security = Security {
        profile: w.container.security_profile,
        user: w.container.run_as_user,
        group: w.container.run_as_group,
        read_only_root: w.container.read_only_root_filesystem,
    };
    let main = pb::Container {
        name: main_name(sandbox).into(),
        image: w.container_image.clone().or(image).unwrap_or_default(),
        command,
        args,
        files: files(w.container.files.as_ref()),
        volume_mounts: volumes::mounts_to_proto(own_mounts.iter().chain(w.container.mounts.iter().flatten())),
        working_dir: w.container.working_dir.clone().unwrap_or_default(),
        resource_requirements: resources::to_proto(w.container.resources.as_ref(), w.pod.node_selector.as_ref(), &config.gpus),
        security_context: security::to_proto(security),
        primary: w.pod.sidecars.as_ref().is_some_and(|s| !s.is_empty()).then_some(true),
        ..with_secrets(MAIN, w.container.env.as_ref(), facts)
    };
    let sidecars = w.pod.sidecars.iter().flatten().map(|s| sidecar(s, w, facts, config));
    std::iter::once(main).chain(sidecars).collect()
}

fn sidecar(sidecar: &Sidecar, w: &Workload, facts: &Facts, config: &Config) -> pb::Container {
    let s = &sidecar.container;
    let (command, args) = command(s.command.as_ref(), s.args.as_ref());
    let security = Security {
        profile: s.security_profile,
        user: s.run_as_user,
        group: s.run_as_group,
        read_only_root: s.read_only_root_filesystem,
    };
    pb::Container {
        name: sidecar.name.clone(),
        image: sidecar.image.clone(),
        command,
        args,
        files: files(s.files.as_ref()),
        volume_mounts: volumes::mounts_to_proto(s.mounts.iter().flatten()),
        working_dir: s.working_dir.clone().unwrap_or_default(),
        resource_requirements: resources::to_proto(s.resources.as_ref(), w.pod.node_selector.as_ref(), &config.gpus),
        security_context: security::to_proto(security),
        ..with_secrets(&sidecar.name, s.env.as_ref(), facts)
    }
}

/// A volume's own mount in the main container.
fn own_mount(v: &crate::api::Volume) -> Option<Mount> {
    Some(Mount {
        name: v.name.clone(),
        mount_path: v.mount_path.clone()?,
        sub_path: v.sub_path.clone(),
        read_only: v.read_only,
    })
}

/// On the wire a command is its first word, and all others are arguments.
fn command(command: Option<&Vec<String>>, args: Option<&Vec<String>>) -> (String, Vec<String>) {
    let mut words = command.into_iter().flatten().map(|w| unescape(w));
    let first = words.next().unwrap_or_default();
    (first, words.chain(args.into_iter().flatten().map(|a| unescape(a))).collect())
}

fn files(files: Option<&Vec<File>>) -> Vec<pb::FileMount> {
    let path = |f: &File| pb::FileMount {
        path: f.path.clone(),
        content: bytes::Bytes::new(),
    };
    files.into_iter().flatten().map(path).collect()
}

/// A container with its variables, and with the secrets among them as the references that they were asked for by. `place`: its name in
/// the pod.
fn with_secrets(place: &str, env: Option<&Vec<EnvVar>>, facts: &Facts) -> pb::Container {
    let mut container = pb::Container::default();
    let members = facts.values.get(place);
    for variable in env.into_iter().flatten() {
        let reference = variable.value_from.as_ref().and_then(|f| f.secret_key_ref.as_ref());
        let member = members.and_then(|m| m.get(&variable.name)).cloned();
        let whole = || {
            reference.map(|r| Source {
                store: r.name.clone(),
                path: r.key.clone(),
                field: String::new(),
            })
        };
        match (member.or_else(whole), &variable.value) {
            (Some(source), _) => add_secret(&mut container.secret_stores, variable.name.clone(), source),
            (None, Some(value)) => drop(container.environment_variables.insert(variable.name.clone(), unescape(value))),
            // A field of the pod or a ConfigMap's key (of a sandbox made by kubectl) has no form on the wire.
            (None, None) => {}
        }
    }
    container.image_pull_credentials = facts.registries.get(place).map(|r| pb::ImagePullCredentials {
        registry: r.registry.clone(),
        credentials: Some(pb::SecretSource {
            store_name: r.source.store.clone(),
            path: r.source.path.clone(),
            field: r.source.field.clone(),
        }),
    });
    container
}

fn add_secret(stores: &mut Vec<pb::SecretStoreReference>, env_var: String, source: Source) {
    let mapping = pb::SecretMapping {
        path: source.path,
        field: source.field,
        env_var,
    };
    match stores.iter_mut().find(|s| s.store_name == source.store) {
        Some(store) => store.secrets.push(mapping),
        None => stores.push(pb::SecretStoreReference {
            store_name: source.store,
            secrets: vec![mapping],
        }),
    }
}
