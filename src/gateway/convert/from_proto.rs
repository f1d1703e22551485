//! From the spec of a request to a draft: the Sandbox, the Secrets that it will own, and the secrets that have to be
//! read first.

use k8s_openapi::api::core::v1::LocalObjectReference;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

use super::context::ConvertContext;
use super::draft::Draft;
use super::network::from_proto::NetworkContext;
use super::problems::Problems;
use super::text::quoted;
use super::{constraints, containers, network, runtime_class, services, template, volumes};
use crate::api::network::Dns;
use crate::api::{FieldPath, Workload, limits};
use crate::proto::sandbox as pb;
use crate::resources::addresses::Lists;
use crate::resources::{labels, names};
use crate::text::short;

const MAX_ANNOTATIONS: usize = 64;
const MAX_RUNNER_IDS: usize = 100;
const MAX_TAGS: usize = 64;
const MAX_TAG_CHARACTERS: usize = 256;

/// Converts `spec` into a draft of the sandbox `name`. `problems`: what is wrong with the rest of the request.
///
/// # Errors
/// Everything that is wrong with the request.
pub(crate) fn draft(
    name: &str,
    spec: pb::SandboxSpec,
    context: &ConvertContext<'_>,
    mut problems: Problems,
) -> Result<Draft, Status> {
    let path = context.spec_path();
    let mut draft = Draft {
        name: name.into(),
        workload: context.template.cloned().unwrap_or_default(),
        ..Draft::default()
    };
    let pb::SandboxSpec {
        containers,
        volumes: declared,
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
        runtime_class: runtime_class_name,
        network_config_id,
        runtime_class_selection,
    } = spec;
    for (field, is_set) in [
        ("network_ids", !network_ids.is_empty()),
        ("object_storage_access", object_storage_access.is_some()),
        ("instance_type", !instance_type.is_empty()),
        ("network_config_id", !network_config_id.is_empty()),
        ("runtime_class_selection", runtime_class_selection != 0),
    ] {
        problems.unsupported(&path.field(field), is_set);
    }
    let keeps_volumes = declared.is_empty();
    if !keeps_volumes {
        let declared = volumes::from_proto(
            &path.field("volumes"),
            declared,
            context.volumes,
            &mut draft.metadata,
            &mut problems,
        );
        draft.workload.pod.volumes = Some(declared);
    }
    if containers.is_empty() {
        check_template_mounts(&path, context.template, &draft.workload, &mut problems);
    } else {
        containers::apply(
            &mut draft,
            &path.field("containers"),
            containers,
            context,
            &mut problems,
        );
        if let Some(template) = context.template.filter(|_| keeps_volumes) {
            let limits = volumes::template_limits(template);
            volumes::limit_mounts(&mut draft.workload, |name| limits.get(name).cloned());
        }
    }
    volumes::limit_registered_mounts(&mut draft.workload, context.volumes, &draft.metadata);
    if !draft.metadata.registries.is_empty() {
        let name = names::registry_secret(name);
        draft.workload.pod.image_pull_secrets = Some(vec![LocalObjectReference { name }]);
    }
    apply_network(&mut draft, &path, services, network, context, &mut problems);
    apply_tags(&mut draft.workload, &path, tags, &mut problems);
    apply_annotations(&mut draft.workload, &path, annotations, &mut problems);
    runtime_class::apply(
        &mut draft.workload,
        &path.field("runtime_class"),
        runtime_class_name,
        &mut problems,
    );
    apply_lifetime(&mut draft.workload, &path, max_lifetime_seconds, context, &mut problems);
    apply_runners(&mut draft, &path, runner_ids, context, &mut problems);
    if pb::SandboxMode::try_from(mode).is_err() {
        problems.invalid(&path.field("mode"), "must be a SandboxMode");
    }
    draft.metadata.mode = mode;
    if draft.metadata.exceeds_limit() {
        let text =
            "runner_ids, names of services and volumes, and references to secrets must be at most 32 KiB in total";
        problems.invalid(&path, text);
    }
    if problems.is_empty() {
        template::check(name, &draft.workload, context, &mut problems);
        constraints::check(name, &draft.workload, context, &mut problems);
    }
    problems.into_result()?;
    Ok(draft)
}

/// Without containers in the request those of the template are used, and the volumes that they mount must still exist.
fn check_template_mounts(path: &FieldPath, template: Option<&Workload>, w: &Workload, problems: &mut Problems) {
    let Some(template) = template else {
        problems.invalid(&path.field("containers"), "must have at least one container");
        return;
    };
    let sidecars = template
        .pod
        .sidecars
        .iter()
        .flatten()
        .flat_map(|s| s.container.mounts.iter().flatten());
    let mounted: BTreeSet<&str> = template
        .container
        .mounts
        .iter()
        .flatten()
        .chain(sidecars)
        .map(|m| m.name.as_str())
        .collect();
    for name in mounted {
        if !w.pod.volumes.iter().flatten().any(|v| v.name == name) {
            let text = format!("must have the volume {}, which the template mounts", quoted(name));
            problems.invalid(&path.field("volumes"), text);
        }
    }
}

fn apply_network(
    draft: &mut Draft,
    path: &FieldPath,
    declared: Vec<pb::Service>,
    options: Option<pb::NetworkOptions>,
    context: &ConvertContext<'_>,
    problems: &mut Problems,
) {
    let w = &mut draft.workload;
    let agent_port = context.config.agents.port;
    if !declared.is_empty() {
        let (ports, visibilities) = services::from_proto(&path.field("services"), declared, agent_port, problems);
        (w.ports, draft.metadata.visibilities) = (Some(ports), visibilities);
    }
    let (ports, visibilities) = (w.ports.as_deref().unwrap_or_default(), &draft.metadata.visibilities);
    let custom_ports = services::ports_of(ports, visibilities, pb::Visibility::Custom);
    let service_rules = services::ingress_rules(ports, visibilities);
    match options {
        Some(options) => {
            let never = Lists::new(&context.config.never, &[], &[]).never;
            let network_context = NetworkContext {
                agent_port,
                never: &never,
                dns_without_egress: match context.config.dns_with_deny_egress {
                    true => Dns::Cluster,
                    false => Dns::None,
                },
                custom_ports: &custom_ports,
                service_rules,
            };
            w.network = network::from_proto::from_proto(&path.field("network"), options, network_context, problems);
        }
        None if service_rules.is_empty() => {}
        // The template's network, and what the services of the request add.
        None => w
            .network
            .get_or_insert_default()
            .ingress
            .get_or_insert_default()
            .rules
            .extend(service_rules),
    }
}

fn apply_tags(w: &mut Workload, path: &FieldPath, tags: Vec<String>, problems: &mut Problems) {
    let path = path.field("tags");
    problems.at_most(&path, tags.len(), MAX_TAGS);
    for (i, tag) in tags.iter().enumerate() {
        if !(1..=MAX_TAG_CHARACTERS).contains(&tag.chars().count()) {
            problems.invalid(
                &path.index(i),
                format!("must have 1 to {MAX_TAG_CHARACTERS} characters"),
            );
        }
    }
    let total: usize = tags.iter().map(|tag| tag.chars().count()).sum();
    if total > limits::MAX_TAGS_TEXT {
        let text = format!(
            "must have at most {} characters in all, not {total}",
            limits::MAX_TAGS_TEXT
        );
        problems.invalid(&path, text);
    }
    if !tags.is_empty() {
        w.tags = Some(tags);
    }
}

fn apply_annotations(
    w: &mut Workload,
    path: &FieldPath,
    annotations: BTreeMap<String, String>,
    problems: &mut Problems,
) {
    let path = path.field("annotations");
    problems.at_most(&path, annotations.len(), MAX_ANNOTATIONS);
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > limits::MAX_ANNOTATIONS {
        problems.invalid(
            &path,
            format!(
                "must have at most {} bytes in total, not {size}",
                limits::MAX_ANNOTATIONS
            ),
        );
    }
    for key in annotations.keys() {
        if labels::is_reserved(key) {
            problems.invalid(&path.key(key), "is reserved; use another key");
        } else if !labels::is_key(key) {
            problems.invalid(
                &path.key(key),
                "must be the key of an annotation, such as example.com/name",
            );
        }
    }
    if !annotations.is_empty() {
        w.pod.pod_annotations = Some(annotations);
    }
}

fn apply_lifetime(
    w: &mut Workload,
    path: &FieldPath,
    seconds: i32,
    context: &ConvertContext<'_>,
    problems: &mut Problems,
) {
    let seconds = i64::from(seconds);
    if !(0..=limits::MAX_LIFETIME_SECONDS).contains(&seconds) {
        let text = format!("must be 0 to {}", limits::MAX_LIFETIME_SECONDS);
        problems.invalid(&path.field("max_lifetime_seconds"), text);
    }
    if seconds > 0 {
        w.lifecycle.max_lifetime_seconds = Some(seconds);
    }
    w.lifecycle
        .max_lifetime_seconds
        .get_or_insert(context.config.default_lifetime_seconds);
}

fn apply_runners(
    draft: &mut Draft,
    path: &FieldPath,
    runner_ids: Vec<String>,
    context: &ConvertContext<'_>,
    problems: &mut Problems,
) {
    let path = path.field("runner_ids");
    if runner_ids.len() > MAX_RUNNER_IDS {
        problems.at_most(&path, runner_ids.len(), MAX_RUNNER_IDS);
    } else if !context.runners.place(&mut draft.workload, &runner_ids) {
        let available: Vec<String> = context.runners.all().iter().map(|r| quoted(&r.id)).collect();
        let text = format!("no such runner; available: {}", short(&available.join(", "), 500));
        problems.no_suitable_runner(&path, &text);
    }
    draft.metadata.runner_ids = runner_ids;
}
