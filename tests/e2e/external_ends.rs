//! Sandboxes that something outside ends, and children whose names are taken.

use crate::nodes::FakeNode;
use crate::support::{TestNamespace, light, outcome, sh};
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
    let ns = TestNamespace::new("taken").await;
    for name in ["deleted", "evicted"] {
        ns.sandbox(name, json!({})).await;
    }
    let deleted = ns.running("deleted").await.pod_name.unwrap();
    let evicted = ns.running("evicted").await.pod_name.unwrap();
    ns.api::<Pod>()
        .delete(&deleted, &DeleteParams::default())
        .await
        .unwrap();
    ns.api::<Pod>().evict(&evicted, &EvictParams::default()).await.unwrap();
    for (name, reason) in [("deleted", "PodDeleted"), ("evicted", "Evicted")] {
        let status = ns.ended(name).await;
        assert_eq!(
            (status.state.as_str(), status.reason.as_deref()),
            ("FAILED", Some(reason))
        );
    }
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_policy_that_somebody_deletes_is_restored() {
    let ns = TestNamespace::new("restore").await;
    ns.sandbox("a", json!({})).await;
    let child = ns.running("a").await.pod_name.unwrap();
    let before = ns.api::<NetworkPolicy>().get(&child).await.unwrap().uid();
    ns.api::<NetworkPolicy>()
        .delete(&child, &DeleteParams::default())
        .await
        .unwrap();
    ns.eventually("a new policy that owns the pod", || async {
        let now = ns
            .api::<NetworkPolicy>()
            .get_opt(&child)
            .await
            .unwrap()
            .and_then(|p| p.uid());
        let owners = ns.api::<Pod>().get(&child).await.unwrap().metadata.owner_references;
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
    ns.running("a").await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_policy_that_somebody_edits_is_restored() {
    let ns = TestNamespace::new("edited").await;
    ns.sandbox("a", light(json!({}))).await;
    let child = ns.running("a").await.pod_name.unwrap();
    let before = ns.api::<NetworkPolicy>().get(&child).await.unwrap().spec;
    ns.patch::<NetworkPolicy>(&child, json!({"spec": {"egress": [{}]}}))
        .await;
    ns.eventually("the policy as it was, and an event", || async {
        let now = ns.api::<NetworkPolicy>().get(&child).await.unwrap().spec;
        let events = ns.api::<Event>().list(&ListParams::default()).await.unwrap();
        let reported = events.iter().any(|e| e.reason.as_deref() == Some("PolicyChanged"));
        if now == before && reported {
            Ok(())
        } else {
            Err(format!("reported: {reported}, {now:?}"))
        }
    })
    .await;
    ns.end().await;
}

/// The names of children are known once the sandbox has its UID, which it has while it waits for its session.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn children_of_others_are_left_alone() {
    let ns = TestNamespace::new("names").await;
    let (mut children, mut uids) = (vec![], vec![]);
    for name in ["pod", "policy", "planted"] {
        let sandbox = ns.sandbox(name, json!({"sessionName": "s"})).await;
        uids.push(sandbox.uid().unwrap());
        children.push(format!("{name}-{}", &sandbox.uid().unwrap()[..8]));
    }
    // Everything about a child that others can copy.
    let labels = json!({"app.kubernetes.io/managed-by": "sandbox-operator", "sandbox-operator.dev/sandbox": "planted", "sandbox-operator.dev/sandbox-uid": uids[2]});
    let owner = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "name": "planted", "uid": uids[2], "controller": true});
    let planted = json!({"name": children[2], "labels": labels, "ownerReferences": [owner]});
    ns
        .create::<Pod>(
            json!({"metadata": planted, "spec": {"containers": [{"name": "main", "image": "python:3.11", "command": ["sleep", "600"]}]}}),
        )
        .await;
    let image = "python:3.11";
    ns
        .create::<Pod>(
            json!({"metadata": {"name": children[0]}, "spec": {"containers": [{"name": "c", "image": image, "command": ["sleep", "600"]}]}}),
        )
        .await;
    ns.create::<NetworkPolicy>(json!({"metadata": {"name": children[1]}, "spec": {"podSelector": {}}}))
        .await;
    ns.session("s", json!({})).await;
    for name in ["pod", "policy", "planted"] {
        assert_eq!(outcome(&ns.ended(name).await), ("FAILED", "NameTaken", None));
    }
    assert!(
        ns.api::<Pod>()
            .get(&children[0])
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    assert!(
        ns.api::<Pod>().get_opt(&children[1]).await.unwrap().is_none(),
        "no policy of ours, no pod"
    );
    ns.gone::<NetworkPolicy>(&children[0]).await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_lost_node_fails_its_sandboxes() {
    let ns = TestNamespace::new("node").await;
    let node = FakeNode::new(&ns).await;
    ns.sandbox("lost", node.take(json!({}))).await;
    ns.running("lost").await;
    node.end().await;
    let status = ns.ended("lost").await;
    assert_eq!(outcome(&status), ("FAILED", "NodeLost", None), "{:?}", status.message);
    ns.gone::<Pod>(&status.pod_name.unwrap()).await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_makes_room_for_another_fails_its_sandbox() {
    let ns = TestNamespace::new("preempt").await;
    let node = FakeNode::new(&ns).await;
    let classes: Api<PriorityClass> = Api::all(ns.client.clone());
    let class = json!({"metadata": {"name": ns.namespace}, "value": 1000});
    classes
        .create(&PostParams::default(), &serde_json::from_value(class).unwrap())
        .await
        .unwrap();
    // More than half of the node.
    let most = json!({"requests": {"cpu": "5"}, "limits": {"cpu": "5"}});
    ns.sandbox("humble", node.take(json!({"resources": most}))).await;
    ns.running("humble").await;
    ns.sandbox(
        "grand",
        node.take(json!({"resources": most, "priorityClassName": ns.namespace})),
    )
    .await;
    let status = ns.ended("humble").await;
    assert_eq!(outcome(&status), ("FAILED", "Preempted", None), "{:?}", status.message);
    ns.running("grand").await;
    classes.delete(&ns.namespace, &DeleteParams::default()).await.unwrap();
    node.end().await;
    ns.end().await;
}

/// A kubelet that finds, after a restart, that a container is gone says so, and makes up an exit code.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_end_that_nobody_saw_has_no_exit_code() {
    let ns = TestNamespace::new("unseen").await;
    let node = FakeNode::new(&ns).await;
    ns.sandbox("unseen", node.take(json!({}))).await;
    let pod = ns.running("unseen").await.pod_name.unwrap();
    let end = json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "could not be located"});
    let container = json!({"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": null, "terminated": end}});
    ns.patch_status::<Pod>(&pod, json!({"phase": "Failed", "containerStatuses": [container]}))
        .await;
    let status = ns.ended("unseen").await;
    assert_eq!(
        outcome(&status),
        ("FAILED", "ContainerStatusUnknown", None),
        "{:?}",
        status.message
    );
    node.end().await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_that_is_deleted_while_it_waits_leaves_nothing() {
    let ns = TestNamespace::new("early").await;
    ns.sandbox("early", sh("sleep 600")).await;
    ns.api::<Sandbox>()
        .delete("early", &DeleteParams::default())
        .await
        .unwrap();
    ns.eventually("all children to go", || async {
        let (pods, policies) = (ns.count::<Pod>().await, ns.count::<NetworkPolicy>().await);
        // The namespace's standing deny-all stays.
        if pods == 0 && policies <= 1 {
            Ok(())
        } else {
            Err(format!("{pods} pods, {policies} policies"))
        }
    })
    .await;
    ns.end().await;
}
