//! Sandboxes that something outside ends, and children whose names are taken.

use crate::nodes::FakeNode;
use crate::support::{Scene, light, outcome, sh};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, EvictParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use sandbox_operator::api::Sandbox;
use serde_json::json;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_deleted_and_an_evicted_pod_fail_their_sandboxes() {
    let scene = Scene::new("taken").await;
    for name in ["deleted", "evicted"] {
        scene.sandbox(name, json!({})).await;
    }
    let deleted = scene.running("deleted").await.pod_name.unwrap();
    let evicted = scene.running("evicted").await.pod_name.unwrap();
    scene
        .api::<Pod>()
        .delete(&deleted, &DeleteParams::default())
        .await
        .unwrap();
    scene
        .api::<Pod>()
        .evict(&evicted, &EvictParams::default())
        .await
        .unwrap();
    for (name, reason) in [("deleted", "PodDeleted"), ("evicted", "Evicted")] {
        let status = scene.ended(name).await;
        assert_eq!(
            (status.state.as_str(), status.reason.as_deref()),
            ("FAILED", Some(reason))
        );
    }
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_policy_that_somebody_deletes_is_restored() {
    let scene = Scene::new("restore").await;
    scene.sandbox("a", json!({})).await;
    let child = scene.running("a").await.pod_name.unwrap();
    let before = scene.api::<NetworkPolicy>().get(&child).await.unwrap().uid();
    scene
        .api::<NetworkPolicy>()
        .delete(&child, &DeleteParams::default())
        .await
        .unwrap();
    scene
        .eventually("a new policy that owns the pod", || async {
            let now = scene
                .api::<NetworkPolicy>()
                .get_opt(&child)
                .await
                .unwrap()
                .and_then(|p| p.uid());
            let owners = scene.api::<Pod>().get(&child).await.unwrap().metadata.owner_references;
            let owner = owners
                .into_iter()
                .flatten()
                .find(|o| o.kind == "NetworkPolicy")
                .map(|o| o.uid);
            if now.is_some() && now != before && now == owner {
                Ok(())
            } else {
                Err(format!("{now:?}, owner of the pod: {owner:?}"))
            }
        })
        .await;
    scene.running("a").await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_policy_that_somebody_edits_is_restored() {
    let scene = Scene::new("edited").await;
    scene.sandbox("a", light(json!({}))).await;
    let child = scene.running("a").await.pod_name.unwrap();
    let before = scene.api::<NetworkPolicy>().get(&child).await.unwrap().spec;
    scene
        .patch::<NetworkPolicy>(&child, json!({"spec": {"egress": [{}]}}))
        .await;
    scene
        .eventually("the policy as it was, and an event", || async {
            let now = scene.api::<NetworkPolicy>().get(&child).await.unwrap().spec;
            let events = scene.api::<Event>().list(&ListParams::default()).await.unwrap();
            let reported = events.iter().any(|e| e.reason.as_deref() == Some("PolicyChanged"));
            if now == before && reported {
                Ok(())
            } else {
                Err(format!("reported: {reported}, {now:?}"))
            }
        })
        .await;
    scene.end().await;
}

/// The names of children are known once the sandbox has its UID, which it has while it waits for its session.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn children_of_others_are_left_alone() {
    let scene = Scene::new("names").await;
    let (mut children, mut uids) = (vec![], vec![]);
    for name in ["pod", "policy", "planted"] {
        let sandbox = scene.sandbox(name, json!({"sessionName": "s"})).await;
        uids.push(sandbox.uid().unwrap());
        children.push(format!("{name}-{}", &sandbox.uid().unwrap()[..8]));
    }
    // All that is public of a child.
    let labels = json!({"app.kubernetes.io/managed-by": "sandbox-operator", "sandbox-operator.dev/sandbox": "planted", "sandbox-operator.dev/sandbox-uid": uids[2]});
    let owner = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "name": "planted", "uid": uids[2], "controller": true});
    let planted = json!({"name": children[2], "labels": labels, "ownerReferences": [owner]});
    scene
        .create::<Pod>(
            json!({"metadata": planted, "spec": {"containers": [{"name": "main", "image": "python:3.11", "command": ["sleep", "600"]}]}}),
        )
        .await;
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
    for name in ["pod", "policy", "planted"] {
        assert_eq!(outcome(&scene.ended(name).await), ("FAILED", "NameTaken", None));
    }
    assert!(
        scene
            .api::<Pod>()
            .get(&children[0])
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    assert!(
        scene.api::<Pod>().get_opt(&children[1]).await.unwrap().is_none(),
        "no policy of ours, no pod"
    );
    scene.gone::<NetworkPolicy>(&children[0]).await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_lost_node_fails_its_sandboxes() {
    let scene = Scene::new("node").await;
    let node = FakeNode::new(&scene).await;
    scene.sandbox("lost", node.take(json!({}))).await;
    scene.running("lost").await;
    node.end().await;
    let status = scene.ended("lost").await;
    assert_eq!(outcome(&status), ("FAILED", "NodeLost", None), "{:?}", status.message);
    scene.gone::<Pod>(&status.pod_name.unwrap()).await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_makes_room_for_another_fails_its_sandbox() {
    let scene = Scene::new("preempt").await;
    let node = FakeNode::new(&scene).await;
    let classes: Api<PriorityClass> = Api::all(scene.client.clone());
    let class = json!({"metadata": {"name": scene.namespace}, "value": 1000});
    classes
        .create(&PostParams::default(), &serde_json::from_value(class).unwrap())
        .await
        .unwrap();
    // More than half of the node.
    let most = json!({"requests": {"cpu": "5"}, "limits": {"cpu": "5"}});
    scene.sandbox("humble", node.take(json!({"resources": most}))).await;
    scene.running("humble").await;
    scene
        .sandbox(
            "grand",
            node.take(json!({"resources": most, "priorityClassName": scene.namespace})),
        )
        .await;
    let status = scene.ended("humble").await;
    assert_eq!(outcome(&status), ("FAILED", "Preempted", None), "{:?}", status.message);
    scene.running("grand").await;
    classes
        .delete(&scene.namespace, &DeleteParams::default())
        .await
        .unwrap();
    node.end().await;
    scene.end().await;
}

/// A kubelet that finds, after a restart, that a container is gone says so, and makes up an exit code.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_end_that_nobody_saw_has_no_exit_code() {
    let scene = Scene::new("unseen").await;
    let node = FakeNode::new(&scene).await;
    scene.sandbox("unseen", node.take(json!({}))).await;
    let pod = scene.running("unseen").await.pod_name.unwrap();
    let end = json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "could not be located"});
    let container = json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": null, "terminated": end}});
    scene
        .patch_status::<Pod>(&pod, json!({"phase": "Failed", "containerStatuses": [container]}))
        .await;
    let status = scene.ended("unseen").await;
    assert_eq!(
        outcome(&status),
        ("FAILED", "ContainerStatusUnknown", None),
        "{:?}",
        status.message
    );
    node.end().await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_that_is_deleted_while_it_waits_leaves_nothing() {
    let scene = Scene::new("early").await;
    scene.sandbox("early", sh("sleep 600")).await;
    scene
        .api::<Sandbox>()
        .delete("early", &DeleteParams::default())
        .await
        .unwrap();
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
