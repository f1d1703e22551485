//! How a sandbox ends, and every way in which one does not start: each documented reason by a real case.

use crate::nodes::FakeNode;
use crate::support::{Case, Scene, light, outcome, sh, with};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};

const ALLOCATE: &str = "python3 -c 'x = bytearray(512 << 20); x[::4096] = bytes(len(x[::4096]))'";

fn cases() -> Vec<Case> {
    let small = json!({"resources": {"limits": {"memory": "64Mi", "cpu": "200m"}}});
    // The name of the registry must have failed to resolve by then.
    let patient = |spec: Value| light(with(json!({"startTimeoutSeconds": 45}), spec));
    let waiting = |spec: Value| light(with(json!({"startTimeoutSeconds": 8}), spec));
    vec![
        ("exit-0", light(sh("echo done")), ("COMPLETED", "Completed", Some(0))),
        ("exit-3", light(sh("exit 3")), ("FAILED", "Error", Some(3))),
        (
            "not-found",
            light(json!({"command": ["/no/such/program"]})),
            ("FAILED", "Error", Some(127)),
        ),
        (
            "not-executable",
            light(json!({"command": ["/etc/passwd"]})),
            ("FAILED", "Error", Some(126)),
        ),
        ("signal", light(sh("kill -KILL $$$$")), ("FAILED", "Error", Some(137))),
        (
            "signal-term",
            light(json!({"command": ["python3", "-c", "import os; os.kill(os.getpid(), 15)"]})),
            ("FAILED", "Error", Some(143)),
        ),
        (
            "oom",
            with(
                json!({"command": ["python3", "-c", "x = bytearray(512 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1"]}),
                small.clone(),
            ),
            ("FAILED", "OOMKilled", Some(137)),
        ),
        (
            "oom-child",
            with(sh(&format!("{ALLOCATE}; sleep 1; exit 0")), small),
            ("COMPLETED", "Completed", Some(0)),
        ),
        (
            "pull-error",
            patient(json!({"containerImage": "registry.invalid/nothing:1"})),
            ("FAILED", "ImagePullError", None),
        ),
        (
            "never-pull",
            light(json!({"containerImage": "no-such-image:1", "imagePullPolicy": "Never"})),
            ("FAILED", "ErrImageNeverPull", None),
        ),
        (
            "bad-image-name",
            light(json!({"containerImage": "NOT:A:NAME"})),
            ("FAILED", "InvalidImageName", None),
        ),
        (
            "no-config-map",
            waiting(json!({"envFrom": [{"configMapRef": {"name": "missing"}}]})),
            ("FAILED", "CreateContainerConfigError", None),
        ),
        (
            "no-file-source",
            waiting(json!({"files": [{"path": "/f", "configMapKeyRef": {"name": "missing", "key": "k"}}]})),
            ("FAILED", "VolumeNotReady", None),
        ),
        (
            "start-error",
            light(json!({"entrypoint": "Image", "args": ["/no/such/program"]})),
            ("FAILED", "StartError", None),
        ),
        (
            "unschedulable",
            waiting(json!({"nodeSelector": {"no-node": "has-this"}})),
            ("FAILED", "Unschedulable", None),
        ),
        (
            "no-session",
            waiting(json!({"sessionName": "missing"})),
            ("FAILED", "SessionNotFound", None),
        ),
        (
            "lifetime",
            light(with(sh("sleep 600"), json!({"maxLifetimeSeconds": 6}))),
            ("TERMINATED", "LifetimeExceeded", Some(143)),
        ),
        (
            "lifetime-trapped",
            light(with(
                sh("trap 'exit 0' TERM; while :; do sleep 0.1; done"),
                json!({"maxLifetimeSeconds": 6}),
            )),
            ("TERMINATED", "LifetimeExceeded", Some(0)),
        ),
        (
            "metadata-service",
            light(json!({"network": {"egress": {"mode": "Rules", "rules": [{"cidr": "169.254.169.254/32"}]}}})),
            ("FAILED", "InvalidSpec", None),
        ),
        (
            "runtime-class",
            light(json!({"runtimeClassName": "missing"})),
            ("FAILED", "InvalidSpec", None),
        ),
        (
            "agents-port",
            light(json!({"ports": [{"name": "agent", "port": 8971}]})),
            ("FAILED", "InvalidSpec", None),
        ),
    ]
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn every_ending_has_its_state_reason_and_exit_code() {
    let scene = Scene::new("endings").await;
    let wrong = scene.run_all(cases()).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_a_sandbox_waits_for_is_shown() {
    let scene = Scene::new("waiting").await;
    let node = FakeNode::silent(&scene).await;
    scene
        .sandbox("scheduling", json!({"nodeSelector": {"no-node": "has-this"}}))
        .await;
    scene.sandbox("starting", node.take(json!({}))).await;
    let unschedulable = scene.waits_for("scheduling", "Unschedulable").await;
    // What a scheduler says that is itself in trouble.
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulerError"});
    scene
        .patch_status::<Pod>(&unschedulable.pod_name.unwrap(), json!({"conditions": [condition]}))
        .await;
    assert_eq!(
        scene.waits_for("scheduling", "Scheduling").await.state.as_str(),
        "PENDING"
    );
    assert_eq!(scene.waits_for("starting", "Starting").await.state.as_str(), "CREATING");
    // A kubelet that says nothing.
    scene
        .sandbox("silent", node.take(json!({"startTimeoutSeconds": 5})))
        .await;
    assert_eq!(outcome(&scene.ended("silent").await), ("FAILED", "StartTimeout", None));
    node.end().await;
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_volume_without_its_source_is_reported_and_mounted_once_that_exists() {
    let scene = Scene::new("volume").await;
    let file = json!({"path": "/f", "configMapKeyRef": {"name": "late", "key": "k"}});
    scene
        .sandbox("a", light(with(sh("cat /f"), json!({"files": [file]}))))
        .await;
    let status = scene.waits_for("a", "VolumeNotReady").await;
    assert_eq!(status.state.as_str(), "CREATING");
    assert!(status.message.unwrap().contains("\"late\" not found"));
    scene
        .create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "v"}}))
        .await;
    assert_eq!(outcome(&scene.ended("a").await), ("COMPLETED", "Completed", Some(0)));
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_secret_of_the_environment_may_be_created_later() {
    let scene = Scene::new("env").await;
    let from = |kind: &str| json!({"envFrom": [{kind: {"name": "late"}}]});
    let key = json!({"env": [{"name": "k", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]});
    let cases = [
        ("config-map", from("configMapRef")),
        ("secret", from("secretRef")),
        ("key", key),
    ];
    for (name, spec) in cases.clone() {
        scene.sandbox(name, light(with(sh("test $k = v"), spec))).await;
    }
    for (name, _) in &cases {
        let status = scene.waits_for(name, "CreateContainerConfigError").await;
        assert_eq!(status.state.as_str(), "CREATING");
        assert!(status.message.unwrap().contains("\"late\" not found"));
    }
    scene
        .create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "v"}}))
        .await;
    scene
        .create::<Secret>(json!({"metadata": {"name": "late"}, "stringData": {"k": "v"}}))
        .await;
    for (name, _) in cases {
        assert_eq!(
            outcome(&scene.ended(name).await),
            ("COMPLETED", "Completed", Some(0)),
            "{name}"
        );
    }
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn each_end_is_an_event() {
    let scene = Scene::new("events").await;
    scene.sandbox("completed", light(sh("true"))).await;
    scene.sandbox("failed", light(sh("exit 3"))).await;
    scene.sandbox("stopped", light(json!({}))).await;
    scene
        .sandbox("expired", light(with(json!({}), json!({"maxLifetimeSeconds": 5}))))
        .await;
    scene.running("stopped").await;
    scene.stop("stopped").await;
    scene
        .eventually("four events", || async {
            let events = scene.api::<Event>().list(&ListParams::default()).await.unwrap();
            let of_end = |e: Event| Some((e.regarding?.name?, e.type_?, e.reason?));
            let mut seen: Vec<_> = events.into_iter().filter(is_of_sandbox).filter_map(of_end).collect();
            seen.sort();
            let wanted = [
                ("completed", "Normal", "Completed"),
                ("expired", "Normal", "LifetimeExceeded"),
                ("failed", "Warning", "Error"),
                ("stopped", "Normal", "Stopped"),
            ];
            let wanted: Vec<_> = wanted
                .map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
                .into();
            if seen == wanted {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await;
    scene.end().await;
}

fn is_of_sandbox(event: &Event) -> bool {
    event
        .regarding
        .as_ref()
        .is_some_and(|r| r.kind.as_deref() == Some("Sandbox"))
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_pod_that_never_ran_is_deleted_and_its_record_is_kept() {
    let scene = Scene::new("never-ran").await;
    let image = json!({"containerImage": "registry.invalid/nothing:1"});
    scene.sandbox("stopped", light(image.clone())).await;
    scene
        .sandbox("expired", light(with(image, json!({"maxLifetimeSeconds": 30}))))
        .await;
    scene.waits_for("stopped", "ImagePullError").await;
    scene.stop("stopped").await;
    assert_eq!(outcome(&scene.ended("stopped").await), ("TERMINATED", "Stopped", None));
    assert_eq!(
        outcome(&scene.ended("expired").await),
        ("FAILED", "ImagePullError", None)
    );
    scene
        .eventually("both pods to go", || async {
            let pods = scene.count::<Pod>().await;
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        })
        .await;
    assert_eq!(scene.count::<sandbox_operator::api::Sandbox>().await, 2);
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_record_keeps_times_pod_and_logs() {
    let scene = Scene::new("record").await;
    scene.sandbox("record", sh("echo out; echo err >&2; exit 4")).await;
    let status = scene.ended("record").await;
    let (started, finished) = (status.started_at.unwrap().0, status.finished_at.unwrap().0);
    assert!(started <= finished);
    assert!(status.expires_at.unwrap().0 > finished);
    let logs = scene.logs(&status.pod_name.unwrap()).await;
    assert!(logs.contains("out\n") && logs.contains("err\n"), "{logs}");
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_waits_for_quota() {
    let scene = Scene::new("quota").await;
    scene
        .create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}))
        .await;
    scene
        .eventually("the quota to be in force", || async {
            let quota = scene
                .api::<ResourceQuota>()
                .get("none")
                .await
                .map_err(|e| e.to_string())?;
            quota
                .status
                .and_then(|s| s.hard)
                .map(drop)
                .ok_or_else(|| "no status".into())
        })
        .await;
    scene.sandbox("quota", sh("true")).await;
    let status = scene.waits_for("quota", "QuotaExceeded").await;
    assert_eq!(status.state.as_str(), "PENDING");
    scene
        .patch::<ResourceQuota>("none", json!({"spec": {"hard": {"pods": "5"}}}))
        .await;
    assert_eq!(
        outcome(&scene.ended("quota").await),
        ("COMPLETED", "Completed", Some(0))
    );
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pod_security_refuses_baseline_and_admits_restricted() {
    let scene = Scene::labelled("security", json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let rootless = json!({"hostUsers": true, "runAsUser": 1000});
    scene
        .sandbox("refused", with(sh("true"), json!({"hostUsers": true})))
        .await;
    scene
        .sandbox(
            "admitted",
            with(
                with(sh("id -u"), rootless),
                json!({"securityProfile": "Restricted", "readOnlyRootFilesystem": true}),
            ),
        )
        .await;
    let refused = scene.ended("refused").await;
    assert_eq!(outcome(&refused), ("FAILED", "PolicyRejected", None));
    assert!(refused.message.unwrap().contains("violates PodSecurity"));
    let admitted = scene.ended("admitted").await;
    assert_eq!(
        outcome(&admitted),
        ("COMPLETED", "Completed", Some(0)),
        "{:?}",
        admitted.message
    );
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_record_is_deleted_after_its_time_to_live() {
    let scene = Scene::new("ttl").await;
    scene
        .sandbox("ttl", with(sh("true"), json!({"ttlSecondsAfterFinished": 0})))
        .await;
    scene.gone::<sandbox_operator::api::Sandbox>("ttl").await;
    scene
        .eventually("its children to go", || async {
            let pods = scene.count::<Pod>().await;
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        })
        .await;
    scene.end().await;
}
