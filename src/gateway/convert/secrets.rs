//! Secret stores: what a request takes from them, and what becomes of it once they are read. Values never leave the Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tonic::{Code, Status};

use super::facts::Source;
use super::files::MAX_SECRET_BYTES;
use super::problems::Problems;
use super::text::quoted;
use crate::gateway::error::reason;

/// Something that a request takes from a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Path of the field in the request.
    pub at: String,
    /// Where it lies.
    pub source: Source,
    /// What for.
    pub purpose: Purpose,
}

/// What a secret is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A variable that refers to the store: the key must be there, and nothing is copied.
    Reference,
    /// A variable whose value is a member of a secret: it is copied to this key of a Secret of the sandbox's own.
    Member(String),
    /// Credentials of this registry.
    Registry(String),
}

/// What the stores had.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Values of variables by the keys of the Secret that they go into.
    pub values: BTreeMap<String, Bytes>,
    /// Content of the image pull Secret, in Docker's format.
    pub registries: Option<Bytes>,
}

/// The keys of a store; none: there is no such store.
pub type Store = Option<BTreeMap<String, ByteString>>;

/// Names of the stores that have to be read.
pub fn stores(needs: &[Need]) -> BTreeSet<&str> {
    needs.iter().map(|n| n.source.store.as_str()).collect()
}

/// Takes what is needed from the stores.
///
/// # Errors
/// INVALID_ARGUMENT for keys and members that are not there, FAILED_PRECONDITION for a store that is not.
pub fn resolve(needs: &[Need], stores: &BTreeMap<String, Store>) -> Result<Resolved, Status> {
    let (mut problems, mut resolved, mut auths) = (Problems::default(), Resolved::default(), BTreeMap::new());
    for need in needs {
        let Source { store, path, field } = &need.source;
        let Some(keys) = stores.get(store).and_then(Option::as_ref) else {
            let text = format!("there is no secret store {}", quoted(store));
            problems.refuse(Code::FailedPrecondition, reason::SECRET_STORE_NOT_PROVISIONED, &need.at, &text);
            continue;
        };
        let Some(whole) = keys.get(path) else {
            problems.wrong(&need.at, format!("the store {} has no secret {}", quoted(store), quoted(path)));
            continue;
        };
        let value = match field.as_str() {
            "" => Some(Value::String(String::from_utf8_lossy(&whole.0).into_owned())),
            name => serde_json::from_slice(&whole.0).ok().and_then(|v: Value| v.get(name).cloned()),
        };
        let Some(value) = value.filter(|v| !v.is_null()) else {
            let text = format!(
                "the secret {} of the store {} has no field {}",
                quoted(path),
                quoted(store),
                quoted(field)
            );
            problems.wrong(&need.at, text);
            continue;
        };
        match &need.purpose {
            Purpose::Reference => {}
            Purpose::Member(key) => drop(resolved.values.insert(key.clone(), text_of(value).into())),
            Purpose::Registry(registry) => match login(value) {
                None => problems.wrong(
                    &need.at,
                    "the secret is neither an object with username and password nor username:password",
                ),
                Some(login) if auths.get(registry).is_some_and(|other| *other != login) => {
                    problems.wrong(&need.at, format!("other credentials of {} are given too", quoted(registry)));
                }
                Some(login) => drop(auths.insert(registry.clone(), login)),
            },
        }
    }
    let size: usize = resolved.values.values().map(Bytes::len).sum();
    if size > MAX_SECRET_BYTES {
        problems.wrong(
            "sandbox.spec.containers[].secret_stores",
            format!("the values are {size} bytes; they may be {MAX_SECRET_BYTES}"),
        );
    }
    problems.result()?;
    resolved.registries = (!auths.is_empty()).then(|| json!({"auths": auths}).to_string().into());
    Ok(resolved)
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stores() -> BTreeMap<String, Store> {
        let of = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(k, v)| ((*k).into(), ByteString(v.as_bytes().to_vec()))).collect());
        let s = of(&[
            ("plain", "p"),
            ("json", r#"{"a":"p$ss","n":1}"#),
            ("login", r#"{"username":"u","password":"w"}"#),
            ("colon", "u:w:x"),
        ]);
        BTreeMap::from([("s".into(), s), ("gone".into(), None)])
    }

    fn need(path: &str, field: &str, purpose: Purpose) -> Need {
        Need {
            at: "f".into(),
            source: Source {
                store: "s".into(),
                path: path.into(),
                field: field.into(),
            },
            purpose,
        }
    }

    #[test]
    fn values_and_logins_are_taken_and_nothing_else() {
        let needs = [
            need("plain", "", Purpose::Reference),
            need("json", "a", Purpose::Member("value-0".into())),
            need("json", "n", Purpose::Member("value-1".into())),
            need("login", "", Purpose::Registry("r.io".into())),
            need("colon", "", Purpose::Registry("q.io".into())),
        ];
        let Resolved { values, registries } = resolve(&needs, &stores()).unwrap();
        assert_eq!(
            values,
            BTreeMap::from([("value-0".into(), "p$ss".into()), ("value-1".into(), "1".into())])
        );
        let config: Value = serde_json::from_slice(&registries.unwrap()).unwrap();
        assert_eq!(config["auths"]["r.io"], json!({"username": "u", "password": "w", "auth": "dTp3"}));
        assert_eq!(config["auths"]["q.io"]["password"], "w:x");
    }

    #[test]
    fn what_is_missing_is_named_and_no_value_is() {
        let wrong = [
            need("nothing", "", Purpose::Reference),
            need("json", "b", Purpose::Member("k".into())),
            need("plain", "x", Purpose::Member("k".into())),
            need("plain", "", Purpose::Registry("r.io".into())),
        ];
        for (need, part) in wrong
            .iter()
            .zip(["no secret \"nothing\"", "no field \"b\"", "no field \"x\"", "username"])
        {
            let status = resolve(std::slice::from_ref(need), &stores()).err().unwrap();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(
                status.message().contains(part) && !status.message().contains("p$ss"),
                "{}",
                status.message()
            );
        }
        assert_eq!(
            resolve(&wrong, &stores()).err().unwrap().message().matches("f: ").count(),
            4,
            "all at once"
        );
        let mut elsewhere = need("x", "", Purpose::Reference);
        for store in ["gone", "never read"] {
            elsewhere.source.store = store.into();
            let status = resolve(std::slice::from_ref(&elsewhere), &stores()).err().unwrap();
            assert_eq!(status.code(), Code::FailedPrecondition, "{store}");
        }
        let two = [
            need("login", "", Purpose::Registry("r".into())),
            need("colon", "", Purpose::Registry("r".into())),
        ];
        assert!(resolve(&two, &stores()).err().unwrap().message().contains("other credentials"));
    }
}
