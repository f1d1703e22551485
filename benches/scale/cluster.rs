//! Sandboxes for fake nodes, and the operator's resource usage.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use sandbox_operator::api::Sandbox;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::fixture::{Failure, Fixture, TIMEOUT};
use crate::load::LABEL;
use crate::requests::{self, Writes};
use crate::usage::{self, Usage};

/// Fails if there are no fake nodes.
pub async fn fake_nodes(client: &Client) -> Result<(), Failure> {
    let nodes: Api<Node> = Api::all(client.clone());
    if nodes
        .list_metadata(&ListParams::default().labels("type=kwok"))
        .await?
        .items
        .is_empty()
    {
        return Err("no node has the label type=kwok: run hack/cluster/cluster up --for-tests".into());
    }
    Ok(())
}

/// Runs one sandbox, and uses its pod as the template of bare pods.
pub async fn copy_shape(fixture: &mut Fixture) -> Result<(), Failure> {
    let api: Api<Sandbox> = Api::namespaced(fixture.client.clone(), &fixture.sandboxes.namespace);
    let mut object = fixture.sandboxes.template.clone();
    object["metadata"]["name"] = json!("shape");
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    fixture.copy_shape("shape").await
}

/// Acts as the kubelet for a phase's sandboxes: their main containers exit with 0. Returns when all are COMPLETED.
pub async fn complete(fixture: &Fixture, phase: &str, count: usize) -> Result<(), Failure> {
    let sandboxes: Api<Sandbox> = Api::namespaced(fixture.client.clone(), &fixture.sandboxes.namespace);
    let pods: Api<Pod> = Api::namespaced(fixture.client.clone(), &fixture.sandboxes.namespace);
    let of_phase = ListParams::default().labels(&format!("{LABEL}={phase}"));
    for sandbox in sandboxes.list(&of_phase).await?.items {
        let name = sandbox
            .status
            .and_then(|s| s.pod_name)
            .ok_or("a running sandbox without a pod")?;
        let now = jiff::Timestamp::now();
        let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
        let main =
            json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": ended});
        let body = json!({"status": {"phase": "Succeeded", "containerStatuses": [main]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(body))
            .await?;
    }
    let completed = of_phase.fields("status.state=COMPLETED");
    let began = Instant::now();
    while sandboxes.list_metadata(&completed).await?.items.len() < count {
        if began.elapsed() > TIMEOUT {
            return Err(format!("not all of {count} sandboxes are COMPLETED").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// A sandbox that only runs on fake nodes.
pub fn sandbox() -> Value {
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

/// The leading operator.
pub struct Operator {
    client: Client,
    namespace: String,
    pod: PartialObjectMeta<Pod>,
}

impl Operator {
    /// Finds it through the lease, which an existing pod must hold.
    pub async fn leading(client: &Client, namespace: &str, lease: &str) -> Result<Operator, Failure> {
        let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let began = Instant::now();
        loop {
            let holder = leases
                .get_opt(lease)
                .await?
                .and_then(|l| l.spec?.holder_identity)
                .unwrap_or_default();
            if !holder.is_empty()
                && let Some(pod) = pods.get_metadata_opt(&holder).await?
            {
                return Ok(Operator {
                    client: client.clone(),
                    namespace: namespace.into(),
                    pod,
                });
            }
            if began.elapsed() > TIMEOUT {
                return Err(format!("no operator leads: lease {namespace}/{lease} is held by {holder:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Its resource usage until now.
    pub async fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(&usage::metrics(&self.client, &self.namespace, &self.pod.name_any(), 8080).await?)
    }
}

/// The operator's writes until now, as counted by the API server.
pub async fn writes(client: &Client) -> Result<Writes, Failure> {
    Ok(requests::writes(&usage::text(client, "/metrics").await?))
}
