//! Namespaces of the benchmark's own, and what the cluster tells of the operator.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt};
use sandbox_operator::api::Sandbox;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::load::{IN_FLIGHT, LABEL, Target};
use crate::requests::{self, Writes};

/// Longest wait for what takes moments unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// The benchmark's own namespaces.
pub struct Ground {
    client: Client,
    /// For sandboxes.
    pub sandboxes: Target,
    /// For bare pods.
    pub pods: Target,
}

impl Ground {
    /// Makes both namespaces.
    pub async fn new(client: &Client) -> Result<Ground, Failure> {
        let nodes: Api<Node> = Api::all(client.clone());
        if nodes.list_metadata(&ListParams::default().labels("type=kwok")).await?.items.is_empty() {
            return Err("no node has the label type=kwok: tests/cluster/cluster fake-nodes 3".into());
        }
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
            sandboxes: target(sandbox()).await?,
            pods: target(Value::Null).await?,
        })
    }

    /// Runs one sandbox, and takes its pod as the shape of the bare ones.
    pub async fn copy_shape(&mut self) -> Result<(), Failure> {
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let mut object = self.sandboxes.template.clone();
        object["metadata"]["name"] = json!("shape");
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        let pod_name = |s: Option<&Sandbox>| s.and_then(|s| s.status.as_ref()?.pod_name.clone());
        let told = await_condition(api, "shape", |s: Option<&Sandbox>| pod_name(s).is_some());
        let sandbox = tokio::time::timeout(PATIENCE, told).await.map_err(|_| "no pod for a first sandbox")??;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let name = pod_name(sandbox.as_ref()).ok_or("the first sandbox went")?;
        let runs = await_condition(pods.clone(), &name, is_pod_running());
        tokio::time::timeout(PATIENCE, runs).await.map_err(|_| "the first pod does not run")??;
        self.pods.template = bare(&pods.get(&name).await?)?;
        Ok(())
    }

    /// Plays the kubelet for a phase's sandboxes: their main containers end with exit code 0. Returns when all are COMPLETED.
    pub async fn complete(&self, phase: &str, count: usize) -> Result<(), Failure> {
        let sandboxes: Api<Sandbox> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.sandboxes.namespace);
        let of_phase = ListParams::default().labels(&format!("{LABEL}={phase}"));
        for sandbox in sandboxes.list(&of_phase).await?.items {
            let name = sandbox.status.and_then(|s| s.pod_name).ok_or("a running sandbox without a pod")?;
            let now = jiff::Timestamp::now();
            let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
            let main = json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": ended});
            let body = json!({"status": {"phase": "Succeeded", "containerStatuses": [main]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(body)).await?;
        }
        let completed = of_phase.fields("status.state=COMPLETED");
        let began = Instant::now();
        while sandboxes.list_metadata(&completed).await?.items.len() < count {
            if began.elapsed() > PATIENCE {
                return Err(format!("not all of {count} sandboxes are COMPLETED").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
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
                let there = namespaces.get_opt(&target.namespace).await?.is_some();
                left += usize::from(there);
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

/// A sandbox that only a fake node takes.
fn sandbox() -> Value {
    json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": {},
        "spec": {
            "command": ["sleep", "infinity"],
            // A backlog that is being measured must not end as StartTimeout.
            "startTimeoutSeconds": 3600,
            "nodeSelector": {"type": "kwok"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
        },
    })
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

/// The leading operator.
pub struct Operator {
    client: Client,
    namespace: String,
    pod: PartialObjectMeta<Pod>,
}

/// What the operator's process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory in KB.
    pub resident: f64,
    /// Processor time in seconds, since its start.
    pub cpu: f64,
}

impl Operator {
    /// Finds it by the lease, which must be held by a pod that is there.
    pub async fn leading(client: &Client, namespace: &str, lease: &str) -> Result<Operator, Failure> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let began = Instant::now();
        loop {
            let holder = leases.get_opt(lease).await?.and_then(|l| l.spec?.holder_identity).unwrap_or_default();
            if !holder.is_empty()
                && let Some(pod) = pods.get_metadata_opt(&holder).await?
            {
                return Ok(Operator {
                    client: client.clone(),
                    namespace: namespace.into(),
                    pod,
                });
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("no operator leads: lease {namespace}/{lease} is held by {holder:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// What its process has used until now.
    pub async fn usage(&self) -> Result<Usage, Failure> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", self.namespace, self.pod.name_any());
        let metrics = text(&self.client, &path).await?;
        let value = |name: &str| requests::value(&metrics, name).ok_or_else(|| format!("the operator's metrics have no {name}"));
        Ok(Usage {
            resident: value("process_resident_memory_bytes")? / 1024.0,
            cpu: value("process_cpu_seconds_total")?,
        })
    }
}

/// The operator's writes until now, as the API server counted them.
pub async fn writes(client: &Client) -> Result<Writes, Failure> {
    Ok(requests::writes(&text(client, "/metrics").await?))
}

async fn text(client: &Client, path: &str) -> Result<String, Failure> {
    Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?)
}
