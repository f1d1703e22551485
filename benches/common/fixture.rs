//! The benchmark's own namespaces: creation and removal.

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

/// The reason why a benchmark failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Limit for waits that take moments unless something is wrong.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of concurrent requests, the same as the operator's concurrency.
pub const IN_FLIGHT: usize = 64;

/// Where objects are created, and their template.
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// An object without a name.
    pub template: Value,
}

/// The benchmark's own namespaces.
pub struct Fixture {
    /// A client of the API server.
    pub client: Client,
    /// For sandboxes.
    pub sandboxes: Target,
    /// For bare pods.
    pub pods: Target,
}

impl Fixture {
    /// Creates both namespaces; `sandbox` is the template of sandboxes.
    pub async fn new(client: &Client, sandbox: Value) -> Result<Fixture, Failure> {
        let target = |template| async {
            let namespace = json!({"metadata": {"generateName": "bench-"}});
            let made = Api::<Namespace>::all(client.clone())
                .create(&PostParams::default(), &serde_json::from_value(namespace)?)
                .await?;
            let namespace = made.name_any();
            Ok::<_, Failure>(Target { namespace, template })
        };
        Ok(Fixture {
            client: client.clone(),
            sandboxes: target(sandbox).await?,
            pods: target(Value::Null).await?,
        })
    }

    /// Waits until the sandbox's pod runs, and uses it as the template of bare pods.
    pub async fn copy_shape(&mut self, sandbox: &str) -> Result<(), Failure> {
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let pod_name = |s: Option<&Sandbox>| s.and_then(|s| s.status.as_ref()?.pod_name.clone());
        let has_pod = await_condition(api, sandbox, |s: Option<&Sandbox>| pod_name(s).is_some());
        let sandbox = tokio::time::timeout(TIMEOUT, has_pod)
            .await
            .map_err(|_| "the first sandbox got no pod")??;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let name = pod_name(sandbox.as_ref()).ok_or("the first sandbox was deleted")?;
        let runs = await_condition(pods.clone(), &name, is_pod_running());
        tokio::time::timeout(TIMEOUT, runs)
            .await
            .map_err(|_| "the first pod does not run")??;
        self.pods.template = bare(&pods.get(&name).await?)?;
        Ok(())
    }

    /// Removes everything. Sandboxes go first: if a pod were deleted before its sandbox, the operator would update the
    /// sandbox's status.
    pub async fn remove(self) -> Result<(), Failure> {
        let namespace = &self.sandboxes.namespace;
        let all: Api<Sandbox> = Api::namespaced(self.client.clone(), namespace);
        // The API server deletes the objects of a collection one after the other, so delete them concurrently here.
        let names = all
            .list_metadata(&ListParams::default())
            .await?
            .items
            .into_iter()
            .map(|s| s.name_any());
        let deletions = stream::iter(names).map(|name| {
            let all = all.clone();
            async move { all.delete(&name, &DeleteParams::background()).await }
        });
        deletions
            .buffer_unordered(IN_FLIGHT)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for target in [&self.pods, &self.sandboxes] {
            namespaces
                .delete(&target.namespace, &DeleteParams::background())
                .await?;
        }
        // Watch both together: the cluster may finish one namespace before it starts with the other.
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
            } else if last.1.elapsed() > TIMEOUT {
                return Err(format!("the benchmark's namespaces are not being deleted: {left} objects remain").into());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

/// Number of objects, without reading them all.
async fn count<K>(client: &Client, namespace: &str) -> Result<usize, Failure>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    Ok(list.items.len() + usize::try_from(more)?)
}

/// A pod with the same spec and number of labels, but without owners and without the labels that the operator selects.
fn bare(pod: &Pod) -> Result<Value, Failure> {
    let mut spec = pod.spec.clone().ok_or("a pod without a spec")?;
    spec.node_name = None;
    let labels = pod
        .labels()
        .iter()
        .map(|(key, value)| (format!("bench.{key}"), json!(value)));
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"labels": labels.collect::<serde_json::Map<_, _>>(), "annotations": pod.annotations()},
        "spec": spec,
    }))
}

/// The benchmark's exit code.
pub fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves on SIGTERM or Ctrl-C.
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
