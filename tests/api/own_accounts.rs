//! The token of the operator's or the gateway's ServiceAccount does not make its holder a cluster administrator. Needs
//! the installed chart.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

use crate::server::Server;
use sandbox_operator::api::Sandbox;

const UID: &str = "01234567-89ab-cdef-0123-456789abcdef";
const OPERATOR: &str = "sandbox-operator";
const GATEWAY: &str = "sandbox-operator-gateway";

/// A client with the rights of one of the accounts.
struct Account {
    client: Client,
    namespace: String,
}

impl Account {
    async fn new(name: &str, namespace: &str) -> Account {
        let mut config = Config::infer().await.unwrap();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:sandbox-operator:{name}"));
        let groups = [
            "system:serviceaccounts",
            "system:serviceaccounts:sandbox-operator",
            "system:authenticated",
        ];
        config.auth_info.impersonate_groups = Some(groups.map(String::from).to_vec());
        Account {
            client: Client::try_from(config).unwrap(),
            namespace: namespace.into(),
        }
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object in a dry run.
    async fn create<K>(&self, object: &Value) -> Result<(), String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let object: K = serde_json::from_value(object.clone()).unwrap();
        self.api().create(&dry_run, &object).await.map(drop).map_err(text)
    }

    async fn delete<K>(&self, name: &str) -> Result<(), String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let dry_run = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        self.api::<K>().delete(name, &dry_run).await.map(drop).map_err(text)
    }

    async fn patch<K>(&self, name: &str, patch: Value) -> Result<(), String>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let dry_run = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let patched = self.api::<K>().patch(name, &dry_run, &Patch::Merge(patch)).await;
        patched.map(drop).map_err(text)
    }
}

fn text(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("{other}"),
    }
}

/// Metadata of a child of a Sandbox.
fn child() -> Value {
    json!({
        "name": "case", "labels": {"app.kubernetes.io/managed-by": "sandbox-operator", "sandbox-operator.dev/sandbox-uid": UID},
        "ownerReferences": [{"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "name": "case", "uid": UID}],
    })
}

fn pod() -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}});
    json!({"metadata": child(), "spec": {
        "automountServiceAccountToken": false, "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "main", "image": "python:3.11", "securityContext": security}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }})
}

/// `object` with the value at `pointer` set.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

/// The difference from the expected result: accepted, or denied by the policy of this name.
fn wrong(what: &str, policy: &str, answer: &Result<(), String>, accepted: bool) -> Option<String> {
    let as_expected = match answer {
        Ok(()) => accepted,
        Err(text) => !accepted && text.contains(&format!("'sandbox-operator-{policy}.own-accounts'")),
    };
    (!as_expected).then(|| format!("{what}: {answer:?}"))
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_operator_creates_only_pods_of_sandboxes_within_their_walls() {
    let server = Server::new("own-pods").await;
    let operator = Account::new(OPERATOR, server.namespace()).await;
    // A pod of another owner.
    let admin: Api<Pod> = Api::namespaced(Client::try_default().await.unwrap(), server.namespace());
    let foreign = json!({"metadata": {"name": "foreign"}, "spec": {"nodeSelector": {"no-node": "has-this"}, "containers": [{"name": "c", "image": "i"}]}});
    // A new namespace gets its ServiceAccount a moment later.
    let foreign = with(foreign, "/spec/automountServiceAccountToken", json!(false));
    crate::server::eventually(async || {
        let created = admin
            .create(
                &PostParams::default(),
                &serde_json::from_value(foreign.clone()).unwrap(),
            )
            .await;
        created.map(drop).map_err(|e| e.to_string())
    })
    .await;
    let (security, volume) = ("/spec/containers/0/securityContext", |v: Value| {
        with(pod(), "/spec/volumes", json!([v]))
    });
    let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    let cases = [
        ("a sandbox's pod", pod(), true),
        ("no labels", with(pod(), "/metadata/labels", json!({})), false),
        ("no owner", with(pod(), "/metadata/ownerReferences", json!([])), false),
        (
            "another owner",
            with(pod(), "/metadata/ownerReferences/0/uid", json!("x")),
            false,
        ),
        ("host network", with(pod(), "/spec/hostNetwork", json!(true)), false),
        ("host processes", with(pod(), "/spec/hostPID", json!(true)), false),
        ("host memory", with(pod(), "/spec/hostIPC", json!(true)), false),
        ("a node", with(pod(), "/spec/nodeName", json!("node")), false),
        (
            "a token",
            with(pod(), "/spec/automountServiceAccountToken", json!(true)),
            false,
        ),
        ("a projected token", volume(token), false),
        (
            "a host path",
            volume(json!({"name": "h", "hostPath": {"path": "/"}})),
            false,
        ),
        (
            "files",
            volume(json!({"name": "f", "projected": {"sources": [{"secret": {"name": "s"}}]}})),
            true,
        ),
        ("privileged", with(pod(), security, json!({"privileged": true})), false),
        ("privileges to gain", with(pod(), security, json!({})), false),
        (
            "a capability",
            with(
                pod(),
                security,
                json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["SYS_ADMIN"]}}),
            ),
            false,
        ),
        (
            "a host port",
            with(
                pod(),
                "/spec/containers/0/ports",
                json!([{"containerPort": 80, "hostPort": 80}]),
            ),
            false,
        ),
        (
            "no seccomp profile",
            with(pod(), "/spec/securityContext", json!({})),
            false,
        ),
        (
            "a privileged init container",
            with(
                pod(),
                "/spec/initContainers",
                json!([{"name": "i", "image": "i", "securityContext": {"privileged": true}}]),
            ),
            false,
        ),
    ];
    let mut failures = vec![];
    for (what, pod, accepted) in cases {
        failures.extend(wrong(what, "pods", &operator.create::<Pod>(&pod).await, accepted));
    }
    failures.extend(wrong(
        "deletion",
        "pods",
        &operator.delete::<Pod>("foreign").await,
        false,
    ));
    let ours = json!({"labels": child()["labels"], "ownerReferences": child()["ownerReferences"]});
    let adoption = operator.patch::<Pod>("foreign", json!({"metadata": ours})).await;
    failures.extend(wrong("adoption", "pods", &adoption, false));
    server.gone().await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn neither_account_gets_tokens_or_changes_what_is_not_a_sandboxs() {
    let server = Server::new("own-objects").await;
    let operator = Account::new(OPERATOR, server.namespace()).await;
    let gateway = Account::new(GATEWAY, server.namespace()).await;
    let mut failures = vec![];

    let secret = json!({"metadata": child(), "type": "Opaque"});
    let token = with(secret.clone(), "/type", json!("kubernetes.io/service-account-token"));
    let token = with(
        token,
        "/metadata/annotations",
        json!({"kubernetes.io/service-account.name": "default"}),
    );
    for (what, secret, accepted) in [
        ("a sandbox's Secret", secret.clone(), true),
        ("a token", token, false),
        ("no owner", with(secret, "/metadata/ownerReferences", json!([])), false),
    ] {
        failures.extend(wrong(
            what,
            "secrets",
            &gateway.create::<Secret>(&secret).await,
            accepted,
        ));
        // RBAC gives the operator none.
        let answer = operator.create::<Secret>(&secret).await;
        if !answer
            .as_ref()
            .is_err_and(|text| text.contains("cannot create resource"))
        {
            failures.push(format!("{what}, by the operator: {answer:?}"));
        }
    }
    let reads = operator.api::<Secret>().get_opt("any").await;
    assert!(
        matches!(&reads, Err(kube::Error::Api(status)) if status.code == 403),
        "{reads:?}"
    );

    let files = json!({"metadata": child()});
    failures.extend(wrong(
        "a sandbox's files",
        "configmaps",
        &operator.create::<ConfigMap>(&files).await,
        true,
    ));
    let foreign = json!({"metadata": {"name": "case"}});
    failures.extend(wrong(
        "no owner",
        "configmaps",
        &operator.create::<ConfigMap>(&foreign).await,
        false,
    ));

    let policy = json!({"metadata": child(), "spec": {"podSelector": {"matchLabels": {"sandbox-operator.dev/sandbox-uid": UID}}}});
    for (what, policy, accepted) in [
        ("a sandbox's policy", policy.clone(), true),
        ("all pods", with(policy.clone(), "/spec/podSelector", json!({})), false),
        ("no owner", with(policy, "/metadata/ownerReferences", json!([])), false),
    ] {
        failures.extend(wrong(
            what,
            "networkpolicies",
            &operator.create::<NetworkPolicy>(&policy).await,
            accepted,
        ));
    }

    let ports = json!([{"port": 80}]);
    let service =
        json!({"metadata": child(), "spec": {"selector": {"sandbox-operator.dev/sandbox-uid": UID}, "ports": ports}});
    for (what, service, accepted) in [
        ("a sandbox's Service", service.clone(), true),
        (
            "other pods",
            with(service.clone(), "/spec/selector", json!({"app": "db"})),
            false,
        ),
        (
            "an external address",
            with(service, "/spec/externalIPs", json!(["192.0.2.1"])),
            false,
        ),
    ] {
        failures.extend(wrong(
            what,
            "services",
            &operator.create::<Service>(&service).await,
            accepted,
        ));
    }

    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}});
    let admin: Api<PersistentVolumeClaim> = Api::namespaced(Client::try_default().await.unwrap(), server.namespace());
    admin
        .create(&PostParams::default(), &serde_json::from_value(claim).unwrap())
        .await
        .unwrap();
    let patch = async |patch: Value| gateway.patch::<PersistentVolumeClaim>("data", patch).await;
    failures.extend(wrong(
        "a label",
        "claims",
        &patch(json!({"metadata": {"labels": {"a": "b"}}})).await,
        true,
    ));
    failures.extend(wrong(
        "an owner",
        "claims",
        &patch(json!({"metadata": {"ownerReferences": child()["ownerReferences"]}})).await,
        false,
    ));
    server.gone().await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Admission does not see the pod of an exec; the policy is about the name and the command. Needs
/// `gateway.execViaApiServer`.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_gateway_executes_nothing_but_the_agent() {
    let server = Server::new("own-exec").await;
    let gateway = Account::new(GATEWAY, server.namespace()).await;
    let exec = async |pod: &str, command: &[&str]| {
        let words: Vec<String> = command.iter().map(|word| format!("command={word}")).collect();
        let url = format!(
            "/api/v1/namespaces/{}/pods/{pod}/exec?stdout=true&{}",
            gateway.namespace,
            words.join("&")
        );
        let request = http::Request::post(url).body(vec![]).unwrap();
        gateway.client.request::<Value>(request).await.map(drop).map_err(text)
    };
    let agent = ["/.sandbox-operator/sandbox-operator", "agent", "stdio"];
    let denied = |answer: &Result<(), String>| {
        answer
            .as_ref()
            .is_err_and(|text| text.contains("'sandbox-operator-exec.own-accounts'"))
    };
    // The API server looks for the pod after admission.
    let allowed = exec("box-01234567", &agent).await;
    let shell = exec("box-01234567", &["sh", "-c", "id"]).await;
    let other_pod = exec("etcd-control-plane", &agent).await;
    server.gone().await;
    assert!(
        allowed.as_ref().is_err_and(|text| text.contains("not found")),
        "{allowed:?}"
    );
    assert!(denied(&shell), "{shell:?}");
    assert!(denied(&other_pod), "{other_pod:?}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn only_the_gateway_records_who_requested_a_sandbox() {
    let server = Server::new("created-by").await;
    let gateway = Account::new(GATEWAY, server.namespace()).await;
    let client = Client::try_default().await.unwrap();
    let namespace = server.namespace().into();
    let tenant = Account { client, namespace };
    let sandbox = |annotations: Value| json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": {}, "metadata": {"name": "a", "annotations": annotations}});
    let forged = sandbox(json!({"sandbox-operator.dev/created-by": "system:serviceaccount:a:b"}));
    assert_eq!(gateway.create::<Sandbox>(&forged).await, Ok(()));
    assert_eq!(tenant.create::<Sandbox>(&sandbox(json!({}))).await, Ok(()));
    let refused = tenant.create::<Sandbox>(&forged).await.unwrap_err();
    assert!(
        refused.contains("sandbox-operator.dev/created-by is set by the gateway"),
        "{refused}"
    );
    server.gone().await;
}
