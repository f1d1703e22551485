//! How a sandbox ends, and every way in which one does not start: each documented reason by a real case.

use crate::nodes::FakeNode;
use crate::support::{Case, TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use sandbox_operator::api::Sandbox;
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
    let ns = TestNamespace::new("endings").await;
    let wrong = ns.run_all(cases()).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_a_sandbox_waits_for_is_shown() {
    let ns = TestNamespace::new("waiting").await;
    let node = FakeNode::silent(&ns).await;
    ns.sandbox("scheduling", json!({"nodeSelector": {"no-node": "has-this"}}))
        .await;
    ns.sandbox("starting", node.take(json!({}))).await;
    let unschedulable = ns.waits_for("scheduling", "Unschedulable").await;
    // What a scheduler writes that is itself in trouble. The real one may overwrite it at any time.
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulerError"});
    let pod = unschedulable.pod_name.unwrap();
    let status = ns
        .eventually("reason Scheduling", || async {
            ns.patch_status::<Pod>(&pod, json!({"conditions": [&condition]})).await;
            let status = ns.api::<Sandbox>().get("scheduling").await.unwrap().status.unwrap();
            match status.reason.as_deref() {
                Some("Scheduling") => Ok(status),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    assert_eq!(status.state.as_str(), "PENDING");
    assert_eq!(ns.waits_for("starting", "Starting").await.state.as_str(), "CREATING");
    // A kubelet that says nothing.
    ns.sandbox("silent", node.take(json!({"startTimeoutSeconds": 5}))).await;
    assert_eq!(outcome(&ns.ended("silent").await), ("FAILED", "StartTimeout", None));
    node.end().await;
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_volume_without_its_source_is_reported_and_mounted_once_that_exists() {
    let ns = TestNamespace::new("volume").await;
    let file = json!({"path": "/f", "configMapKeyRef": {"name": "late", "key": "k"}});
    ns.sandbox("a", light(with(sh("cat /f"), json!({"files": [file]}))))
        .await;
    let status = ns.waits_for("a", "VolumeNotReady").await;
    assert_eq!(status.state.as_str(), "CREATING");
    assert!(status.message.unwrap().contains("\"late\" not found"));
    ns.create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "v"}}))
        .await;
    assert_eq!(outcome(&ns.ended("a").await), ("COMPLETED", "Completed", Some(0)));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_secret_of_the_environment_may_be_created_later() {
    let ns = TestNamespace::new("env").await;
    let from = |kind: &str| json!({"envFrom": [{kind: {"name": "late"}}]});
    let key = json!({"env": [{"name": "k", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}]});
    let cases = [
        ("config-map", from("configMapRef")),
        ("secret", from("secretRef")),
        ("key", key),
    ];
    for (name, spec) in cases.clone() {
        ns.sandbox(name, light(with(sh("test $k = v"), spec))).await;
    }
    for (name, _) in &cases {
        let status = ns.waits_for(name, "CreateContainerConfigError").await;
        assert_eq!(status.state.as_str(), "CREATING");
        assert!(status.message.unwrap().contains("\"late\" not found"));
    }
    ns.create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "v"}}))
        .await;
    ns.create::<Secret>(json!({"metadata": {"name": "late"}, "stringData": {"k": "v"}}))
        .await;
    for (name, _) in cases {
        assert_eq!(
            outcome(&ns.ended(name).await),
            ("COMPLETED", "Completed", Some(0)),
            "{name}"
        );
    }
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn each_end_is_an_event() {
    let ns = TestNamespace::new("events").await;
    ns.sandbox("completed", light(sh("true"))).await;
    ns.sandbox("failed", light(sh("exit 3"))).await;
    ns.sandbox("stopped", light(json!({}))).await;
    ns.sandbox("expired", light(with(json!({}), json!({"maxLifetimeSeconds": 5}))))
        .await;
    ns.running("stopped").await;
    ns.stop("stopped").await;
    ns.eventually("four events", || async {
        let events = ns.api::<Event>().list(&ListParams::default()).await.unwrap();
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
    ns.end().await;
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
    let ns = TestNamespace::new("never-ran").await;
    let image = json!({"containerImage": "registry.invalid/nothing:1"});
    ns.sandbox("stopped", light(image.clone())).await;
    ns.sandbox("expired", light(with(image, json!({"maxLifetimeSeconds": 30}))))
        .await;
    ns.waits_for("stopped", "ImagePullError").await;
    ns.stop("stopped").await;
    assert_eq!(outcome(&ns.ended("stopped").await), ("TERMINATED", "Stopped", None));
    assert_eq!(outcome(&ns.ended("expired").await), ("FAILED", "ImagePullError", None));
    ns.eventually("both pods to go", || async {
        let pods = ns.count::<Pod>().await;
        if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
    })
    .await;
    assert_eq!(ns.count::<sandbox_operator::api::Sandbox>().await, 2);
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_record_keeps_times_pod_and_logs() {
    let ns = TestNamespace::new("record").await;
    ns.sandbox("record", sh("echo out; echo err >&2; exit 4")).await;
    let status = ns.ended("record").await;
    let (started, finished) = (status.started_at.unwrap().0, status.finished_at.unwrap().0);
    assert!(started <= finished);
    assert!(status.expires_at.unwrap().0 > finished);
    let logs = ns.logs(&status.pod_name.unwrap()).await;
    assert!(logs.contains("out\n") && logs.contains("err\n"), "{logs}");
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_sandbox_waits_for_quota() {
    let ns = TestNamespace::new("quota").await;
    ns.create::<ResourceQuota>(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}))
        .await;
    ns.eventually("the quota to be in force", || async {
        let quota = ns.api::<ResourceQuota>().get("none").await.map_err(|e| e.to_string())?;
        quota
            .status
            .and_then(|s| s.hard)
            .map(drop)
            .ok_or_else(|| "no status".into())
    })
    .await;
    ns.sandbox("quota", sh("true")).await;
    let status = ns.waits_for("quota", "QuotaExceeded").await;
    assert_eq!(status.state.as_str(), "PENDING");
    ns.patch::<ResourceQuota>("none", json!({"spec": {"hard": {"pods": "5"}}}))
        .await;
    assert_eq!(outcome(&ns.ended("quota").await), ("COMPLETED", "Completed", Some(0)));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn pod_security_refuses_baseline_and_admits_restricted() {
    let ns = TestNamespace::labelled("security", json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
    let rootless = json!({"hostUsers": true, "runAsUser": 1000});
    ns.sandbox("refused", with(sh("true"), json!({"hostUsers": true})))
        .await;
    ns.sandbox(
        "admitted",
        with(
            with(sh("id -u"), rootless),
            json!({"securityProfile": "Restricted", "readOnlyRootFilesystem": true}),
        ),
    )
    .await;
    let refused = ns.ended("refused").await;
    assert_eq!(outcome(&refused), ("FAILED", "PolicyRejected", None));
    assert!(refused.message.unwrap().contains("violates PodSecurity"));
    let admitted = ns.ended("admitted").await;
    assert_eq!(
        outcome(&admitted),
        ("COMPLETED", "Completed", Some(0)),
        "{:?}",
        admitted.message
    );
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_record_is_deleted_after_its_time_to_live() {
    let ns = TestNamespace::new("ttl").await;
    ns.sandbox("ttl", with(sh("true"), json!({"ttlSecondsAfterFinished": 0})))
        .await;
    ns.gone::<sandbox_operator::api::Sandbox>("ttl").await;
    ns.eventually("its children to go", || async {
        let pods = ns.count::<Pod>().await;
        if pods == 0 { Ok(()) } else { Err(format!("{pods} pods")) }
    })
    .await;
    ns.end().await;
}
