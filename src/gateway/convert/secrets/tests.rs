#![allow(clippy::unwrap_used)]

use tonic_types::StatusExt;

use super::*;

fn containers() -> FieldPath {
    FieldPath::root("sandbox").field("spec").field("containers")
}

fn mapping() -> FieldPath {
    containers()
        .index(0)
        .field("image_pull_credentials")
        .field("credentials")
}

fn stores() -> BTreeMap<String, StoreData> {
    let of = |pairs: &[(&str, &str)]| {
        Some(
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), ByteString(v.as_bytes().to_vec())))
                .collect(),
        )
    };
    let s = of(&[
        ("plain", "p"),
        ("json", r#"{"a":"p$ss","n":1}"#),
        ("login", r#"{"username":"u","password":"w"}"#),
        ("colon", "u:w:x"),
    ]);
    BTreeMap::from([("s".into(), s), ("gone".into(), None)])
}

fn lookup(path: &str, field: &str, usage: SecretUse) -> SecretLookup {
    SecretLookup {
        store_path: mapping().field("store_name"),
        path: mapping(),
        source: SecretSource {
            store: "s".into(),
            path: path.into(),
            field: field.into(),
        },
        usage,
    }
}

#[test]
fn fields_and_logins_are_copied_and_nothing_else() {
    let lookups = [
        lookup("plain", "", SecretUse::Reference),
        lookup("json", "a", SecretUse::Copy("value-0".into())),
        lookup("json", "n", SecretUse::Copy("value-1".into())),
        lookup("login", "", SecretUse::Registry("r.io".into())),
        lookup("colon", "", SecretUse::Registry("q.io".into())),
    ];
    let ResolvedSecrets { values, registries } = resolve(&containers(), &lookups, &stores()).unwrap();
    assert_eq!(
        values,
        BTreeMap::from([("value-0".into(), "p$ss".into()), ("value-1".into(), "1".into())])
    );
    let config: Value = serde_json::from_slice(&registries.unwrap()).unwrap();
    assert_eq!(
        config["auths"]["r.io"],
        json!({"username": "u", "password": "w", "auth": "dTp3"})
    );
    assert_eq!(config["auths"]["q.io"]["password"], "w:x");
}

#[test]
pub(crate) fn missing_secrets_are_named_and_values_are_not() {
    let wrong = [
        lookup("nothing", "", SecretUse::Reference),
        lookup("json", "b", SecretUse::Copy("k".into())),
        lookup("plain", "x", SecretUse::Copy("k".into())),
        lookup("plain", "", SecretUse::Registry("r.io".into())),
    ];
    for (lookup, part) in wrong.iter().zip([
        "path: must be a secret of the store \"s\"; there is no \"nothing\"",
        "field: must be a field of the secret \"json\"; there is no \"b\"",
        "there is no \"x\"",
        "username",
    ]) {
        let status = resolve(&containers(), std::slice::from_ref(lookup), &stores())
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains(part) && !status.message().contains("p$ss"),
            "{}",
            status.message()
        );
    }
    let status = resolve(&containers(), &wrong, &stores()).err().unwrap();
    assert_eq!(
        status.get_details_bad_request().unwrap().field_violations.len(),
        4,
        "all in one answer"
    );
    let mut elsewhere = lookup("x", "", SecretUse::Reference);
    for store in ["gone", "never read"] {
        elsewhere.source.store = store.into();
        let status = resolve(&containers(), std::slice::from_ref(&elsewhere), &stores())
            .err()
            .unwrap();
        assert_eq!(status.code(), Code::FailedPrecondition, "{store}");
    }
    let two = [
        lookup("login", "", SecretUse::Registry("r".into())),
        lookup("colon", "", SecretUse::Registry("r".into())),
    ];
    assert!(
        resolve(&containers(), &two, &stores())
            .err()
            .unwrap()
            .message()
            .contains("the same credentials")
    );
}

#[test]
pub(crate) fn copies_must_fit_into_a_secret() {
    let value = json!({"a": "x".repeat(MAX_SECRET_BYTES / 2 + 1)}).to_string();
    let data = BTreeMap::from([("large".to_owned(), ByteString(value.into_bytes()))]);
    let stores = BTreeMap::from([("s".to_owned(), Some(data))]);
    let copies = [
        lookup("large", "a", SecretUse::Copy("value-0".into())),
        lookup("large", "a", SecretUse::Copy("value-1".into())),
    ];
    assert!(resolve(&containers(), &copies[..1], &stores).is_ok());
    let status = resolve(&containers(), &copies, &stores).err().unwrap();
    assert!(
        status.message().starts_with("sandbox.spec.containers: "),
        "{}",
        status.message()
    );
}
