//! One container, whether it is the main one or not.

use std::collections::BTreeSet;

use super::context::ConvertContext;
use super::draft::Draft;
use super::env;
use super::files::{self, FileContext};
use super::problems::Problems;
use super::request_metadata::{RegistryCredentials, SecretSource};
use super::resources::{self, Labels};
use super::secrets::{SecretLookup, SecretUse};
use super::security;
use super::text::{self, escape, non_empty};
use super::volumes;
use crate::api::Container;
use crate::api::FieldPath;
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::MAIN;

const MAX_ARGS: usize = 1024;
const MAX_FILES_OF_MAIN: usize = 128;
/// Most files of an additional container.
const MAX_FILES: usize = 64;
const MAX_WORKING_DIR_BYTES: usize = 4096;

/// Converts one container, without its name and image. `name`: its name in the pod.
pub(crate) fn from_proto(
    path: &FieldPath,
    name: &str,
    container: pb::Container,
    draft: &mut Draft,
    context: &ConvertContext<'_>,
    problems: &mut Problems,
) -> Container {
    let pb::Container {
        name: _,
        image: _,
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
    problems.unsupported(&path.field("startup_probe"), startup_probe.is_some());
    check_working_dir(&path.field("working_dir"), &working_dir, problems);
    problems.check(&path.field("command"), text::argument_error(&command));
    problems.at_most(&path.field("args"), args.len(), MAX_ARGS);
    for (i, arg) in args.iter().enumerate() {
        problems.check(&path.field("args").index(i), text::argument_error(arg));
    }
    let strings = std::iter::once(&command).chain(&args).map(String::len);
    let variables = environment_variables
        .iter()
        .map(|(name, value)| name.len() + 1 + value.len());
    if let Some(error) = text::exec_total_error(strings.chain(variables)) {
        problems.invalid(path, format!("command, args and environment_variables {error}"));
    }
    let (resources, labels) =
        resources::from_proto(path, resources, resource_requirements, &context.config.gpus, problems);
    apply_node_labels(draft, path, labels, problems);
    let declared: BTreeSet<&str> = draft
        .workload
        .pod
        .volumes
        .iter()
        .flatten()
        .map(|v| v.name.as_str())
        .collect();
    let mut taken = BTreeSet::new();
    let mounts = volumes::mounts_from_proto(
        &path.field("volume_mounts"),
        volume_mounts,
        &declared,
        &mut taken,
        problems,
    );
    let file_context = FileContext {
        sandbox: &draft.name,
        working_dir: &working_dir,
        has_agent: !command.is_empty(),
        max_files: if name == MAIN { MAX_FILES_OF_MAIN } else { MAX_FILES },
    };
    let files = files::from_proto(
        &path.field("files"),
        files,
        &file_context,
        &mut taken,
        &mut draft.contents,
        problems,
    );
    let env = env::from_proto(path, name, environment_variables, secret_stores, draft, problems);
    if let Some(credentials) = image_pull_credentials {
        apply_pull_credentials(
            draft,
            &path.field("image_pull_credentials"),
            name,
            credentials,
            problems,
        );
    }
    let security = security::from_proto(&path.field("security_context"), security_context, problems);
    Container {
        command: non_empty(command).map(|c| vec![escape(&c)]),
        args: non_empty(args.iter().map(|a| escape(a)).collect::<Vec<_>>()),
        working_dir: non_empty(working_dir),
        env: non_empty(env),
        // The API has no such field.
        env_from: None,
        resources,
        security_profile: security.profile,
        run_as_user: security.user,
        run_as_group: security.group,
        read_only_root_filesystem: security.read_only_root,
        files: non_empty(files),
        mounts: non_empty(mounts),
    }
}

fn check_working_dir(path: &FieldPath, directory: &str, problems: &mut Problems) {
    if !(directory.is_empty() || directory.starts_with('/')) {
        problems.invalid(path, "must be an absolute path");
    }
    if directory.len() > MAX_WORKING_DIR_BYTES {
        problems.invalid(path, format!("must have at most {MAX_WORKING_DIR_BYTES} bytes"));
    }
    problems.check(path, text::nul_error(directory));
}

/// A pod runs on one node, so that all its containers must agree on its labels.
fn apply_node_labels(draft: &mut Draft, path: &FieldPath, labels: Labels, problems: &mut Problems) {
    for (key, value) in labels {
        let node = draft.workload.pod.node_selector.get_or_insert_default();
        let other = node.insert(key, value.clone());
        if other.is_some_and(|other| other != value) {
            problems.no_suitable_runner(path, "no node has all GPUs that the containers request");
        }
    }
}

fn apply_pull_credentials(
    draft: &mut Draft,
    path: &FieldPath,
    name: &str,
    credentials: pb::ImagePullCredentials,
    problems: &mut Problems,
) {
    let pb::ImagePullCredentials { registry, credentials } = credentials;
    let pb::SecretSource {
        store_name,
        path: key,
        field,
    } = credentials.unwrap_or_default();
    if registry.is_empty() {
        problems.invalid(&path.field("registry"), "is required");
    }
    let source = SecretSource {
        store: store_name,
        path: key,
        field,
    };
    let credentials_path = path.field("credentials");
    draft.lookups.push(SecretLookup {
        store_path: credentials_path.field("store_name"),
        path: credentials_path,
        source: source.clone(),
        usage: SecretUse::Registry(registry.clone()),
    });
    let credentials = RegistryCredentials { registry, source };
    draft.metadata.registries.insert(name.into(), credentials);
}
