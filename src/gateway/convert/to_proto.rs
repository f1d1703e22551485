//! From a Sandbox to the message that describes it: from the resource alone, so that it works for sandboxes created
//! with kubectl too. Secrets are returned as references, files as paths.

use k8s_openapi::api::core::v1::EnvVar;
use kube::ResourceExt;

use super::request_metadata::{RequestMetadata, SecretSource, main_name};
use super::security::{self, Security};
use super::text::unescape;
use super::{network, resources, services, volumes};
use crate::api::{
    ANNOTATION_DISPLAY_NAME, ANNOTATION_TEMPLATE, ANNOTATION_TEMPLATE_REVISION, Container, File, Mount, Sandbox,
    Workload,
};
use crate::gateway::config::{Config, Runner};
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::MAIN;

/// Converts a sandbox. `runner`: where it runs, if that is known.
pub(crate) fn sandbox(sandbox: &Sandbox, config: &Config, runner: Option<&Runner>) -> pb::Sandbox {
    let metadata = RequestMetadata::of(sandbox);
    let annotation = |key: &str| sandbox.annotations().get(key).cloned().unwrap_or_default();
    pb::Sandbox {
        sandbox_id: sandbox.name_any(),
        spec: Some(spec(sandbox, &metadata, config)),
        status: Some(super::status::status(sandbox, &metadata, config, runner)),
        source_template_id: annotation(ANNOTATION_TEMPLATE),
        source_template_revision: annotation(ANNOTATION_TEMPLATE_REVISION).parse().unwrap_or_default(),
        display_name: annotation(ANNOTATION_DISPLAY_NAME),
        endpoint_share_token: String::new(),
        control: pb::Control::Platform.into(),
    }
}

fn spec(sandbox: &Sandbox, metadata: &RequestMetadata, config: &Config) -> pb::SandboxSpec {
    let w = &sandbox.spec.workload;
    let ports = w.ports.as_deref().unwrap_or_default();
    let rules = w
        .network
        .as_ref()
        .and_then(|n| n.ingress.as_ref())
        .map(|i| i.rules.as_slice());
    let service_rules = services::ingress_rules(ports, &metadata.visibilities);
    pb::SandboxSpec {
        containers: containers(sandbox, metadata, config),
        volumes: volumes::to_proto(w.pod.volumes.as_deref().unwrap_or_default(), metadata),
        services: services::to_proto(ports, &metadata.visibilities, rules.unwrap_or_default()),
        max_lifetime_seconds: w
            .lifecycle
            .max_lifetime_seconds
            .and_then(|s| i32::try_from(s).ok())
            .unwrap_or_default(),
        network_ids: vec![],
        object_storage_access: None,
        tags: w.tags.clone().unwrap_or_default(),
        runner_ids: metadata.runner_ids.clone(),
        network: network::to_proto::to_proto(w.network.as_ref(), &service_rules),
        annotations: w.pod.pod_annotations.clone().unwrap_or_default(),
        instance_type: String::new(),
        mode: metadata.mode,
        runtime_class: w.pod.runtime_class_name.clone().unwrap_or_default(),
        network_config_id: String::new(),
        runtime_class_selection: 0,
    }
}

fn containers(sandbox: &Sandbox, metadata: &RequestMetadata, config: &Config) -> Vec<pb::Container> {
    let w = &sandbox.spec.workload;
    let image = sandbox.status.as_ref().and_then(|s| s.container_image.clone());
    let mut main = pb::Container {
        name: main_name(sandbox).into(),
        image: w.container_image.clone().or(image).unwrap_or_default(),
        primary: w.pod.sidecars.as_ref().is_some_and(|s| !s.is_empty()).then_some(true),
        ..container(MAIN, &w.container, w, metadata, config)
    };
    let declared: Vec<Mount> = w.pod.volumes.iter().flatten().filter_map(declared_mount).collect();
    main.volume_mounts.splice(0..0, volumes::mounts_to_proto(&declared));
    let sidecars = w.pod.sidecars.iter().flatten().map(|s| pb::Container {
        name: s.name.clone(),
        image: s.image.clone(),
        ..container(&s.name, &s.container, w, metadata, config)
    });
    std::iter::once(main).chain(sidecars).collect()
}

/// Converts one container, without its name and image. `name`: its name in the pod. Destructures without `..`, so that
/// no field is forgotten.
fn container(
    name: &str,
    container: &Container,
    w: &Workload,
    metadata: &RequestMetadata,
    config: &Config,
) -> pb::Container {
    let Container {
        command: words,
        args,
        working_dir,
        env,
        // The API has no such field.
        env_from: _,
        resources: requirements,
        security_profile,
        run_as_user,
        run_as_group,
        read_only_root_filesystem,
        files: mounted_files,
        mounts,
    } = container;
    let (command, args) = command(words.as_ref(), args.as_ref());
    let security = Security {
        profile: *security_profile,
        user: *run_as_user,
        group: *run_as_group,
        read_only_root: *read_only_root_filesystem,
    };
    pb::Container {
        command,
        args,
        files: files(mounted_files.as_ref()),
        volume_mounts: volumes::mounts_to_proto(mounts.iter().flatten()),
        working_dir: working_dir.clone().unwrap_or_default(),
        resource_requirements: resources::to_proto(requirements.as_ref(), w.pod.node_selector.as_ref(), &config.gpus),
        security_context: security::to_proto(security),
        ..with_env(name, env.as_ref(), metadata)
    }
}

/// The mount in the main container that a volume itself declares.
fn declared_mount(v: &crate::api::Volume) -> Option<Mount> {
    Some(Mount {
        name: v.name.clone(),
        mount_path: v.mount_path.clone()?,
        sub_path: v.sub_path.clone(),
        read_only: v.read_only,
    })
}

/// In the API a command is its first word, and all other words are arguments.
fn command(command: Option<&Vec<String>>, args: Option<&Vec<String>>) -> (String, Vec<String>) {
    let mut words = command.into_iter().flatten().map(|w| unescape(w));
    let first = words.next().unwrap_or_default();
    (
        first,
        words.chain(args.into_iter().flatten().map(|a| unescape(a))).collect(),
    )
}

fn files(files: Option<&Vec<File>>) -> Vec<pb::FileMount> {
    let path = |f: &File| pb::FileMount {
        path: f.path.clone(),
        content: bytes::Bytes::new(),
    };
    files.into_iter().flatten().map(path).collect()
}

/// A container with its variables, and with those from secret stores as the references of the request. `name`: its name
/// in the pod.
fn with_env(name: &str, env: Option<&Vec<EnvVar>>, metadata: &RequestMetadata) -> pb::Container {
    let mut container = pb::Container::default();
    let copied = metadata.values.get(name);
    for variable in env.into_iter().flatten() {
        let reference = variable.value_from.as_ref().and_then(|f| f.secret_key_ref.as_ref());
        let copied = copied.and_then(|c| c.get(&variable.name)).cloned();
        let referenced = || {
            reference.map(|r| SecretSource {
                store: r.name.clone(),
                path: r.key.clone(),
                field: String::new(),
            })
        };
        match (copied.or_else(referenced), &variable.value) {
            (Some(source), _) => add_secret(&mut container.secret_stores, variable.name.clone(), source),
            (None, Some(value)) => drop(
                container
                    .environment_variables
                    .insert(variable.name.clone(), unescape(value)),
            ),
            // The API has no variables from a field of the pod or a ConfigMap (of a sandbox created with kubectl).
            (None, None) => {}
        }
    }
    container.image_pull_credentials = metadata.registries.get(name).map(|r| pb::ImagePullCredentials {
        registry: r.registry.clone(),
        credentials: Some(pb::SecretSource {
            store_name: r.source.store.clone(),
            path: r.source.path.clone(),
            field: r.source.field.clone(),
        }),
    });
    container
}

fn add_secret(stores: &mut Vec<pb::SecretStoreReference>, env_var: String, source: SecretSource) {
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
