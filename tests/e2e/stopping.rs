//! Stopping keeps record and logs; deleting removes everything, the network policy last.

use crate::support::{TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::DeleteParams;
use sandbox_operator::api::{Sandbox, SandboxStatus};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_stop_keeps_pod_exit_code_and_logs() {
    let ns = TestNamespace::new("stop").await;
    ns.sandbox(
        "polite",
        sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"),
    )
    .await;
    ns.sandbox(
        "deaf",
        with(
            sh("trap '' TERM; echo up; while :; do sleep 0.1; done"),
            json!({"terminationGracePeriodSeconds": 2}),
        ),
    )
    .await;
    ns.sandbox("idle", json!({})).await;
    ns.sandbox("waiting", json!({"nodeSelector": {"no-node": "has-this"}}))
        .await;
    for name in ["polite", "deaf", "idle"] {
        ns.running(name).await;
    }
    ns.eventually("both traps to be set", || async {
        for name in ["polite", "deaf"] {
            let pod = ns.running(name).await.pod_name.unwrap();
            if !ns.logs(&pod).await.contains("up") {
                return Err(format!("{name} is not up"));
            }
        }
        Ok(())
    })
    .await;
    ns.waits_for("waiting", "Unschedulable").await;
    for name in ["polite", "deaf", "idle", "waiting"] {
        ns.stop(name).await;
    }
    let polite = ns.ended("polite").await;
    assert_eq!(outcome(&polite), ("TERMINATED", "Stopped", Some(7)));
    assert!(ns.logs(&polite.pod_name.unwrap()).await.contains("bye"));
    assert_eq!(outcome(&ns.ended("deaf").await), ("TERMINATED", "Stopped", Some(137)));
    assert_eq!(outcome(&ns.ended("idle").await), ("TERMINATED", "Stopped", Some(0)));
    assert_eq!(outcome(&ns.ended("waiting").await), ("TERMINATED", "Stopped", None));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_natural_end_is_not_overwritten_by_a_later_stop() {
    let ns = TestNamespace::new("latched").await;
    ns.sandbox("done", sh("true")).await;
    let before = ns.ended("done").await;
    ns.stop("done").await;
    let after = ns
        .until("done", "to be acknowledged", |s| s.observed_generation == Some(2))
        .await;
    let wanted = SandboxStatus {
        observed_generation: Some(2),
        ..before
    };
    assert_eq!(after, wanted, "nothing else moves");
    ns.patch::<Sandbox>("done", json!({"spec": {"tags": ["later"]}})).await;
    let after = ns
        .until("done", "to be acknowledged", |s| s.observed_generation == Some(3))
        .await;
    assert_eq!(after.tags, Some(vec!["later".into()]));
    assert_eq!(outcome(&after), ("COMPLETED", "Completed", Some(0)));
    ns.end().await;
}

/// The kubelet knows the grace period of the pod only, two minutes.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_stop_without_an_agent_has_its_own_grace_and_terminated_means_that_nothing_runs() {
    let ns = TestNamespace::new("own-grace").await;
    let deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)";
    let spec = json!({"entrypoint": "Image", "args": ["python3", "-c", deaf], "terminationGracePeriodSeconds": 120});
    ns.sandbox("deaf", light(spec)).await;
    let pod = ns.running("deaf").await.pod_name.unwrap();
    ns.eventually("the signal to be ignored", || async {
        let logs = ns.logs(&pod).await;
        if logs.contains("up") { Ok(()) } else { Err(logs) }
    })
    .await;
    let began = Instant::now();
    let stop = json!({"spec": {"desiredState": "Stopped", "stopGracePeriodSeconds": 3}});
    ns.patch::<Sandbox>("deaf", stop).await;
    let status = ns.ended("deaf").await;
    let pod = ns.api::<Pod>().get_opt(&pod).await.unwrap();
    let statuses = pod.and_then(|p| p.status?.container_statuses).unwrap_or_default();
    let runs = statuses
        .iter()
        .any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
    assert!(!runs, "TERMINATED while the container runs");
    let took = began.elapsed();
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(40)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        (status.state.as_str(), status.reason.as_deref()),
        ("TERMINATED", Some("Stopped"))
    );
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_policy_outlives_a_pod_that_ignores_sigterm() {
    let ns = TestNamespace::new("cascade").await;
    ns.sandbox(
        "deaf",
        with(
            sh("trap '' TERM; while :; do sleep 0.1; done"),
            json!({"terminationGracePeriodSeconds": 8}),
        ),
    )
    .await;
    let child = ns.running("deaf").await.pod_name.unwrap();
    ns.api::<Sandbox>()
        .delete("deaf", &DeleteParams::background())
        .await
        .unwrap();
    ns.eventually("the pod to go, its policy staying until then", || async {
        // The policy is read first: if it is gone, a pod that still exists afterwards had none.
        let policy = ns.api::<NetworkPolicy>().get_opt(&child).await.unwrap();
        match ns.api::<Pod>().get_opt(&child).await.unwrap() {
            Some(pod) => {
                assert!(policy.is_some(), "the pod exists without its policy");
                Err(format!("pod deleting since {:?}", pod.metadata.deletion_timestamp))
            }
            None => Ok(()),
        }
    })
    .await;
    ns.gone::<NetworkPolicy>(&child).await;
    ns.gone::<Sandbox>("deaf").await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_created_again_at_once_is_another_one() {
    let ns = TestNamespace::new("again").await;
    ns.sandbox(
        "again",
        with(
            sh("trap '' TERM; while :; do sleep 0.1; done"),
            json!({"terminationGracePeriodSeconds": 5}),
        ),
    )
    .await;
    let first = ns.running("again").await.pod_name.unwrap();
    ns.api::<Sandbox>()
        .delete("again", &DeleteParams::background())
        .await
        .unwrap();
    ns.gone::<Sandbox>("again").await;
    let second = ns.sandbox("again", sh("true")).await;
    let status = ns.ended("again").await;
    assert_eq!(outcome(&status), ("COMPLETED", "Completed", Some(0)));
    assert_ne!(status.pod_name.as_deref(), Some(first.as_str()));
    assert!(status.pod_name.unwrap().ends_with(&second.uid().unwrap()[..8]));
    ns.end().await;
}
