//! Containers: one is the main one, whose end is the sandbox's; the others are sidecars.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};
use std::collections::BTreeSet;

use super::facts::{Registry, Source};
use super::problems::Problems;
use super::request::Draft;
use super::resources::Labels;
use super::secrets::{Need, Purpose};
use super::text::{self, escape, quoted};
use super::{files, resources, security, volumes};
use crate::api::{Container, Entrypoint, Sidecar, Workload};
use crate::gateway::config::Config;
use crate::proto::sandbox as pb;
use crate::resources::names;
use crate::resources::pod_containers::MAIN;

/// Puts the containers of a request in place of the draft's. With none the draft keeps those that it has.
pub fn put(draft: &mut Draft, containers: Vec<pb::Container>, config: &Config, problems: &mut Problems) {
    if containers.is_empty() {
        return;
    }
    clear(&mut draft.workload);
    let main = main_index(&containers, problems);
    let names = names_of(&containers, main, problems);
    let mut sidecars = vec![];
    for (i, (container, name)) in containers.into_iter().zip(names).enumerate() {
        let at = format!("sandbox.spec.containers[{i}]");
        let place = if i == main { MAIN } else { &name };
        let image = given(container.image.clone());
        let container = one(draft, &at, place, container, config, problems);
        if i == main {
            let w = &mut draft.workload;
            w.entrypoint = container.command.is_none().then_some(Entrypoint::Image);
            (w.container_image, w.container) = (image, container);
            draft.main_name = (name != MAIN).then_some(name);
        } else {
            if image.is_none() {
                problems.wrong(format!("{at}.image"), "is required");
            }
            let image = image.unwrap_or_default();
            sidecars.push(Sidecar { name, image, container });
        }
    }
    draft.workload.pod.sidecars = some(sidecars);
}

/// Takes a template's containers away: a request's replace them as a whole.
fn clear(w: &mut Workload) {
    w.pod.volumes.iter_mut().flatten().for_each(|v| {
        (v.mount_path, v.sub_path, v.read_only) = (None, None, None);
    });
    (w.container_image, w.entrypoint, w.container) = (None, None, Container::default());
    (w.pod.image_pull_secrets, w.pod.sidecars) = (None, None);
}

fn main_index(containers: &[pb::Container], problems: &mut Problems) -> usize {
    let mut primary = (0..containers.len()).filter(|i| containers[*i].primary == Some(true));
    let first = primary.next();
    if let Some(second) = primary.next() {
        problems.wrong(
            format!("sandbox.spec.containers[{second}].primary"),
            "only one container is the primary one",
        );
    }
    first.unwrap_or_default()
}

/// Names as given; those without one get one.
fn names_of(containers: &[pb::Container], main: usize, problems: &mut Problems) -> Vec<String> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut all = vec![];
    for (i, container) in containers.iter().enumerate() {
        let at = format!("sandbox.spec.containers[{i}].name");
        let name = match (container.name.as_str(), i == main) {
            ("", true) => MAIN.to_owned(),
            ("", false) => format!("container-{i}"),
            (given, _) => given.to_owned(),
        };
        problems.check(&at, text::dns_label(&name));
        if name.starts_with("sandbox-operator") || (name == MAIN && i != main) {
            problems.wrong(&at, format!("{} is reserved", quoted(&name)));
        }
        if !seen.insert(name.clone()) {
            problems.wrong(&at, format!("{} is there twice", quoted(&name)));
        }
        all.push(name);
    }
    all
}

/// All but its name and image. `place`: the name that the container has in the pod.
fn one(draft: &mut Draft, at: &str, place: &str, container: pb::Container, config: &Config, problems: &mut Problems) -> Container {
    let pb::Container {
        name: _,
        image,
        command,
        args,
        environment_variables,
        resources,
        files,
        volume_mounts,
        secret_stores,
        working_dir,
        resource_requirements,
        security_context,
        image_pull_credentials,
        primary: _,
        startup_probe,
    } = container;
    problems.unsupported(format!("{at}.startup_probe"), startup_probe.is_some());
    if image.len() > 1024 || image.contains(char::is_whitespace) {
        problems.wrong(format!("{at}.image"), "must have at most 1024 bytes, and no blanks");
    }
    if !(working_dir.is_empty() || working_dir.starts_with('/')) {
        problems.wrong(format!("{at}.working_dir"), "must be absolute");
    }
    problems.check(format!("{at}.working_dir"), text::no_nul(&working_dir));
    problems.check(format!("{at}.command"), text::no_nul(&command));
    for (i, arg) in args.iter().enumerate() {
        problems.check(format!("{at}.args[{i}]"), text::no_nul(arg));
    }
    let (resources, labels) = resources::from_proto(at, resources.as_ref(), resource_requirements.as_ref(), &config.gpus, problems);
    select_nodes(draft, at, labels, problems);
    let mut taken = BTreeSet::new();
    let mounts = volumes::mounts(at, volume_mounts, &mut taken, problems);
    let file_place = files::Place {
        at,
        sandbox: &draft.name,
        working_dir: &working_dir,
        has_agent: !command.is_empty(),
    };
    let files = files::from_proto(&file_place, files, &mut taken, &mut draft.contents, problems);
    let mut env: Vec<EnvVar> = vec![];
    for (name, value) in environment_variables {
        let at = format!("{at}.environment_variables");
        problems.check(&at, text::variable(&name));
        problems.check(format!("{at}[{}]", quoted(&name)), text::no_nul(&value));
        env.push(EnvVar {
            name,
            value: Some(escape(&value)),
            value_from: None,
        });
    }
    secret_env(draft, at, place, secret_stores, &mut env, problems);
    if let Some(credentials) = image_pull_credentials {
        pull_credentials(draft, at, place, credentials, problems);
    }
    let security = security::from_proto(&format!("{at}.security_context"), security_context.as_ref(), problems);
    Container {
        command: given(command).map(|c| vec![escape(&c)]),
        args: some(args.iter().map(|a| escape(a)).collect()),
        working_dir: given(working_dir),
        env: some(env),
        resources,
        security_profile: security.profile,
        run_as_user: security.user,
        run_as_group: security.group,
        read_only_root_filesystem: security.read_only_root,
        files: some(files),
        mounts: some(mounts),
        // What no request can say.
        ..Container::default()
    }
}

/// A pod runs on one node, so that all its containers must agree.
fn select_nodes(draft: &mut Draft, at: &str, labels: Labels, problems: &mut Problems) {
    for (key, value) in labels {
        let node = draft.workload.pod.node_selector.get_or_insert_default();
        let other = node.insert(key, value.clone());
        if other.is_some_and(|other| other != value) {
            problems.no_runner(
                &format!("{at}.resource_requirements.limits.gpu"),
                "no node has all the GPUs that were asked for",
            );
        }
    }
}

fn secret_env(draft: &mut Draft, at: &str, place: &str, stores: Vec<pb::SecretStoreReference>, env: &mut Vec<EnvVar>, problems: &mut Problems) {
    for (i, reference) in stores.into_iter().enumerate() {
        let pb::SecretStoreReference { store_name, secrets } = reference;
        for (j, mapping) in secrets.into_iter().enumerate() {
            let at = format!("{at}.secret_stores[{i}].secrets[{j}]");
            let pb::SecretMapping { path, field, env_var } = mapping;
            let name = if env_var.is_empty() { path.clone() } else { env_var };
            problems.check(format!("{at}.env_var"), text::variable(&name));
            if env.iter().any(|e| e.name == name) {
                problems.wrong(format!("{at}.env_var"), format!("{} is set twice", quoted(&name)));
            }
            let source = Source {
                store: store_name.clone(),
                path,
                field,
            };
            let (purpose, secret, key) = if source.field.is_empty() {
                (Purpose::Reference, source.store.clone(), source.path.clone())
            } else {
                let key = format!("value-{}", draft.needs.len());
                draft.facts.values.entry(place.into()).or_default().insert(name.clone(), source.clone());
                (Purpose::Member(key.clone()), names::values_secret(&draft.name), key)
            };
            draft.needs.push(Need { at, source, purpose });
            env.push(EnvVar {
                name,
                value: None,
                value_from: Some(EnvVarSource {
                    secret_key_ref: Some(SecretKeySelector {
                        name: secret,
                        key,
                        optional: None,
                    }),
                    ..EnvVarSource::default()
                }),
            });
        }
    }
}

fn pull_credentials(draft: &mut Draft, at: &str, place: &str, credentials: pb::ImagePullCredentials, problems: &mut Problems) {
    let at = format!("{at}.image_pull_credentials");
    let pb::ImagePullCredentials { registry, credentials } = credentials;
    let pb::SecretSource { store_name, path, field } = credentials.unwrap_or_default();
    if registry.is_empty() {
        problems.wrong(format!("{at}.registry"), "is required");
    }
    let source = Source {
        store: store_name,
        path,
        field,
    };
    draft.needs.push(Need {
        at: format!("{at}.credentials"),
        source: source.clone(),
        purpose: Purpose::Registry(registry.clone()),
    });
    draft.facts.registries.insert(place.into(), Registry { registry, source });
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// What an override of a template says about a container is a whole container: both messages have the same fields.
pub fn whole(partial: pb::PartialContainer) -> pb::Container {
    let pb::PartialContainer {
        name,
        image,
        command,
        args,
        environment_variables,
        resources,
        files,
        volume_mounts,
        secret_stores,
        working_dir,
        resource_requirements,
        security_context,
        image_pull_credentials,
        primary,
        startup_probe,
    } = partial;
    pb::Container {
        name,
        image,
        command,
        args,
        environment_variables,
        resources,
        files,
        volume_mounts,
        secret_stores,
        working_dir,
        resource_requirements,
        security_context,
        image_pull_credentials,
        primary,
        startup_probe,
    }
}
