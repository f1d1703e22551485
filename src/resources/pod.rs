//! The pod of a sandbox.

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, ImageVolumeSource, PersistentVolumeClaimVolumeSource, Pod, PodDNSConfig, PodSecurityContext,
    PodSpec, SeccompProfile, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeSet;

use super::agent_injection::{AgentDelivery, AgentInjection};
use super::effective::path_of;
use super::network_policy::dns;
use super::pod_containers::{AGENT_VOLUME, SHM_VOLUME, install_agent, main, sidecar};
use super::{Effective, Settings, exec_limits, files, labels, names, prepare};
use crate::api::network::Dns;
use crate::api::{ANNOTATION_AGENT_KEY, Entrypoint, FieldError, FieldPath, Medium, Mount, Port, Sandbox};

/// Builds the pod. Its policy becomes an owner of it when that exists: [`names::set_policy_owner`].
pub(crate) fn build(
    sandbox: &Sandbox,
    effective: &Effective,
    settings: &Settings,
    agent: &AgentInjection,
) -> Result<Pod, FieldError> {
    check(sandbox, effective, settings)?;
    let w = &effective.workload;
    let mut metadata = names::child_meta(sandbox);
    let own_labels = metadata.labels.get_or_insert_default();
    for (key, value) in w.pod.pod_labels.iter().flatten() {
        own_labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut annotations = w.pod.pod_annotations.clone().unwrap_or_default();
    annotations.extend(labels::undisturbed());
    let with_agent = w.entrypoint != Some(Entrypoint::Image);
    if with_agent {
        annotations.insert(ANNOTATION_AGENT_KEY.into(), agent.key.id.clone());
    }
    metadata.annotations = Some(annotations);

    let main = main(sandbox, effective, settings, with_agent.then_some(&agent.key));
    exec_limits::check_main(sandbox, &w.container, &main)?;
    let mut sidecars = vec![];
    for (i, own) in w.pod.sidecars.iter().flatten().enumerate() {
        let built = sidecar(i, own, sandbox, effective, settings);
        exec_limits::check_sidecar(sandbox, i, &own.container, &built)?;
        sidecars.push(built);
    }
    let install = (agent.delivery == AgentDelivery::InitContainer).then(|| install_agent(settings, effective));
    let init: Vec<_> = install
        .into_iter()
        .chain(prepare::init_containers(effective, &main, &sidecars))
        .chain(sidecars)
        .collect();
    let no_dns = dns(effective) == Dns::None;
    Ok(Pod {
        metadata,
        spec: Some(PodSpec {
            active_deadline_seconds: Some(effective.lifetime),
            affinity: w.pod.affinity.clone(),
            automount_service_account_token: Some(false),
            containers: vec![main],
            // Nothing listens there: queries are refused at once instead of timing out.
            dns_config: no_dns.then(|| PodDNSConfig {
                nameservers: Some(vec!["127.0.0.1".into()]),
                ..PodDNSConfig::default()
            }),
            dns_policy: no_dns.then(|| "None".into()),
            enable_service_links: Some(false),
            host_users: Some(w.pod.host_users.unwrap_or(settings.defaults.host_users)),
            hostname: sandbox.metadata.name.clone(),
            image_pull_secrets: w.pod.image_pull_secrets.clone(),
            init_containers: (!init.is_empty()).then_some(init),
            node_selector: w.pod.node_selector.clone(),
            priority_class_name: w.pod.priority_class_name.clone(),
            restart_policy: Some("Never".into()),
            runtime_class_name: w.pod.runtime_class_name.clone(),
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            service_account_name: w.pod.service_account_name.clone(),
            termination_grace_period_seconds: Some(effective.grace),
            tolerations: Some(tolerations(w.pod.tolerations.as_deref().unwrap_or_default(), settings)),
            volumes: Some(volumes(sandbox, effective, settings, agent.delivery)),
            ..PodSpec::default()
        }),
        ..Pod::default()
    })
}

/// What admission cannot see: what results from merging with the session's defaults, and what depends on the settings.
fn check(sandbox: &Sandbox, effective: &Effective, settings: &Settings) -> Result<(), FieldError> {
    let w = &effective.workload;
    let missing = |mounts: &Option<Vec<Mount>>| {
        let known = |name: &str| w.pod.volumes.iter().flatten().any(|v| v.name == name);
        let missing = mounts.iter().flatten().enumerate().find(|(_, m)| !known(&m.name));
        missing.map(|(i, m)| {
            FieldPath::default()
                .index(i)
                .field("name")
                .error(format!("must be the name of a volume; there is no volume {}", m.name))
        })
    };
    if let Some(error) = missing(&w.container.mounts) {
        return Err(error.within(&path_of(sandbox, "mounts")));
    }
    for (i, sidecar) in w.pod.sidecars.iter().flatten().enumerate() {
        if let Some(error) = missing(&sidecar.container.mounts) {
            return Err(error.within(&path_of(sandbox, "sidecars").index(i).field("mounts")));
        }
    }
    check_paths(sandbox, effective)?;
    let agents = |p: &Port| p.port == i32::from(settings.agent.port);
    if let Some(i) = w.ports.iter().flatten().position(agents) {
        let path = path_of(sandbox, "ports").index(i).field("port");
        return Err(path.error(format!(
            "must be a port other than {}, which is the agent's",
            settings.agent.port
        )));
    }
    Ok(())
}

/// Nothing else uses a path of the main container, and files have absolute paths where no agent copies them.
fn check_paths(sandbox: &Sandbox, effective: &Effective) -> Result<(), FieldError> {
    let w = &effective.workload;
    let mut used = BTreeSet::new();
    let volumes = w.pod.volumes.iter().flatten().map(|v| v.mount_path.as_deref());
    let mounts = w.container.mounts.iter().flatten().map(|m| Some(m.mount_path.as_str()));
    let files = w.container.files.iter().flatten().map(|f| Some(f.path.as_str()));
    let volumes = volumes.enumerate().map(|(i, path)| ("volumes", i, "mountPath", path));
    let mounts = mounts.enumerate().map(|(i, path)| ("mounts", i, "mountPath", path));
    let files = files.enumerate().map(|(i, path)| ("files", i, "path", path));
    for (list, i, field, path) in volumes.chain(mounts).chain(files) {
        let Some(path) = path else { continue };
        let at = || path_of(sandbox, list).index(i).field(field);
        if w.entrypoint == Some(Entrypoint::Image) && !path.starts_with('/') {
            return Err(at().error(format!("must be absolute with entrypoint: Image, and {path} is not")));
        }
        if !used.insert(path) {
            return Err(at().error(format!("{path} is used by another volume, mount or file")));
        }
    }
    Ok(())
}

/// The user's, and a bounded stay on a lost node unless the user tolerates that taint.
fn tolerations(own: &[Toleration], settings: &Settings) -> Vec<Toleration> {
    let bounded = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .into_iter()
        .filter(|taint| {
            !own.iter().any(|t| {
                t.key.as_deref().is_none_or(|k| k == *taint) && t.effect.as_deref().is_none_or(|e| e == "NoExecute")
            })
        });
    let bounded = bounded.map(|taint| Toleration {
        key: Some(taint.into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(settings.defaults.unreachable_toleration_seconds),
        value: None,
    });
    own.iter().cloned().chain(bounded).collect()
}

fn volumes(sandbox: &Sandbox, effective: &Effective, settings: &Settings, agent: AgentDelivery) -> Vec<Volume> {
    let agent = match agent {
        AgentDelivery::ImageVolume => Volume {
            name: AGENT_VOLUME.into(),
            image: Some(ImageVolumeSource {
                reference: Some(settings.agent.image.clone()),
                pull_policy: Some(settings.agent.image_pull_policy.clone()),
            }),
            ..Volume::default()
        },
        AgentDelivery::InitContainer => empty_dir(AGENT_VOLUME, None, Some(Quantity("64Mi".into()))),
    };
    let shm = empty_dir(
        SHM_VOLUME,
        Some("Memory"),
        Some(settings.defaults.shared_memory.clone()),
    );
    let declared =
        effective
            .workload
            .pod
            .volumes
            .iter()
            .flatten()
            .map(|v| match (&v.scratch, &v.persistent_volume_claim) {
                (_, Some(claim)) => Volume {
                    name: v.name.clone(),
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: claim.claim_name.clone(),
                        read_only: None,
                    }),
                    ..Volume::default()
                },
                (scratch, None) => {
                    let memory = scratch.as_ref().and_then(|s| s.medium) == Some(Medium::Memory);
                    empty_dir(
                        &v.name,
                        memory.then_some("Memory"),
                        scratch.as_ref().and_then(|s| s.size.clone()),
                    )
                }
            });
    std::iter::once(agent)
        .chain([shm])
        .chain(files::volumes(sandbox, effective))
        .chain(declared)
        .collect()
}

fn empty_dir(name: &str, medium: Option<&str>, size_limit: Option<Quantity>) -> Volume {
    let source = EmptyDirVolumeSource {
        medium: medium.map(Into::into),
        size_limit,
    };
    Volume {
        name: name.into(),
        empty_dir: Some(source),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests;
