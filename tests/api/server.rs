//! The API server under test, and how an answer is compared with what is expected of it.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Client, Config};
use sandbox_operator::api::crds;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Accepted, or refused with a message that has this in it.
pub type Expected<'a> = Result<(), &'a str>;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Sandbox,
    Session,
    Template,
}

impl Kind {
    fn word(self) -> (&'static str, &'static str) {
        match self {
            Kind::Sandbox => ("Sandbox", "sandboxes"),
            Kind::Session => ("SandboxSession", "sandboxsessions"),
            Kind::Template => ("SandboxTemplate", "sandboxtemplates"),
        }
    }

    pub fn object(self, metadata: Value, spec: Value) -> Value {
        json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": self.word().0, "metadata": metadata, "spec": spec})
    }
}

pub struct Server {
    client: Client,
    namespace: String,
}

impl Server {
    pub async fn new(name: &str) -> Server {
        definitions().await;
        let client = Client::try_default().await.unwrap();
        let namespace = format!("api-test-{name}-{}", std::process::id());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        Server { client, namespace }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The same namespace, seen by a user who may use sandboxes, sessions and templates there and nothing else.
    pub async fn as_tenant(&self) -> Server {
        let metadata = json!({"name": "tenant", "namespace": self.namespace});
        let rules = json!([{"apiGroups": ["sandbox-operator.dev"], "resources": ["*"], "verbs": ["*"]}]);
        let role: Role = serde_json::from_value(json!({"metadata": metadata, "rules": rules})).unwrap();
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant"}],
        }))
        .unwrap();
        let params = PostParams::default();
        let roles: Api<Role> = Api::namespaced(self.client.clone(), &self.namespace);
        roles.create(&params, &role).await.unwrap();
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        bindings.create(&params, &binding).await.unwrap();
        let mut config = Config::infer().await.unwrap();
        config.auth_info.impersonate = Some("tenant".into());
        Server {
            client: Client::try_from(config).unwrap(),
            namespace: self.namespace.clone(),
        }
    }

    pub async fn gone(self) {
        let namespaces = Api::<Namespace>::all(self.client);
        namespaces
            .delete(&self.namespace, &DeleteParams::background())
            .await
            .unwrap();
    }

    fn url(&self, kind: Kind) -> Request {
        Request::new(format!(
            "/apis/sandbox-operator.dev/v1alpha1/namespaces/{}/{}",
            self.namespace,
            kind.word().1
        ))
    }

    /// Creates under strict field validation: an unknown field is an error, as with `kubectl`.
    pub async fn create(&self, kind: Kind, object: &Value, dry_run: bool) -> Result<Value, String> {
        let params = PostParams {
            dry_run,
            field_manager: Some("api-test".into()),
        };
        let mut request = self.url(kind).create(&params, object.to_string().into_bytes()).unwrap();
        *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
        self.client.request(request).await.map_err(message)
    }

    /// What is wrong with the answer to an object of this spec, which is not kept.
    pub async fn try_spec(&self, kind: Kind, name: &str, spec: &Value, expected: Expected<'_>) -> Option<String> {
        let object = kind.object(json!({"name": "case"}), spec.clone());
        compare(name, &self.create(kind, &object, true).await, expected)
    }

    pub async fn patch(&self, kind: Kind, name: &str, change: &Value) -> Result<Value, String> {
        let params = PatchParams {
            dry_run: true,
            field_manager: Some("api-test".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": change}));
        let request = self.url(kind).patch(name, &params, &patch).unwrap();
        self.client.request(request).await.map_err(message)
    }

    pub async fn set_status(&self, kind: Kind, name: &str, status: &Value) -> Value {
        let patch = Patch::Merge(json!({"status": status}));
        let request = self
            .url(kind)
            .patch_subresource("status", name, &PatchParams::default(), &patch)
            .unwrap();
        self.client.request(request).await.unwrap()
    }
}

/// Tries until it succeeds, for a minute.
pub async fn eventually(attempt: impl AsyncFn() -> Result<(), String>) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(error) = attempt().await {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => panic!("{other}"),
    }
}

/// What does not hold, in a line; nothing if the answer is the expected one. A refusal is one by validation, not by
/// accident.
pub fn compare(name: &str, got: &Result<Value, String>, expected: Expected<'_>) -> Option<String> {
    match (got, expected) {
        (Ok(_), Ok(())) => None,
        (Err(text), Err(part)) if text.contains(part) && (text.starts_with("422 ") || text.starts_with("400 ")) => None,
        (Ok(_), Err(part)) => Some(format!("{name}: accepted, expected: {part}")),
        (Err(text), expected) => Some(format!("{name}: refused with {text:?}, expected: {expected:?}")),
    }
}

/// A cluster without the definitions gets them, such that the chart can adopt them. Those of a cluster that has them
/// must be the generated ones.
pub async fn definitions() {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(|| async {
        let api: Api<CustomResourceDefinition> = Api::all(Client::try_default().await.unwrap());
        for (file, mut definition) in crds::all() {
            let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
            let old = api.get_opt(&name).await.unwrap();
            definition["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
            for key in ["name", "namespace"] {
                definition["metadata"]["annotations"][format!("meta.helm.sh/release-{key}")] =
                    json!("sandbox-operator");
            }
            let params = PatchParams {
                dry_run: old.is_some(),
                ..PatchParams::apply("helm").force().validation_strict()
            };
            let new = api
                .patch(&name, &params, &Patch::Apply(&definition))
                .await
                .unwrap_or_else(|e| panic!("{file}: {e}"));
            let same = old.is_none_or(|old| old.metadata.generation == new.metadata.generation);
            assert!(
                same,
                "{name} of the cluster is not the generated one: `make install` first"
            );
            for _ in 0..60 {
                if established(&api, &name).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            assert!(established(&api, &name).await, "{name}");
        }
    })
    .await;
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> bool {
    let status = api.get(name).await.unwrap().status;
    let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    assert!(!is("NonStructuralSchema"), "{name}: {conditions:?}");
    let client = api.clone().into_client();
    let resources = client.list_api_group_resources("sandbox-operator.dev/v1alpha1").await;
    let served = resources.is_ok_and(|r| r.resources.iter().any(|r| name.starts_with(&format!("{}.", r.name))));
    is("Established") && is("NamesAccepted") && served
}
