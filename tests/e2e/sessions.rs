//! Sessions: defaults, limits, closing, and deletion by owner references alone.

use crate::release::without_operator;
use crate::support::{TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, PropagationPolicy};
use sandbox_operator::api::{Sandbox, SandboxSession, SandboxSessionStatus};
use serde_json::json;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn defaults_come_from_a_session_that_arrives_later() {
    let ns = TestNamespace::new("session").await;
    let made = ns
        .sandbox(
            "a",
            with(
                sh("test $A = own && test $B = theirs"),
                json!({"sessionName": "s", "env": [{"name": "A", "value": "own"}], "tags": ["x"]}),
            ),
        )
        .await;
    assert_eq!(ns.waits_for("a", "SessionNotFound").await.state.as_str(), "PENDING");
    let env = json!([{"name": "A", "value": "theirs"}, {"name": "B", "value": "theirs"}]);
    ns.session(
        "s",
        json!({"defaults": {"env": env, "tags": ["y"], "maxLifetimeSeconds": 77}}),
    )
    .await;
    let status = ns.ended("a").await;
    assert_eq!(outcome(&status), ("COMPLETED", "Completed", Some(0)));
    assert_eq!(ns.reasons(&made).await[..2], ["SessionNotFound", "Pending"]);
    assert_eq!(
        (status.max_lifetime_seconds, status.tags),
        (Some(77), Some(vec!["x".into(), "y".into()]))
    );
    session_until(&ns, |status| {
        is_ready_because(status, "Open") && (status.completed, status.active) == (1, 0)
    })
    .await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_full_session_lets_the_next_in_when_one_ends_and_a_closed_one_stops_all() {
    let ns = TestNamespace::new("full").await;
    ns.session("s", json!({"maxSandboxes": 1})).await;
    ns.sandbox("first", json!({"sessionName": "s"})).await;
    ns.running("first").await;
    ns.sandbox("second", json!({"sessionName": "s"})).await;
    assert_eq!(ns.waits_for("second", "SessionFull").await.state.as_str(), "PENDING");
    ns.stop("first").await;
    ns.running("second").await;
    ns.patch::<SandboxSession>("s", json!({"spec": {"desiredState": "Closed"}}))
        .await;
    assert_eq!(
        outcome(&ns.ended("second").await),
        ("TERMINATED", "SessionClosed", Some(0))
    );
    ns.sandbox("late", json!({"sessionName": "s"})).await;
    assert_eq!(outcome(&ns.ended("late").await), ("TERMINATED", "SessionClosed", None));
    assert_eq!(ns.count::<Sandbox>().await, 3, "closing keeps the records");
    session_until(&ns, |status| {
        is_ready_because(status, "Closed") && format!("{:?}", status.state) == "Closed"
    })
    .await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn deleting_a_session_deletes_everything_without_the_operator() {
    let ns = TestNamespace::new("gc").await;
    ns.session("s", json!({})).await;
    ns.sandbox(
        "a",
        with(
            sh("trap '' TERM; while :; do sleep 0.1; done"),
            json!({"sessionName": "s", "terminationGracePeriodSeconds": 5}),
        ),
    )
    .await;
    let child = ns.running("a").await.pod_name.unwrap();
    without_operator(&ns, async {
        ns.api::<SandboxSession>()
            .delete("s", &DeleteParams::background())
            .await
            .unwrap();
        ns.eventually("the pod to go before its policy", || async {
            let policy = ns.api::<NetworkPolicy>().get_opt(&child).await.unwrap();
            let pod = ns.api::<Pod>().get_opt(&child).await.unwrap();
            assert!(pod.is_none() || policy.is_some(), "the pod exists without its policy");
            if pod.is_none() {
                Ok(())
            } else {
                Err("the pod is there".into())
            }
        })
        .await;
        ns.gone::<Sandbox>("a").await;
        ns.gone::<NetworkPolicy>(&child).await;
    })
    .await;
    ns.end().await;
}

/// `kubectl delete sbxs s --cascade=orphan` with a running sandbox, then a new session of the same name.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_later_session_of_the_same_name_has_nothing_to_do_with_an_orphan() {
    let ns = TestNamespace::new("orphan").await;
    ns.session("s", json!({})).await;
    ns.sandbox("old", json!({"sessionName": "s"})).await;
    let pinned = ns.running("old").await.session_uid;
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    ns.api::<SandboxSession>().delete("s", &orphan).await.unwrap();
    ns.gone::<SandboxSession>("s").await;

    let session = ns.session("s", json!({"maxSandboxes": 1})).await;
    ns.sandbox("new", json!({"sessionName": "s"})).await;
    let status = ns.running("new").await;
    assert_eq!(status.session_uid, session.metadata.uid, "the orphan takes no place");
    session_until(&ns, |s| (s.active, s.running, s.pending) == (1, 1, 0)).await;
    ns.patch::<SandboxSession>("s", json!({"spec": {"desiredState": "Closed"}}))
        .await;
    assert_eq!(
        outcome(&ns.ended("new").await),
        ("TERMINATED", "SessionClosed", Some(0))
    );
    session_until(&ns, |s| (s.active, s.running, s.terminated) == (0, 0, 1)).await;
    let old = ns.running("old").await;
    assert!(pinned.is_some());
    assert_eq!(old.session_uid, pinned);
    assert_ne!(old.session_uid, session.metadata.uid);
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn active_sandboxes_are_those_that_the_limit_counts() {
    let ns = TestNamespace::new("counts").await;
    ns.session("s", json!({"maxSandboxes": 2})).await;
    for i in 0..4 {
        ns.sandbox(&format!("s{i}"), light(json!({"sessionName": "s"}))).await;
    }
    session_until(&ns, |s| (s.active, s.running, s.pending) == (2, 2, 2)).await;
    ns.end().await;
}

/// `metadata.ownerReferences` set at creation, as the operator would set it.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_owner_reference_set_at_creation_does_not_pass_the_limit() {
    let ns = TestNamespace::new("owned").await;
    let session = ns.session("s", json!({"maxSandboxes": 1})).await;
    let owner = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "name": "s", "uid": session.metadata.uid});
    for name in ["a", "b"] {
        let metadata = json!({"name": name, "ownerReferences": [owner]});
        let spec = light(json!({"sessionName": "s"}));
        ns
            .create::<Sandbox>(json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "spec": spec}))
            .await;
    }
    session_until(&ns, |s| (s.active, s.running, s.pending) == (1, 1, 1)).await;
    ns.end().await;
}

/// Caches keep only a part of heavy objects.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn heavy_sandboxes_and_sessions_start_with_all_that_they_have() {
    let ns = TestNamespace::new("heavy").await;
    let heavy = "x".repeat(100_000);
    ns.session("s", json!({"defaults": {"env": [{"name": "THEIRS", "value": heavy}]}}))
        .await;
    let spec = with(
        sh("test ${#THEIRS} = 100000 && test ${#OWN} = 100000"),
        json!({"sessionName": "s", "env": [{"name": "OWN", "value": heavy}]}),
    );
    ns.sandbox("a", spec).await;
    assert_eq!(outcome(&ns.ended("a").await), ("COMPLETED", "Completed", Some(0)));
    ns.end().await;
}

/// Waits until the session's status is as `wanted` says.
async fn session_until(ns: &TestNamespace, wanted: impl Fn(&SandboxSessionStatus) -> bool) {
    ns.eventually("the session's status", || async {
        let status = ns
            .api::<SandboxSession>()
            .get("s")
            .await
            .unwrap()
            .status
            .unwrap_or_default();
        if wanted(&status) {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

fn is_ready_because(status: &SandboxSessionStatus, reason: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.type_ == "Ready" && c.reason == reason)
}
