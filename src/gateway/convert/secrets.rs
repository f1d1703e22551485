//! Secret stores: what a request takes from them, and what it becomes once they are read. Values never leave the
//! Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tonic::{Code, Status};

use super::files::MAX_SECRET_BYTES;
use super::problems::Problems;
use super::request_metadata::SecretSource;
use super::text::quoted;
use crate::api::FieldPath;
use crate::gateway::error::reason;

/// A secret that a request takes from a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretLookup {
    /// Where the request names the store.
    pub(crate) store_path: FieldPath,
    /// Where the request names the key and its field.
    pub(crate) path: FieldPath,
    pub(crate) source: SecretSource,
    pub(crate) usage: SecretUse,
}

/// What a secret is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretUse {
    /// A variable refers to the key of the store. The key must exist; nothing is copied.
    Reference,
    /// A variable has a field of the value. The field is copied to this key of a Secret that the sandbox owns.
    Copy(String),
    /// Credentials of this registry.
    Registry(String),
}

/// The secrets of a request once the stores are read.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedSecrets {
    /// Values of variables by the keys of the Secret that holds them.
    pub(crate) values: BTreeMap<String, Bytes>,
    /// Content of the image pull Secret, in Docker's format.
    pub(crate) registries: Option<Bytes>,
}

/// The data of a store; none if there is no such store.
pub(crate) type StoreData = Option<BTreeMap<String, ByteString>>;

/// The names of the stores to read.
pub(crate) fn store_names(lookups: &[SecretLookup]) -> BTreeSet<&str> {
    lookups.iter().map(|l| l.source.store.as_str()).collect()
}

/// Resolves the secrets of a request. `containers`: the containers of the request.
///
/// # Errors
/// INVALID_ARGUMENT for keys and fields that do not exist, FAILED_PRECONDITION for a store that does not.
pub(crate) fn resolve(
    containers: &FieldPath,
    lookups: &[SecretLookup],
    stores: &BTreeMap<String, StoreData>,
) -> Result<ResolvedSecrets, Status> {
    let (mut problems, mut resolved, mut auths) = (Problems::default(), ResolvedSecrets::default(), BTreeMap::new());
    for lookup in lookups {
        let Some(value) = value_of(lookup, stores, &mut problems) else {
            continue;
        };
        match &lookup.usage {
            SecretUse::Reference => {}
            SecretUse::Copy(key) => drop(resolved.values.insert(key.clone(), text_of(value).into())),
            SecretUse::Registry(registry) => match login(value) {
                None => {
                    let text = "must be an object with username and password, or username:password";
                    problems.invalid(&lookup.path.field("path"), text);
                }
                Some(login) if auths.get(registry).is_some_and(|other| *other != login) => {
                    let text = format!("must be the same credentials of {} in all containers", quoted(registry));
                    problems.invalid(&lookup.path, text);
                }
                Some(login) => drop(auths.insert(registry.clone(), login)),
            },
        }
    }
    let size: usize = resolved.values.values().map(Bytes::len).sum();
    if size > MAX_SECRET_BYTES {
        let text = format!("fields of secret_stores must have at most {MAX_SECRET_BYTES} bytes in total, not {size}");
        problems.invalid(containers, text);
    }
    problems.into_result()?;
    resolved.registries = (!auths.is_empty()).then(|| json!({"auths": auths}).to_string().into());
    Ok(resolved)
}

fn value_of(lookup: &SecretLookup, stores: &BTreeMap<String, StoreData>, problems: &mut Problems) -> Option<Value> {
    let SecretSource { store, path, field } = &lookup.source;
    let Some(data) = stores.get(store).and_then(Option::as_ref) else {
        let text = format!("there is no secret store {}", quoted(store));
        problems.refuse(
            Code::FailedPrecondition,
            reason::SECRET_STORE_NOT_PROVISIONED,
            &lookup.store_path,
            &text,
        );
        return None;
    };
    let Some(whole) = data.get(path) else {
        let text = format!(
            "must be a secret of the store {}; there is no {}",
            quoted(store),
            quoted(path)
        );
        problems.invalid(&lookup.path.field("path"), text);
        return None;
    };
    let value = match field.as_str() {
        "" => Some(Value::String(String::from_utf8_lossy(&whole.0).into_owned())),
        name => serde_json::from_slice(&whole.0)
            .ok()
            .and_then(|v: Value| v.get(name).cloned()),
    };
    let value = value.filter(|v| !v.is_null());
    if value.is_none() {
        let text = format!(
            "must be a field of the secret {}; there is no {}",
            quoted(path),
            quoted(field)
        );
        problems.invalid(&lookup.path.field("field"), text);
    }
    value
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A registry's entry in Docker's configuration file.
fn login(value: Value) -> Option<Value> {
    let value = match &value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    };
    let (user, password) = match &value {
        Value::String(text) => text.split_once(':')?,
        object => (object.get("username")?.as_str()?, object.get("password")?.as_str()?),
    };
    let auth = STANDARD.encode(format!("{user}:{password}"));
    Some(json!({"username": user, "password": password, "auth": auth}))
}

#[cfg(test)]
pub(super) mod tests;
