//! From the spec of a request to a draft of a Sandbox, of the Secrets that follow it, and of what has to be looked up first.

use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

use super::facts::Facts;
use super::files::Contents;
use super::network::{self, Around};
use super::problems::Problems;
use super::secrets::Need;
use super::text::quoted;
use super::volumes::{self, Registered};
use super::{containers, services};
use crate::api::{Workload, limits};
use crate::gateway::config::Config;
use crate::gateway::runners::Runners;
use crate::proto::sandbox as pb;
use crate::resources::{labels, names};
use crate::text::short;

/// RuntimeClass of a pod that names none.
pub const NODE_DEFAULT: &str = "<node-default>";

/// Most containers: the main one, and as many beside it as a Sandbox has at most.
const MAX_CONTAINERS: usize = 17;

/// A Sandbox before anything is written.
#[derive(Debug, Default)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// What shapes the pod.
    pub workload: Workload,
    /// What the request called the main container, if not `main`.
    pub main_name: Option<String>,
    /// What the request said that no field says.
    pub facts: Facts,
    /// Contents of files.
    pub contents: Contents,
    /// What it takes from secret stores.
    pub needs: Vec<Need>,
}

/// What a conversion has to know besides the request.
pub struct Known<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// Where sandboxes may be.
    pub runners: &'a Runners,
    /// Registered volumes by their ids.
    pub claims: &'a BTreeMap<String, Registered>,
}

/// A draft of the sandbox `name`. What `spec` does not say comes from `base`: a template's fields, or none.
///
/// # Errors
/// All that is wrong with the request.
pub fn draft(name: &str, base: Option<&Workload>, spec: pb::SandboxSpec, known: &Known<'_>, mut problems: Problems) -> Result<Draft, Status> {
    let config = known.config;
    let mut draft = Draft {
        name: name.into(),
        workload: base.cloned().unwrap_or_default(),
        ..Draft::default()
    };
    let pb::SandboxSpec {
        containers,
        volumes: declared,
        services: ports,
        max_lifetime_seconds,
        network_ids,
        object_storage_access,
        tags,
        runner_ids,
        network,
        annotations,
        instance_type,
        mode,
        runtime_class,
        network_config_id,
        runtime_class_selection,
    } = spec;
    for (field, given) in [
        ("network_ids", !network_ids.is_empty()),
        ("object_storage_access", object_storage_access.is_some()),
        ("instance_type", !instance_type.is_empty()),
        ("network_config_id", !network_config_id.is_empty()),
        ("runtime_class_selection", runtime_class_selection != 0),
    ] {
        problems.unsupported(format!("sandbox.spec.{field}"), given);
    }
    if base.is_none() && containers.is_empty() {
        problems.wrong("sandbox.spec.containers", "at least one is required");
    }
    if containers.len() > MAX_CONTAINERS {
        problems.wrong("sandbox.spec.containers", format!("at most {MAX_CONTAINERS}"));
    }
    if !declared.is_empty() {
        draft.workload.pod.volumes = Some(volumes::from_proto(declared, known.claims, &mut draft.facts, &mut problems));
    }
    containers::put(&mut draft, containers, config, &mut problems);
    draft.contents.check(&mut problems);
    check_mounts(&draft.workload, &mut problems);
    volumes::bound(&mut draft.workload, known.claims, &draft.facts);
    if !draft.facts.registries.is_empty() {
        let secret = names::registry_secret(name);
        draft.workload.pod.image_pull_secrets = Some(vec![k8s_openapi::api::core::v1::LocalObjectReference { name: secret }]);
    }
    put_network(&mut draft, ports, network, config, &mut problems);
    put_rest(&mut draft.workload, tags, annotations, runtime_class, &mut problems);
    put_lifetime(&mut draft.workload, max_lifetime_seconds, config, &mut problems);
    if runner_ids.len() > 100 {
        problems.wrong("sandbox.spec.runner_ids", "at most 100");
    } else if !known.runners.place(&mut draft.workload, &runner_ids) {
        let there: Vec<String> = known.runners.all().iter().map(|r| quoted(&r.id)).collect();
        let text = format!("none of them is there; there is {}", short(&there.join(", "), 500));
        problems.no_runner("sandbox.spec.runner_ids", &text);
    }
    draft.facts.runner_ids = runner_ids;
    if pb::SandboxMode::try_from(mode).is_err() {
        problems.wrong("sandbox.spec.mode", "is not known");
    }
    draft.facts.mode = mode;
    if draft.facts.is_too_much() {
        let text = "runner_ids, names of services and volumes, and references to secrets have more than 32 KiB together";
        problems.wrong("sandbox.spec", text);
    }
    problems.result()?;
    Ok(draft)
}

/// Every mount is of a volume that there is.
fn check_mounts(w: &Workload, problems: &mut Problems) {
    let known: BTreeSet<&str> = w.pod.volumes.iter().flatten().map(|v| v.name.as_str()).collect();
    let sidecars = w.pod.sidecars.iter().flatten().flat_map(|s| s.container.mounts.iter().flatten());
    let missing: BTreeSet<&str> = w
        .container
        .mounts
        .iter()
        .flatten()
        .chain(sidecars)
        .map(|m| m.name.as_str())
        .filter(|n| !known.contains(n))
        .collect();
    for name in missing {
        problems.wrong(
            "sandbox.spec.containers[].volume_mounts[].volume",
            format!("there is no volume {}", quoted(name)),
        );
    }
}

fn put_network(draft: &mut Draft, ports: Vec<pb::Service>, options: Option<pb::NetworkOptions>, config: &Config, problems: &mut Problems) {
    let w = &mut draft.workload;
    if !ports.is_empty() {
        let (ports, visibilities) = services::from_proto(ports, config.agents.port, problems);
        (w.ports, draft.facts.visibilities) = (Some(ports), visibilities);
    }
    let (ports, visibilities) = (w.ports.as_deref().unwrap_or_default(), &draft.facts.visibilities);
    let custom = services::visible(ports, visibilities, pb::Visibility::Custom);
    let opened = services::ingress(ports, visibilities);
    match options {
        Some(options) => {
            let around = Around {
                agent_port: config.agents.port,
                custom: &custom,
            };
            w.network = network::from_proto(options, &around, opened, problems);
        }
        None if opened.is_empty() => {}
        // A template's network, and what the services of the request open.
        None => w.network.get_or_insert_default().ingress.get_or_insert_default().rules.extend(opened),
    }
}

fn put_rest(w: &mut Workload, tags: Vec<String>, annotations: BTreeMap<String, String>, runtime_class: String, problems: &mut Problems) {
    if tags.len() > 64 {
        problems.wrong("sandbox.spec.tags", "at most 64");
    }
    for (i, tag) in tags.iter().enumerate() {
        if !(1..=256).contains(&tag.chars().count()) {
            problems.wrong(format!("sandbox.spec.tags[{i}]"), "must have 1 to 256 characters");
        }
    }
    if !tags.is_empty() {
        w.tags = Some(tags);
    }
    if annotations.len() > 64 {
        problems.wrong("sandbox.spec.annotations", "at most 64");
    }
    for key in annotations.keys() {
        if labels::is_reserved(key) {
            problems.wrong("sandbox.spec.annotations", format!("{} is reserved", quoted(key)));
        } else if !labels::is_key(key) {
            problems.wrong("sandbox.spec.annotations", format!("{} is not the key of an annotation", quoted(key)));
        }
    }
    if !annotations.is_empty() {
        w.pod.pod_annotations = Some(annotations);
    }
    match runtime_class.as_str() {
        "" => {}
        NODE_DEFAULT => w.pod.runtime_class_name = None,
        name => {
            if !names::is_name(name) {
                problems.wrong(
                    "sandbox.spec.runtime_class",
                    format!("{} is not the name of a RuntimeClass", quoted(name)),
                );
            }
            w.pod.runtime_class_name = Some(name.into());
        }
    }
}

fn put_lifetime(w: &mut Workload, seconds: i32, config: &Config, problems: &mut Problems) {
    let seconds = i64::from(seconds);
    if !(0..=limits::MAX_LIFETIME_SECONDS).contains(&seconds) {
        let text = format!("must be 0 to {}", limits::MAX_LIFETIME_SECONDS);
        problems.wrong("sandbox.spec.max_lifetime_seconds", text);
    }
    if seconds > 0 {
        w.lifecycle.max_lifetime_seconds = Some(seconds);
    }
    w.lifecycle.max_lifetime_seconds.get_or_insert(config.default_lifetime_seconds);
}

/// What overrides of a template say, as the spec that they stand for.
pub fn overrides(partial: pb::PartialSandboxSpec) -> pb::SandboxSpec {
    let pb::PartialSandboxSpec {
        containers,
        volumes,
        services,
        max_lifetime_seconds,
        network_ids,
        object_storage_access,
        tags,
        runner_ids,
        network,
        annotations,
        instance_type,
        mode,
        runtime_class,
        network_config_id,
        runtime_class_selection,
    } = partial;
    pb::SandboxSpec {
        containers: containers.into_iter().map(containers::whole).collect(),
        volumes,
        services,
        max_lifetime_seconds,
        network_ids,
        object_storage_access,
        tags,
        runner_ids,
        network,
        annotations,
        instance_type,
        mode,
        runtime_class,
        network_config_id,
        runtime_class_selection: runtime_class_selection.unwrap_or_default(),
    }
}
