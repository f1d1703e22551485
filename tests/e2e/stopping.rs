//! Stopping keeps record and logs; deleting removes everything, the network policy last.

use crate::support::{Scene, light, outcome, sh, with};
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
    let scene = Scene::new("stop").await;
    scene
        .sandbox(
            "polite",
            sh("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"),
        )
        .await;
    scene
        .sandbox(
            "deaf",
            with(
                sh("trap '' TERM; echo up; while :; do sleep 0.1; done"),
                json!({"terminationGracePeriodSeconds": 2}),
            ),
        )
        .await;
    scene.sandbox("idle", json!({})).await;
    scene
        .sandbox("waiting", json!({"nodeSelector": {"no-node": "has-this"}}))
        .await;
    for name in ["polite", "deaf", "idle"] {
        scene.running(name).await;
    }
    scene
        .eventually("both traps to be set", || async {
            for name in ["polite", "deaf"] {
                let pod = scene.running(name).await.pod_name.unwrap();
                if !scene.logs(&pod).await.contains("up") {
                    return Err(format!("{name} is not up"));
                }
            }
            Ok(())
        })
        .await;
    scene.waits_for("waiting", "Unschedulable").await;
    for name in ["polite", "deaf", "idle", "waiting"] {
        scene.stop(name).await;
    }
    let polite = scene.ended("polite").await;
    assert_eq!(outcome(&polite), ("TERMINATED", "Stopped", Some(7)));
    assert!(scene.logs(&polite.pod_name.unwrap()).await.contains("bye"));
    assert_eq!(
        outcome(&scene.ended("deaf").await),
        ("TERMINATED", "Stopped", Some(137))
    );
    assert_eq!(outcome(&scene.ended("idle").await), ("TERMINATED", "Stopped", Some(0)));
    assert_eq!(outcome(&scene.ended("waiting").await), ("TERMINATED", "Stopped", None));
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_natural_end_is_not_overwritten_by_a_later_stop() {
    let scene = Scene::new("latched").await;
    scene.sandbox("done", sh("true")).await;
    let before = scene.ended("done").await;
    scene.stop("done").await;
    let after = scene
        .until("done", "to be acknowledged", |s| s.observed_generation == Some(2))
        .await;
    let wanted = SandboxStatus {
        observed_generation: Some(2),
        ..before
    };
    assert_eq!(after, wanted, "nothing else moves");
    scene
        .patch::<Sandbox>("done", json!({"spec": {"tags": ["later"]}}))
        .await;
    let after = scene
        .until("done", "to be acknowledged", |s| s.observed_generation == Some(3))
        .await;
    assert_eq!(after.tags, Some(vec!["later".into()]));
    assert_eq!(outcome(&after), ("COMPLETED", "Completed", Some(0)));
    scene.end().await;
}

/// The kubelet knows the grace period of the pod only, two minutes.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_stop_without_an_agent_has_its_own_grace_and_terminated_means_that_nothing_runs() {
    let scene = Scene::new("own-grace").await;
    let deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)";
    let spec = json!({"entrypoint": "Image", "args": ["python3", "-c", deaf], "terminationGracePeriodSeconds": 120});
    scene.sandbox("deaf", light(spec)).await;
    let pod = scene.running("deaf").await.pod_name.unwrap();
    scene
        .eventually("the signal to be ignored", || async {
            let logs = scene.logs(&pod).await;
            if logs.contains("up") { Ok(()) } else { Err(logs) }
        })
        .await;
    let began = Instant::now();
    let stop = json!({"spec": {"desiredState": "Stopped", "stopGracePeriodSeconds": 3}});
    scene.patch::<Sandbox>("deaf", stop).await;
    let status = scene.ended("deaf").await;
    let pod = scene.api::<Pod>().get_opt(&pod).await.unwrap();
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
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_policy_outlives_a_pod_that_ignores_sigterm() {
    let scene = Scene::new("cascade").await;
    scene
        .sandbox(
            "deaf",
            with(
                sh("trap '' TERM; while :; do sleep 0.1; done"),
                json!({"terminationGracePeriodSeconds": 8}),
            ),
        )
        .await;
    let child = scene.running("deaf").await.pod_name.unwrap();
    scene
        .api::<Sandbox>()
        .delete("deaf", &DeleteParams::background())
        .await
        .unwrap();
    scene
        .eventually("the pod to go, its policy staying until then", || async {
            // The policy is asked for first: if it is gone, a pod that is still there afterwards had none.
            let policy = scene.api::<NetworkPolicy>().get_opt(&child).await.unwrap();
            match scene.api::<Pod>().get_opt(&child).await.unwrap() {
                Some(pod) => {
                    assert!(policy.is_some(), "the pod is there without its policy");
                    Err(format!("pod deleting since {:?}", pod.metadata.deletion_timestamp))
                }
                None => Ok(()),
            }
        })
        .await;
    scene.gone::<NetworkPolicy>(&child).await;
    scene.gone::<Sandbox>("deaf").await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_created_again_at_once_is_another_one() {
    let scene = Scene::new("again").await;
    scene
        .sandbox(
            "again",
            with(
                sh("trap '' TERM; while :; do sleep 0.1; done"),
                json!({"terminationGracePeriodSeconds": 5}),
            ),
        )
        .await;
    let first = scene.running("again").await.pod_name.unwrap();
    scene
        .api::<Sandbox>()
        .delete("again", &DeleteParams::background())
        .await
        .unwrap();
    scene.gone::<Sandbox>("again").await;
    let second = scene.sandbox("again", sh("true")).await;
    let status = scene.ended("again").await;
    assert_eq!(outcome(&status), ("COMPLETED", "Completed", Some(0)));
    assert_ne!(status.pod_name.as_deref(), Some(first.as_str()));
    assert!(status.pod_name.unwrap().ends_with(&second.uid().unwrap()[..8]));
    scene.end().await;
}
