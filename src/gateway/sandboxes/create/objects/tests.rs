#![allow(clippy::unwrap_used)]

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use std::collections::BTreeMap;

use super::*;
use crate::gateway::convert::files::MAX_SECRET_BYTES;
use crate::gateway::convert::secrets::{self as lookups, StoreData};
use crate::gateway::convert::tests::{NAME, container, draft, message_of, minimum, with};
use crate::gateway::edge::caller::Caller;
use crate::proto::sandbox as pb;

fn spec_path() -> FieldPath {
    FieldPath::root("sandbox").field("spec")
}

fn caller() -> Caller {
    Caller::service_account("tenant", "bot")
}

fn request() -> CreateRequest {
    let caller = caller();
    let (mut request, _) = CreateRequest::from_create(&caller, pb::CreateSandboxRequest::default()).unwrap();
    request.key.name = NAME.into();
    request
}

/// A store with a plain secret, and one with fields.
fn stores() -> BTreeMap<String, StoreData> {
    let keys = [("TOKEN", "t0k"), ("login", r#"{"username":"u","password":"p$ss"}"#)];
    let keys = keys.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec())));
    BTreeMap::from([("store".into(), Some(BTreeMap::from(keys)))])
}

/// The Sandbox as the API server returns it, and its Secrets.
fn objects_of(spec: pb::SandboxSpec) -> (Sandbox, Vec<Secret>) {
    let draft = draft(spec).unwrap();
    let resolved = lookups::resolve(&spec_path().field("containers"), &draft.lookups, &stores()).unwrap();
    let mut sandbox = sandbox(&caller(), &request(), &spec_path(), &draft, &resolved).unwrap();
    sandbox.metadata.uid = Some("01234567-89ab-cdef-0123-456789abcdef".into());
    let sandbox = serde_json::from_value(serde_json::to_value(&sandbox).unwrap()).unwrap();
    let secrets = secrets(&sandbox, &draft, &resolved);
    (sandbox, secrets)
}

#[test]
fn a_sandbox_without_secrets_is_not_held() {
    let (sandbox, secrets) = objects_of(minimum());
    let annotations = sandbox.metadata.annotations.unwrap();
    assert!(!annotations.contains_key(ANNOTATION_HOLD) && annotations.contains_key(ANNOTATION_REQUEST));
    assert_eq!(annotations[ANNOTATION_CREATED_BY], "system:serviceaccount:tenant:bot");
    assert_eq!(secrets, []);
}

#[test]
fn files_go_into_secrets_that_the_sandbox_owns() {
    let file = |path: &str, size: usize| pb::FileMount {
        path: path.into(),
        content: vec![7; size].into(),
    };
    let spec = with(|s| {
        s.containers.push(pb::Container {
            working_dir: "/w".into(),
            files: vec![file("./c", MAX_SECRET_BYTES)],
            ..container("b")
        });
        s.containers[0].files = vec![
            file("/a//x", 1),
            file("train.py", MAX_SECRET_BYTES - 1),
            file("/empty", 0),
        ];
    });
    let (sandbox, secrets) = objects_of(spec);
    assert_eq!(sandbox.metadata.annotations.as_ref().unwrap()[ANNOTATION_HOLD], "files");
    let w = &sandbox.spec.workload;
    let of_sidecar = w.pod.sidecars.as_ref().unwrap()[0].container.files.as_ref().unwrap();
    let all: Vec<_> = w.container.files.iter().flatten().chain(of_sidecar).collect();
    assert_eq!(
        all.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["/a/x", "train.py", "/empty", "/w/c"]
    );
    for (f, size) in all.iter().zip([1, MAX_SECRET_BYTES - 1, 0, MAX_SECRET_BYTES]) {
        let key = f.secret_key_ref.as_ref().unwrap();
        let secret = secrets
            .iter()
            .find(|s| s.metadata.name.as_ref() == Some(&key.name))
            .unwrap();
        assert_eq!(secret.data.as_ref().unwrap()[&key.key].0.len(), size, "{}", f.path);
    }
    assert_eq!(secrets.len(), 2, "as few as possible");
    for secret in &secrets {
        let size: usize = secret.data.as_ref().unwrap().values().map(|v| v.0.len()).sum();
        assert!(size <= MAX_SECRET_BYTES);
        assert_eq!(
            secret.metadata.owner_references.as_ref().unwrap()[0].uid,
            sandbox.metadata.uid.clone().unwrap()
        );
    }
    assert!(
        serde_json::to_string(&sandbox).unwrap().len() < 4096,
        "no content in the Sandbox"
    );
    let returned = message_of(&sandbox).spec.unwrap();
    assert_eq!(returned.containers[0].files[1].path, "train.py");
    assert!(
        returned
            .containers
            .iter()
            .flat_map(|c| &c.files)
            .all(|f| f.content.is_empty())
    );
}

#[test]
fn secrets_are_references_or_copies_and_are_never_returned() {
    let mapping = |path: &str, field: &str, env_var: &str| pb::SecretMapping {
        path: path.into(),
        field: field.into(),
        env_var: env_var.into(),
    };
    let spec = with(|s| {
        s.containers[0].secret_stores = vec![pb::SecretStoreReference {
            store_name: "store".into(),
            secrets: vec![mapping("TOKEN", "", "TOKEN"), mapping("login", "password", "PASSWORD")],
        }];
        s.containers[0].image_pull_credentials = Some(pb::ImagePullCredentials {
            registry: "ghcr.io".into(),
            credentials: Some(pb::SecretSource {
                store_name: "store".into(),
                path: "login".into(),
                field: String::new(),
            }),
        });
    });
    let (sandbox, secrets) = objects_of(spec.clone());
    let w = &sandbox.spec.workload;
    let key = |i: usize| {
        w.container.env.as_ref().unwrap()[i]
            .value_from
            .as_ref()
            .unwrap()
            .secret_key_ref
            .clone()
            .unwrap()
    };
    assert_eq!((key(0).name.as_str(), key(0).key.as_str()), ("store", "TOKEN"));
    assert_eq!(key(1).name, format!("{NAME}-values"));
    let values = secrets
        .iter()
        .find(|s| s.metadata.name.as_ref() == Some(&key(1).name))
        .unwrap();
    assert_eq!(values.data.as_ref().unwrap()[&key(1).key].0, b"p$ss");
    let registry = &w.pod.image_pull_secrets.as_ref().unwrap()[0].name;
    let registry = secrets
        .iter()
        .find(|s| s.metadata.name.as_ref() == Some(registry))
        .unwrap();
    assert_eq!(registry.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    let returned = message_of(&sandbox);
    assert_eq!(
        returned.spec.as_ref().unwrap().containers[0].secret_stores,
        spec.containers[0].secret_stores
    );
    assert_eq!(
        returned.spec.as_ref().unwrap().containers[0].image_pull_credentials,
        spec.containers[0].image_pull_credentials
    );
    for text in [serde_json::to_string(&sandbox).unwrap(), format!("{returned:?}")] {
        assert!(!text.contains("p$ss") && !text.contains("t0k"));
    }
}

#[test]
pub(crate) fn a_sandbox_that_is_too_large_is_refused() {
    let draft = draft(with(|s| s.containers[0].args = vec!["x".repeat(131_000); 9])).unwrap();
    let status = sandbox(&caller(), &request(), &spec_path(), &draft, &ResolvedSecrets::default()).unwrap_err();
    assert!(
        status
            .message()
            .starts_with("sandbox.spec: must have at most 1048576 bytes"),
        "{}",
        status.message()
    );
}
