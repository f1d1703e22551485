//! Environment variables: those with a value, and those that take it from a secret store.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};
use std::collections::BTreeMap;

use super::draft::Draft;
use super::problems::Problems;
use super::request_metadata::SecretSource;
use super::secrets::{SecretLookup, SecretUse};
use super::text::{self, escape, quoted};
use crate::api::FieldPath;
use crate::proto::sandbox as pb;
use crate::resources::names;

/// Most variables of a container.
const MAX_VARIABLES: usize = 512;

/// The environment of the container at `path`. `container`: its name in the pod.
pub(crate) fn from_proto(
    path: &FieldPath,
    container: &str,
    variables: BTreeMap<String, String>,
    stores: Vec<pb::SecretStoreReference>,
    draft: &mut Draft,
    problems: &mut Problems,
) -> Vec<EnvVar> {
    let variables_path = path.field("environment_variables");
    let from_stores: usize = stores.iter().map(|s| s.secrets.len()).sum();
    let count = variables.len() + from_stores;
    if count > MAX_VARIABLES {
        let text = format!("must have at most {MAX_VARIABLES} items together with secret_stores, not {count}");
        problems.invalid(&variables_path, text);
    }
    let mut env = vec![];
    for (name, value) in variables {
        let path = variables_path.key(&name);
        problems.check(&path, text::variable_name_error(&name));
        problems.check(&path, text::variable_error(&name, &value));
        env.push(EnvVar {
            name,
            value: Some(escape(&value)),
            value_from: None,
        });
    }
    for (i, reference) in stores.into_iter().enumerate() {
        let path = path.field("secret_stores").index(i);
        let pb::SecretStoreReference { store_name, secrets } = reference;
        for (j, mapping) in secrets.into_iter().enumerate() {
            let paths = (path.field("store_name"), path.field("secrets").index(j));
            let variable = from_secret(paths, container, &store_name, mapping, draft, problems);
            if env.iter().any(|e| e.name == variable.name) {
                let text = format!("duplicate variable {}", quoted(&variable.name));
                problems.invalid(&path.field("secrets").index(j).field("env_var"), text);
            }
            env.push(variable);
        }
    }
    env
}

/// A variable that refers to a key of the store. The value of a field of a key is copied to a Secret of the sandbox.
fn from_secret(
    (store_path, path): (FieldPath, FieldPath),
    container: &str,
    store: &str,
    mapping: pb::SecretMapping,
    draft: &mut Draft,
    problems: &mut Problems,
) -> EnvVar {
    let pb::SecretMapping {
        path: key,
        field,
        env_var,
    } = mapping;
    let name = if env_var.is_empty() { key.clone() } else { env_var };
    problems.check(&path.field("env_var"), text::variable_name_error(&name));
    let source = SecretSource {
        store: store.into(),
        path: key,
        field,
    };
    let (usage, secret, key) = if source.field.is_empty() {
        (SecretUse::Reference, source.store.clone(), source.path.clone())
    } else {
        let key = format!("value-{}", draft.lookups.len());
        let copied = draft.metadata.values.entry(container.into()).or_default();
        copied.insert(name.clone(), source.clone());
        (SecretUse::Copy(key.clone()), names::values_secret(&draft.name), key)
    };
    draft.lookups.push(SecretLookup {
        store_path,
        path,
        source,
        usage,
    });
    EnvVar {
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
    }
}
