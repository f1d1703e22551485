//! Sandboxes that are taken away by others, and names that others took.

use crate::support::{Scene, outcome, sh};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, EvictParams, PostParams};
use kube::{Api, ResourceExt};
use sandbox_operator::api::Sandbox;
use serde_json::{Value, json};

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_deleted_and_an_evicted_pod_fail_their_sandboxes() {
    let scene = Scene::new("taken").await;
    for name in ["deleted", "evicted"] {
        scene.sandbox(name, json!({})).await;
    }
    let deleted = scene.running("deleted").await.pod_name.unwrap();
    let evicted = scene.running("evicted").await.pod_name.unwrap();
    scene.api::<Pod>().delete(&deleted, &DeleteParams::default()).await.unwrap();
    scene.api::<Pod>().evict(&evicted, &EvictParams::default()).await.unwrap();
    for (name, reason) in [("deleted", "PodDeleted"), ("evicted", "Evicted")] {
        let status = scene.ended(name).await;
        assert_eq!((status.state.as_str(), status.reason.as_deref()), ("FAILED", Some(reason)));
    }
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_policy_that_somebody_deletes_comes_back() {
    let scene = Scene::new("restore").await;
    scene.sandbox("a", json!({})).await;
    let child = scene.running("a").await.pod_name.unwrap();
    let before = scene.api::<NetworkPolicy>().get(&child).await.unwrap().uid();
    scene.api::<NetworkPolicy>().delete(&child, &DeleteParams::default()).await.unwrap();
    scene
        .eventually("a new policy", || async {
            let now = scene.api::<NetworkPolicy>().get_opt(&child).await.unwrap().and_then(|p| p.uid());
            if now.is_some() && now != before {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        })
        .await;
    scene.running("a").await;
    scene.end().await;
}

/// The names of children are known once the sandbox has its UID, which it has while it waits for its session.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn names_that_others_took_are_left_alone() {
    let scene = Scene::new("names").await;
    let mut children = vec![];
    for name in ["pod", "policy"] {
        let sandbox = scene.sandbox(name, json!({"sessionName": "s"})).await;
        children.push(format!("{name}-{}", &sandbox.uid().unwrap()[..8]));
    }
    let image = "python:3.11";
    scene
        .create::<Pod>(
            json!({"metadata": {"name": children[0]}, "spec": {"containers": [{"name": "c", "image": image, "command": ["sleep", "600"]}]}}),
        )
        .await;
    scene
        .create::<NetworkPolicy>(json!({"metadata": {"name": children[1]}, "spec": {"podSelector": {}}}))
        .await;
    scene.session("s", json!({})).await;
    for name in ["pod", "policy"] {
        assert_eq!(outcome(&scene.ended(name).await), ("FAILED", "NameTaken", None));
    }
    assert!(scene.api::<Pod>().get(&children[0]).await.unwrap().metadata.deletion_timestamp.is_none());
    assert!(
        scene.api::<Pod>().get_opt(&children[1]).await.unwrap().is_none(),
        "no policy of ours, no pod"
    );
    scene.gone::<NetworkPolicy>(&children[0]).await;
    scene.end().await;
}

/// A fake node of its own, which then goes away for good.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_lost_node_fails_its_sandboxes() {
    let scene = Scene::new("node").await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let name = format!("fake-{}", scene.namespace);
    let taint = json!([{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]);
    let room = json!({"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    let node: Value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "spec": {"taints": taint}, "status": {"capacity": room, "allocatable": room},
    });
    nodes
        .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
        .await
        .unwrap();
    let tolerations = json!([
        {"key": "kwok.x-k8s.io/node", "operator": "Exists"},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
    ]);
    scene
        .sandbox(
            "lost",
            json!({"nodeSelector": {"kubernetes.io/hostname": name}, "tolerations": tolerations}),
        )
        .await;
    scene.running("lost").await;
    nodes.delete(&name, &DeleteParams::default()).await.unwrap();
    let status = scene.ended("lost").await;
    assert_eq!(outcome(&status), ("FAILED", "NodeLost", None), "{:?}", status.message);
    scene.gone::<Pod>(&status.pod_name.unwrap()).await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_that_is_deleted_while_it_waits_leaves_nothing() {
    let scene = Scene::new("early").await;
    scene.sandbox("early", sh("sleep 600")).await;
    scene.api::<Sandbox>().delete("early", &DeleteParams::default()).await.unwrap();
    scene
        .eventually("all children to go", || async {
            let (pods, policies) = (scene.count::<Pod>().await, scene.count::<NetworkPolicy>().await);
            // The namespace's standing deny-all stays.
            if pods == 0 && policies <= 1 {
                Ok(())
            } else {
                Err(format!("{pods} pods, {policies} policies"))
            }
        })
        .await;
    scene.end().await;
}
