//! The fields in effect: the sandbox's own, then its session's defaults, then the operator's.

use super::settings::Settings;
use crate::api::{FieldPath, Lifecycle, Sandbox, SandboxSession, Workload, limits};

/// A sandbox's fields after defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The sandbox's own, the session's and the operator's fields, merged.
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
    /// Merges the fields. `session`: the sandbox's session, if it has one and it is known.
    pub fn new(sandbox: &Sandbox, session: Option<&SandboxSession>, settings: &Settings) -> Effective {
        let mut workload = match session.and_then(|s| s.spec.defaults.as_ref()) {
            Some(defaults) => sandbox.spec.workload.clone().or(defaults.clone()),
            None => sandbox.spec.workload.clone(),
        };
        settings.defaults.complete(&mut workload);
        let Lifecycle {
            max_lifetime_seconds,
            start_timeout_seconds,
            termination_grace_period_seconds,
            ttl_seconds_after_finished,
        } = workload.lifecycle;
        let mut tags = workload.tags.clone().unwrap_or_default();
        tags.sort();
        tags.dedup();
        Effective {
            image: workload
                .container_image
                .clone()
                .unwrap_or_else(|| settings.defaults.container_image.clone()),
            lifetime: max_lifetime_seconds
                .unwrap_or(settings.defaults.max_lifetime_seconds)
                .min(limits::MAX_LIFETIME_SECONDS),
            grace: termination_grace_period_seconds.unwrap_or(limits::DEFAULT_GRACE_SECONDS),
            start_timeout: start_timeout_seconds.unwrap_or(limits::DEFAULT_START_TIMEOUT_SECONDS),
            ttl: ttl_seconds_after_finished.unwrap_or(limits::DEFAULT_TTL_SECONDS),
            tags,
            workload,
        }
    }
}

/// The path of one of the sandbox's fields in the document that it comes from: the sandbox's own, or its session's.
pub(super) fn path_of(sandbox: &Sandbox, field: &str) -> FieldPath {
    let own = serde_json::to_value(&sandbox.spec).is_ok_and(|spec| spec.get(field).is_some());
    root(sandbox, own).field(field)
}

/// As [`path_of`] for one variable, since `env` is merged by name.
pub(super) fn env_path(sandbox: &Sandbox, name: &str) -> FieldPath {
    let own = sandbox
        .spec
        .workload
        .container
        .env
        .iter()
        .flatten()
        .any(|e| e.name == name);
    root(sandbox, own).field("env").item("name", name)
}

fn root(sandbox: &Sandbox, own: bool) -> FieldPath {
    match &sandbox.spec.session_name {
        Some(session) if !own => FieldPath::root("spec.defaults").of(format!("SandboxSession {session}")),
        _ => FieldPath::root("spec"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Container, SandboxSessionSpec, SandboxSpec};
    use k8s_openapi::api::core::v1::EnvVar;

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
            container: Container {
                env: env(&[("A", "own"), ("C", "3")]),
                ..Container::default()
            },
            tags: Some(vec!["x".into(), "y".into()]),
            lifecycle: Lifecycle {
                max_lifetime_seconds: Some(5),
                ..Lifecycle::default()
            },
            ..Workload::default()
        };
        let defaults = Workload {
            container: Container {
                env: env(&[("A", "theirs"), ("B", "2")]),
                ..Container::default()
            },
            tags: Some(vec!["y".into(), "z".into()]),
            lifecycle: Lifecycle {
                max_lifetime_seconds: Some(9),
                ..Lifecycle::default()
            },
            container_image: Some("busybox".into()),
            ..Workload::default()
        };
        let e = effective(own, defaults);
        assert_eq!(e.workload.container.env, env(&[("B", "2"), ("A", "own"), ("C", "3")]));
        assert_eq!(e.tags, ["x", "y", "z"]);
        assert_eq!((e.lifetime, e.image.as_str()), (5, "busybox"));
    }

    #[test]
    fn a_command_of_the_sandbox_does_not_get_the_sessions_args() {
        let workload = |command: &str, args: Option<&str>| Workload {
            container: Container {
                command: Some(vec![command.into()]),
                args: args.map(|a| vec![a.into()]),
                ..Container::default()
            },
            ..Workload::default()
        };
        assert_eq!(
            effective(workload("ls", None), workload("sh", Some("-c"))).workload,
            workload("ls", None)
        );
    }

    #[test]
    fn unset_fields_get_the_operators_defaults() {
        let e = effective(Workload::default(), Workload::default());
        assert_eq!(
            (e.image.as_str(), e.lifetime, e.grace, e.start_timeout, e.ttl),
            ("python:3.11", 86_400, 10, 300, 86_400)
        );
    }
}
