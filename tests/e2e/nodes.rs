//! Nodes that are not there: what the API knows of them, and nothing else.

use crate::support::{TestNamespace, with};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

/// A node for the sandboxes of one namespace only.
pub struct FakeNode {
    api: Api<Node>,
    name: String,
}

impl FakeNode {
    /// One of kwok: pods become Running and go when they are deleted.
    pub async fn new(ns: &TestNamespace) -> FakeNode {
        FakeNode::annotated(ns, json!({"kwok.x-k8s.io/node": "fake"})).await
    }

    /// One whose kubelet is silent: nothing happens to the pods.
    pub async fn silent(ns: &TestNamespace) -> FakeNode {
        FakeNode::annotated(ns, json!({})).await
    }

    async fn annotated(ns: &TestNamespace, annotations: Value) -> FakeNode {
        let api: Api<Node> = Api::all(ns.client.clone());
        let name = format!("fake-{}", ns.namespace);
        let taint = json!([{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]);
        let room = json!({"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"});
        // What needs a real node leaves out those with the label type.
        let labels = json!({"kubernetes.io/hostname": name, "type": "fake"});
        let node: Value = json!({
            "metadata": {"name": name, "labels": labels, "annotations": annotations},
            "spec": {"taints": taint}, "status": {"capacity": room, "allocatable": room},
        });
        api.create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        FakeNode { api, name }
    }

    /// The spec of a sandbox that goes to this node, and leaves it soon after the node does.
    pub fn take(&self, spec: Value) -> Value {
        let tolerations = json!([
            {"key": "kwok.x-k8s.io/node", "operator": "Exists"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
        ]);
        with(
            json!({"nodeSelector": {"kubernetes.io/hostname": self.name}, "tolerations": tolerations}),
            spec,
        )
    }

    pub async fn end(self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}
