//! The fields in effect: the sandbox's own, then its session's defaults, then the operator's.

use k8s_openapi::api::core::v1::EnvVar;

use super::settings::Settings;
use crate::api::{Sandbox, SandboxSession, Workload, limits};

/// A sandbox's fields after defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Own and session's fields, merged.
    pub workload: Workload,
    /// Image of the main container.
    pub image: String,
    /// Lifetime in seconds.
    pub lifetime: i64,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace: i64,
    /// Seconds to RUNNING.
    pub start_timeout: i64,
    /// Seconds for which the record is kept.
    pub ttl: i64,
    /// Tags, sorted, each once.
    pub tags: Vec<String>,
}

impl Effective {
    /// Merges. `session` is the sandbox's session where it has one and that one is known.
    pub fn new(sandbox: &Sandbox, session: Option<&SandboxSession>, settings: &Settings) -> Effective {
        let workload = match session.and_then(|s| s.spec.defaults.as_ref()) {
            Some(defaults) => merge(&sandbox.spec.workload, defaults),
            None => sandbox.spec.workload.clone(),
        };
        let mut tags = workload.tags.clone().unwrap_or_default();
        tags.sort();
        tags.dedup();
        Effective {
            image: workload
                .container_image
                .clone()
                .unwrap_or_else(|| settings.defaults.container_image.clone()),
            lifetime: workload
                .max_lifetime_seconds
                .unwrap_or(settings.defaults.max_lifetime_seconds)
                .min(limits::MAX_LIFETIME_SECONDS),
            grace: workload.termination_grace_period_seconds.unwrap_or(limits::DEFAULT_GRACE_SECONDS),
            start_timeout: workload.start_timeout_seconds.unwrap_or(limits::DEFAULT_START_TIMEOUT_SECONDS),
            ttl: workload.ttl_seconds_after_finished.unwrap_or(limits::DEFAULT_TTL_SECONDS),
            tags,
            workload,
        }
    }
}

/// Destructures without `..`, so that a new field does not compile until somebody says how it merges.
fn merge(own: &Workload, defaults: &Workload) -> Workload {
    let Workload {
        container_image,
        image_pull_policy,
        image_pull_secrets,
        command,
        args,
        entrypoint,
        working_dir,
        env,
        env_from,
        resources,
        runtime_class_name,
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        service_account_name,
        security_profile,
        run_as_user,
        run_as_group,
        read_only_root_filesystem,
        host_users,
        files,
        volumes,
        mounts,
        ports,
        network,
        sidecars,
        pod_annotations,
        pod_labels,
        tags,
        max_lifetime_seconds,
        start_timeout_seconds,
        termination_grace_period_seconds,
        ttl_seconds_after_finished,
    } = own.clone();
    let d = defaults.clone();
    // The main command is one thing in three fields: who says how it starts says all of it.
    let says_command = command.is_some() || args.is_some() || entrypoint.is_some();
    let (command, args, entrypoint) = if says_command {
        (command, args, entrypoint)
    } else {
        (d.command, d.args, d.entrypoint)
    };
    Workload {
        container_image: container_image.or(d.container_image),
        image_pull_policy: image_pull_policy.or(d.image_pull_policy),
        image_pull_secrets: image_pull_secrets.or(d.image_pull_secrets),
        command,
        args,
        entrypoint,
        working_dir: working_dir.or(d.working_dir),
        env: merge_env(env, d.env),
        env_from: env_from.or(d.env_from),
        resources: resources.or(d.resources),
        runtime_class_name: runtime_class_name.or(d.runtime_class_name),
        node_selector: node_selector.or(d.node_selector),
        tolerations: tolerations.or(d.tolerations),
        affinity: affinity.or(d.affinity),
        priority_class_name: priority_class_name.or(d.priority_class_name),
        service_account_name: service_account_name.or(d.service_account_name),
        security_profile: security_profile.or(d.security_profile),
        run_as_user: run_as_user.or(d.run_as_user),
        run_as_group: run_as_group.or(d.run_as_group),
        read_only_root_filesystem: read_only_root_filesystem.or(d.read_only_root_filesystem),
        host_users: host_users.or(d.host_users),
        files: files.or(d.files),
        volumes: volumes.or(d.volumes),
        mounts: mounts.or(d.mounts),
        ports: ports.or(d.ports),
        network: network.or(d.network),
        sidecars: sidecars.or(d.sidecars),
        pod_annotations: pod_annotations.or(d.pod_annotations),
        pod_labels: pod_labels.or(d.pod_labels),
        tags: match (tags, d.tags) {
            (Some(own), Some(theirs)) => Some(own.into_iter().chain(theirs).collect()),
            (own, theirs) => own.or(theirs),
        },
        max_lifetime_seconds: max_lifetime_seconds.or(d.max_lifetime_seconds),
        start_timeout_seconds: start_timeout_seconds.or(d.start_timeout_seconds),
        termination_grace_period_seconds: termination_grace_period_seconds.or(d.termination_grace_period_seconds),
        ttl_seconds_after_finished: ttl_seconds_after_finished.or(d.ttl_seconds_after_finished),
    }
}

/// The session's variables first, since later ones may refer to earlier ones by `$(NAME)`.
fn merge_env(own: Option<Vec<EnvVar>>, defaults: Option<Vec<EnvVar>>) -> Option<Vec<EnvVar>> {
    match (own, defaults) {
        (Some(own), Some(mut env)) => {
            env.retain(|d| own.iter().all(|o| o.name != d.name));
            env.extend(own);
            Some(env)
        }
        (own, defaults) => own.or(defaults),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{SandboxSessionSpec, SandboxSpec};

    fn env(pairs: &[(&str, &str)]) -> Option<Vec<EnvVar>> {
        Some(
            pairs
                .iter()
                .map(|(n, v)| EnvVar {
                    name: (*n).into(),
                    value: Some((*v).into()),
                    ..EnvVar::default()
                })
                .collect(),
        )
    }

    fn effective(own: Workload, defaults: Workload) -> Effective {
        let sandbox = Sandbox::new(
            "a",
            SandboxSpec {
                workload: own,
                ..SandboxSpec::default()
            },
        );
        let session = SandboxSession::new(
            "s",
            SandboxSessionSpec {
                defaults: Some(defaults),
                ..SandboxSessionSpec::default()
            },
        );
        Effective::new(&sandbox, Some(&session), &Settings::default())
    }

    #[test]
    fn the_sandbox_wins_env_merges_by_name_and_tags_unite() {
        let own = Workload {
            env: env(&[("A", "own"), ("C", "3")]),
            tags: Some(vec!["x".into(), "y".into()]),
            max_lifetime_seconds: Some(5),
            ..Workload::default()
        };
        let defaults = Workload {
            env: env(&[("A", "theirs"), ("B", "2")]),
            tags: Some(vec!["y".into(), "z".into()]),
            max_lifetime_seconds: Some(9),
            container_image: Some("busybox".into()),
            ..Workload::default()
        };
        let e = effective(own, defaults);
        assert_eq!(e.workload.env, env(&[("B", "2"), ("A", "own"), ("C", "3")]));
        assert_eq!(e.tags, ["x", "y", "z"]);
        assert_eq!((e.lifetime, e.image.as_str()), (5, "busybox"));
    }

    #[test]
    fn a_command_of_the_sandbox_does_not_get_the_sessions_args() {
        let own = Workload {
            command: Some(vec!["ls".into()]),
            ..Workload::default()
        };
        let defaults = Workload {
            command: Some(vec!["sh".into()]),
            args: Some(vec!["-c".into()]),
            ..Workload::default()
        };
        assert_eq!(effective(own, defaults).workload.args, None);
    }

    #[test]
    fn without_anything_the_operators_defaults_hold() {
        let e = effective(Workload::default(), Workload::default());
        assert_eq!(
            (e.image.as_str(), e.lifetime, e.grace, e.start_timeout, e.ttl),
            ("python:3.11", 86_400, 10, 300, 86_400)
        );
    }
}
