//! Namespaces of a benchmark's own, and how they go.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt};
use sandbox_operator::api::Sandbox;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Why a benchmark ended early.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longest wait for what takes moments unless something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that are under way at once: as many as the operator's reconciles.
pub const IN_FLIGHT: usize = 64;

/// Where objects are made, and what they look like.
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// An object without a name.
    pub template: Value,
}

/// The benchmark's own namespaces.
pub struct Ground {
    /// A client of the API server.
    pub client: Client,
    /// For sandboxes.
    pub sandboxes: Target,
    /// For bare pods.
    pub pods: Target,
}

impl Ground {
    /// Makes both namespaces; `sandbox` is the template of sandboxes.
    pub async fn new(client: &Client, sandbox: Value) -> Result<Ground, Failure> {
        let target = |template| async {
            let namespace = json!({"metadata": {"generateName": "bench-"}});
            let made = Api::<Namespace>::all(client.clone())
                .create(&PostParams::default(), &serde_json::from_value(namespace)?)
                .await?;
            let namespace = made.name_any();
            Ok::<_, Failure>(Target { namespace, template })
        };
        Ok(Ground {
            client: client.clone(),
            sandboxes: target(sandbox).await?,
            pods: target(Value::Null).await?,
        })
    }

    /// Waits for a sandbox's pod to run, and takes it as the shape of the bare ones.
    pub async fn copy_shape(&mut self, sandbox: &str) -> Result<(), Failure> {
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let pod_name = |s: Option<&Sandbox>| s.and_then(|s| s.status.as_ref()?.pod_name.clone());
        let told = await_condition(api, sandbox, |s: Option<&Sandbox>| pod_name(s).is_some());
        let sandbox = tokio::time::timeout(PATIENCE, told).await.map_err(|_| "no pod for a first sandbox")??;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let name = pod_name(sandbox.as_ref()).ok_or("the first sandbox went")?;
        let runs = await_condition(pods.clone(), &name, is_pod_running());
        tokio::time::timeout(PATIENCE, runs).await.map_err(|_| "the first pod does not run")??;
        self.pods.template = bare(&pods.get(&name).await?)?;
        Ok(())
    }

    /// Removes everything: sandboxes first, since a pod that goes before its sandbox is news that the operator would write down.
    pub async fn remove(self) -> Result<(), Failure> {
        let namespace = &self.sandboxes.namespace;
        let all: Api<Sandbox> = Api::namespaced(self.client.clone(), namespace);
        // Many at once: the API server deletes a collection one by one.
        let names = all.list_metadata(&ListParams::default()).await?.items.into_iter().map(|s| s.name_any());
        let deletions = stream::iter(names).map(|name| {
            let all = all.clone();
            async move { all.delete(&name, &DeleteParams::background()).await }
        });
        deletions.buffer_unordered(IN_FLIGHT).try_for_each(|_| std::future::ready(Ok(()))).await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for target in [&self.pods, &self.sandboxes] {
            namespaces.delete(&target.namespace, &DeleteParams::background()).await?;
        }
        // Both together: the cluster may do all of one before it begins with the other.
        let mut last = (usize::MAX, Instant::now());
        loop {
            let mut left = 0;
            for target in [&self.pods, &self.sandboxes] {
                left += usize::from(namespaces.get_opt(&target.namespace).await?.is_some());
                left += count::<Pod>(&self.client, &target.namespace).await?;
                left += count::<NetworkPolicy>(&self.client, &target.namespace).await?;
            }
            if left == 0 {
                return Ok(());
            }
            if left < last.0 {
                last = (left, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                return Err(format!("the benchmark's namespaces do not go; {left} objects are left").into());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// How many there are, without reading them all.
async fn count<K>(client: &Client, namespace: &str) -> Result<usize, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    Ok(list.items.len() + usize::try_from(more)?)
}

/// A pod of the same shape that is nobody's: as many labels, but none that the operator looks for, and no owners.
fn bare(pod: &Pod) -> Result<Value, Failure> {
    let mut spec = pod.spec.clone().ok_or("a pod without a spec")?;
    spec.node_name = None;
    let labels = pod.labels().iter().map(|(key, value)| (format!("bench.{key}"), json!(value)));
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": labels.collect::<serde_json::Map<_, _>>(), "annotations": pod.annotations()},
        "spec": spec,
    }))
}

/// How a benchmark's process ends.
pub fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Comes when somebody wants the benchmark to end.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(_) => std::future::pending().await,
    }
}
