//! Sessions: defaults, limits, closing, and deletion by owner references alone.

use crate::release::without_operator;
use crate::support::{Scene, outcome, sh, with};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::DeleteParams;
use sandbox_operator::api::{Sandbox, SandboxSession};
use serde_json::json;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn defaults_come_from_a_session_that_arrives_later() {
    let scene = Scene::new("session").await;
    let made = scene
        .sandbox(
            "a",
            with(
                sh("test $A = own && test $B = theirs"),
                json!({"sessionName": "s", "env": [{"name": "A", "value": "own"}], "tags": ["x"]}),
            ),
        )
        .await;
    assert_eq!(scene.waits_for("a", "SessionNotFound").await.state.as_str(), "PENDING");
    let env = json!([{"name": "A", "value": "theirs"}, {"name": "B", "value": "theirs"}]);
    scene
        .session("s", json!({"defaults": {"env": env, "tags": ["y"], "maxLifetimeSeconds": 77}}))
        .await;
    let status = scene.ended("a").await;
    assert_eq!(outcome(&status), ("COMPLETED", "Completed", Some(0)));
    assert_eq!(scene.story(&made).await[..2], ["SessionNotFound", "Pending"]);
    assert_eq!((status.max_lifetime_seconds, status.tags), (Some(77), Some(vec!["x".into(), "y".into()])));
    scene
        .eventually("the session to count it", || async {
            let status = scene.api::<SandboxSession>().get("s").await.unwrap().status.unwrap_or_default();
            let open = status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == "Open");
            if open && (status.completed, status.active) == (1, 0) {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_full_session_lets_the_next_in_when_one_ends_and_a_closed_one_stops_all() {
    let scene = Scene::new("full").await;
    scene.session("s", json!({"maxSandboxes": 1})).await;
    scene.sandbox("first", json!({"sessionName": "s"})).await;
    scene.running("first").await;
    scene.sandbox("second", json!({"sessionName": "s"})).await;
    assert_eq!(scene.waits_for("second", "SessionFull").await.state.as_str(), "PENDING");
    scene.stop("first").await;
    scene.running("second").await;
    scene.patch::<SandboxSession>("s", json!({"spec": {"desiredState": "Closed"}})).await;
    assert_eq!(outcome(&scene.ended("second").await), ("TERMINATED", "SessionClosed", Some(0)));
    scene.sandbox("late", json!({"sessionName": "s"})).await;
    assert_eq!(outcome(&scene.ended("late").await), ("TERMINATED", "SessionClosed", None));
    assert_eq!(scene.count::<Sandbox>().await, 3, "closing keeps the records");
    scene
        .eventually("the session to be CLOSED", || async {
            let status = scene.api::<SandboxSession>().get("s").await.unwrap().status.unwrap_or_default();
            let closed = status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == "Closed");
            if closed && format!("{:?}", status.state) == "Closed" {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn deleting_a_session_deletes_everything_without_the_operator() {
    let scene = Scene::new("gc").await;
    scene.session("s", json!({})).await;
    scene
        .sandbox(
            "a",
            with(
                sh("trap '' TERM; while :; do sleep 0.1; done"),
                json!({"sessionName": "s", "terminationGracePeriodSeconds": 5}),
            ),
        )
        .await;
    let child = scene.running("a").await.pod_name.unwrap();
    without_operator(&scene, async {
        scene.api::<SandboxSession>().delete("s", &DeleteParams::background()).await.unwrap();
        scene
            .eventually("the pod to go before its policy", || async {
                let policy = scene.api::<NetworkPolicy>().get_opt(&child).await.unwrap();
                let pod = scene.api::<Pod>().get_opt(&child).await.unwrap();
                assert!(pod.is_none() || policy.is_some(), "the pod is there without its policy");
                if pod.is_none() { Ok(()) } else { Err("the pod is there".into()) }
            })
            .await;
        scene.gone::<Sandbox>("a").await;
        scene.gone::<NetworkPolicy>(&child).await;
    })
    .await;
    scene.end().await;
}
