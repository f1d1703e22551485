//! A namespace per test, and waiting for end states with a bound.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{NamespaceResourceScope, ObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use sandbox_operator::api::{Sandbox, SandboxSession, SandboxStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Longest wait for any end state: well above what a loaded machine of two cores needs.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A namespace of its own on the cluster of `KUBECONFIG`.
pub struct TestNamespace {
    pub client: Client,
    pub namespace: String,
}

impl TestNamespace {
    pub async fn new(name: &str) -> TestNamespace {
        TestNamespace::labelled(name, json!({})).await
    }

    pub async fn labelled(name: &str, labels: Value) -> TestNamespace {
        let client = Client::try_default().await.expect("KUBECONFIG names a cluster");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let made: Namespace =
            serde_json::from_value(json!({"metadata": {"generateName": format!("e2e-{name}-"), "labels": labels}}))
                .expect("a namespace");
        let made = namespaces
            .create(&PostParams::default(), &made)
            .await
            .expect("namespace");
        TestNamespace {
            client,
            namespace: made.name_any(),
        }
    }

    pub fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object of the API");
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .expect("created")
    }

    pub async fn sandbox(&self, name: &str, spec: Value) -> Sandbox {
        let spec = serde_json::from_value(spec).expect("a spec");
        let sandbox = Sandbox {
            metadata: ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        };
        self.api()
            .create(&PostParams::default(), &sandbox)
            .await
            .expect("sandbox created")
    }

    pub async fn session(&self, name: &str, spec: Value) -> SandboxSession {
        self.create(json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "metadata": {"name": name}, "spec": spec}))
            .await
    }

    pub async fn patch<K>(&self, name: &str, patch: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .expect("patched");
    }

    /// Sets a status in place of the kubelet or the scheduler.
    pub async fn patch_status<K>(&self, name: &str, status: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patch = Patch::Strategic(json!({"status": status}));
        self.api::<K>()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("status patched");
    }

    pub async fn stop(&self, name: &str) {
        self.patch::<Sandbox>(name, json!({"spec": {"desiredState": "Stopped"}}))
            .await;
    }

    /// Waits until the sandbox's status is as `wanted` says, and returns it.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&SandboxStatus) -> bool) -> SandboxStatus {
        self.eventually(&format!("sandbox {name} {what}"), || async {
            let status = self
                .api::<Sandbox>()
                .get_opt(name)
                .await
                .expect("get")
                .and_then(|s| s.status)
                .unwrap_or_default();
            if wanted(&status) {
                Ok(status)
            } else {
                Err(format!("{:?} {:?} {:?}", status.state, status.reason, status.message))
            }
        })
        .await
    }

    pub async fn ended(&self, name: &str) -> SandboxStatus {
        self.until(name, "to end", |s| s.state.is_final()).await
    }

    /// Runs each case to its end, a few at once; what did not end as wanted, a line each.
    pub async fn run_all(&self, cases: impl IntoIterator<Item = Case>) -> Vec<String> {
        let ends = cases.into_iter().map(|(name, spec, wanted)| async move {
            self.sandbox(name, spec).await;
            let status = self.ended(name).await;
            let seen = outcome(&status);
            (seen != wanted).then(|| format!("{name}: wanted {wanted:?}, got {seen:?}: {:?}", status.message))
        });
        stream::iter(ends)
            .buffer_unordered(AT_ONCE)
            .filter_map(futures::future::ready)
            .collect()
            .await
    }

    pub async fn running(&self, name: &str) -> SandboxStatus {
        self.until(name, "to run", |s| {
            (s.state.as_str(), s.reason.as_deref()) == ("RUNNING", Some("Running"))
        })
        .await
    }

    pub async fn waits_for(&self, name: &str, reason: &str) -> SandboxStatus {
        self.until(name, reason, |s| s.reason.as_deref() == Some(reason)).await
    }

    /// The reasons of a sandbox from its creation to its end, in order.
    pub async fn reasons(&self, created: &Sandbox) -> Vec<String> {
        let params = WatchParams::default().fields(&format!("metadata.name={}", created.name_any()));
        let version = created.resource_version().expect("a resourceVersion");
        let mut events = self
            .api::<Sandbox>()
            .watch(&params, &version)
            .await
            .expect("watch")
            .boxed();
        let mut reasons = vec![];
        while let Some(event) = events.next().await {
            let WatchEvent::Modified(Sandbox {
                status: Some(status), ..
            }) = event.expect("event")
            else {
                continue;
            };
            reasons.extend(status.reason);
            if status.state.is_final() {
                break;
            }
        }
        reasons
    }

    /// Repeats `check` until it succeeds, and panics with its last error after [`PATIENCE`].
    pub async fn eventually<T, F: Future<Output = Result<T, String>>>(&self, what: &str, check: impl Fn() -> F) -> T {
        let start = Instant::now();
        loop {
            match check().await {
                Ok(value) => return value,
                Err(error) => assert!(start.elapsed() < PATIENCE, "waited for {what}; last: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub async fn gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.eventually(&format!("{name} to go"), || async {
            match self.api::<K>().get_opt(name).await.expect("get") {
                None => Ok(()),
                Some(_) => Err("still there".into()),
            }
        })
        .await;
    }

    pub async fn logs(&self, pod: &str) -> String {
        let params = LogParams {
            container: Some("main".into()),
            ..LogParams::default()
        };
        self.api::<Pod>().logs(pod, &params).await.expect("logs")
    }

    pub async fn count<K>(&self) -> usize
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>()
            .list(&ListParams::default())
            .await
            .expect("list")
            .items
            .len()
    }

    /// Deletes the namespace; the sandboxes in it end in the background.
    pub async fn end(self) {
        Api::<Namespace>::all(self.client)
            .delete(&self.namespace, &DeleteParams::background())
            .await
            .expect("namespace deleted");
    }
}

/// A main command of the shell.
pub fn sh(script: &str) -> Value {
    json!({"command": ["sh", "-c", script]})
}

/// A spec that asks for little, so that many fit on the test machine's node.
pub fn light(spec: Value) -> Value {
    with(
        json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}}}),
        spec,
    )
}

/// Two objects in one; the second wins.
pub fn with(mut a: Value, b: Value) -> Value {
    if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
        a.extend(b);
    }
    a
}

/// How many sandboxes a table's test runs at once: the test machine has two cores.
const AT_ONCE: usize = 6;

/// Name, spec, then state, reason and exit code at the end.
pub type Case = (&'static str, Value, (&'static str, &'static str, Option<i32>));

/// The state and reason of an end, and the exit code.
pub fn outcome(status: &SandboxStatus) -> (&'static str, &str, Option<i32>) {
    (
        status.state.as_str(),
        status.reason.as_deref().unwrap_or_default(),
        status.exit_code,
    )
}
