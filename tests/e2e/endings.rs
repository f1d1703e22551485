//! How a sandbox ends, and every way in which one does not start: each documented reason by a real case.

use crate::support::{Case, Scene, outcome, sh, with};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

const ALLOCATE: &str = "python3 -c 'x = bytearray(512 << 20); x[::4096] = bytes(len(x[::4096]))'";

fn cases() -> Vec<Case> {
    let small = json!({"resources": {"limits": {"memory": "64Mi", "cpu": "200m"}}});
    let light = |spec: Value| with(json!({"resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}}}), spec);
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
            light(json!({"envFrom": [{"configMapRef": {"name": "missing"}}]})),
            ("FAILED", "CreateContainerConfigError", None),
        ),
        (
            "no-file-source",
            waiting(json!({"files": [{"path": "/f", "configMapKeyRef": {"name": "missing", "key": "k"}}]})),
            ("FAILED", "StartTimeout", None),
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
            "reserved-label",
            light(json!({"podLabels": {"sandbox-operator.dev/sandbox-uid": "x"}})),
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
async fn a_refused_quota_is_told_and_a_granted_one_taken() {
    let scene = Scene::new("quota").await;
    scene
        .create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}))
        .await;
    scene
        .eventually("the quota to be in force", || async {
            let quota = scene.api::<ResourceQuota>().get("none").await.map_err(|e| e.to_string())?;
            quota.status.and_then(|s| s.hard).map(drop).ok_or_else(|| "no status".into())
        })
        .await;
    scene.sandbox("quota", sh("true")).await;
    let status = scene.waits_for("quota", "QuotaExceeded").await;
    assert_eq!(status.state.as_str(), "PENDING");
    scene.patch::<ResourceQuota>("none", json!({"spec": {"hard": {"pods": "5"}}})).await;
    assert_eq!(outcome(&scene.ended("quota").await), ("COMPLETED", "Completed", Some(0)));
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pod_security_refuses_baseline_and_admits_restricted() {
    let scene = Scene::labelled("security", json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let rootless = json!({"hostUsers": true, "runAsUser": 1000});
    scene.sandbox("refused", with(sh("true"), json!({"hostUsers": true}))).await;
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
    assert_eq!(outcome(&admitted), ("COMPLETED", "Completed", Some(0)), "{:?}", admitted.message);
    scene.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_record_goes_with_its_time_to_live() {
    let scene = Scene::new("ttl").await;
    scene.sandbox("ttl", with(sh("true"), json!({"ttlSecondsAfterFinished": 0}))).await;
    scene.gone::<sandbox_operator::api::Sandbox>("ttl").await;
    scene
        .eventually("its children to go", || async {
            let pods = scene.count::<k8s_openapi::api::core::v1::Pod>().await;
            if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
        })
        .await;
    scene.end().await;
}
