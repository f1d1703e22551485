//! Pods that the cluster's admission changes, as service meshes and queues do.

use crate::support::{TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{ContainerStatus, Namespace, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::{Api, Resource};
use serde_json::json;

/// Adds a webhook that changes every pod of the namespace until that is deleted. Returns once `is_mutated` holds for a
/// pod.
async fn mutate_pods(ns: &TestNamespace, mutation: serde_json::Value, is_mutated: fn(&PodSpec) -> bool) {
    let name = &ns.namespace;
    let owner = Api::<Namespace>::all(ns.client.clone()).get(name).await.unwrap();
    let metadata = json!({"name": name, "ownerReferences": [owner.owner_ref(&())]});
    let policy = json!({"metadata": metadata, "spec": {
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        },
        "mutations": [mutation],
    }});
    let binding = json!({"metadata": metadata, "spec": {"policyName": name}});
    let policies = Api::<MutatingAdmissionPolicy>::all(ns.client.clone());
    let bindings = Api::<MutatingAdmissionPolicyBinding>::all(ns.client.clone());
    let create = PostParams::default();
    let policy = serde_json::from_value(policy).unwrap();
    policies.create(&create, &policy).await.unwrap();
    let binding = serde_json::from_value(binding).unwrap();
    bindings.create(&create, &binding).await.unwrap();
    let probe =
        json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "main", "image": "python:3.11"}]}});
    let probe: Pod = serde_json::from_value(probe).unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    ns.eventually("the mutation to be in force", || async {
        let pod = ns
            .api::<Pod>()
            .create(&dry_run, &probe)
            .await
            .map_err(|e| e.to_string())?;
        let spec = pod.spec.unwrap();
        if is_mutated(&spec) {
            Ok(())
        } else {
            Err(format!("{spec:?}"))
        }
    })
    .await;
}

/// What a service mesh adds: an ordinary container that never ends by itself. (An apply configuration may not set a
/// command.)
fn mesh() -> serde_json::Value {
    let script = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let container =
        format!(r#"Object.spec.containers{{name: "mesh", image: "python:3.11", command: ["sh", "-c", "{script}"]}}"#);
    let patch = format!(r#"[JSONPatch{{op: "add", path: "/spec/containers/-", value: {container}}}]"#);
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": patch}})
}

/// What a queue adds. (The API server breaks off a request whose JSON patch has a list as its value.)
fn gate() -> serde_json::Value {
    let gates =
        r#"Object{spec: Object.spec{schedulingGates: [Object.spec.schedulingGates{name: "example.com/queue"}]}}"#;
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": gates}})
}

/// A container's exit code, and when it ended.
type End = (i32, Option<Time>);

/// How each container of a pod ended, by name.
fn ends(pod: &Pod) -> Vec<(String, Option<End>)> {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let of = |c: &ContainerStatus| {
        let terminated = c.state.as_ref().and_then(|s| s.terminated.as_ref());
        (c.name.clone(), terminated.map(|t| (t.exit_code, t.finished_at.clone())))
    };
    let mut ends: Vec<_> = statuses.map(of).collect();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    ends
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_container_that_a_webhook_added_does_not_outlive_the_sandbox() {
    let ns = TestNamespace::new("mesh").await;
    mutate_pods(&ns, mesh(), |spec| spec.containers.len() == 2).await;
    for (name, script, wanted) in [
        ("completed", "echo out", ("COMPLETED", "Completed", Some(0))),
        ("failed", "echo out; exit 3", ("FAILED", "Error", Some(3))),
    ] {
        ns.sandbox(name, light(sh(script))).await;
        let before = ns.ended(name).await;
        assert_eq!(outcome(&before), wanted, "{:?}", before.message);
        let pod = before.pod_name.clone().unwrap();
        let ends = ns
            .eventually("every container to end", || async {
                let ends = ends(&ns.api::<Pod>().get(&pod).await.unwrap());
                let all = ends.len() == 2 && ends.iter().all(|(_, end)| end.is_some());
                if all { Ok(ends) } else { Err(format!("{ends:?}")) }
            })
            .await;
        let (main, mesh) = (ends[0].1.clone().unwrap(), ends[1].1.clone().unwrap());
        assert_eq!(main.0, wanted.2.unwrap(), "the exit code stays");
        let lag = mesh.1.unwrap().0.duration_since(main.1.unwrap().0).as_secs();
        assert!(lag <= 20, "the mesh's container ran {lag} s longer");
        assert_eq!(ns.logs(&pod).await, "out\n");
        let after = ns
            .api::<sandbox_operator::api::Sandbox>()
            .get(name)
            .await
            .unwrap()
            .status
            .unwrap();
        assert_eq!(after, before, "the outcome stays as it was");
    }
    ns.sandbox("stopped", light(json!({}))).await;
    ns.running("stopped").await;
    ns.stop("stopped").await;
    let status = ns.ended("stopped").await;
    let ends = ends(&ns.api::<Pod>().get(&status.pod_name.clone().unwrap()).await.unwrap());
    assert!(
        ends.iter().all(|(_, end)| end.is_some()),
        "TERMINATED while a container runs: {ends:?}"
    );
    assert_eq!(outcome(&status), ("TERMINATED", "Stopped", Some(0)));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_gated_pod_is_shown_and_its_start_timeout_does_not_run() {
    let ns = TestNamespace::new("gated").await;
    mutate_pods(&ns, gate(), |spec| spec.scheduling_gates.is_some()).await;
    let timeout = 10;
    let spec = json!({"startTimeoutSeconds": timeout});
    let made = ns.sandbox("a", light(with(sh("true"), spec.clone()))).await;
    ns.sandbox("stopped", light(spec)).await;
    let status = ns.waits_for("a", "SchedulingGated").await;
    assert_eq!(status.state.as_str(), "PENDING");
    assert!(status.message.unwrap().contains("example.com/queue"));
    let condition = status.conditions.iter().find(|c| c.type_ == "PodScheduled").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "SchedulingGated")
    );
    ns.waits_for("stopped", "SchedulingGated").await;
    ns.stop("stopped").await;
    assert_eq!(outcome(&ns.ended("stopped").await), ("TERMINATED", "Stopped", None));
    let created = made.metadata.creation_timestamp.unwrap().0;
    ns.eventually("the start timeout to be over", || async {
        let age = jiff::Timestamp::now().duration_since(created).as_secs();
        if age > timeout + 5 {
            Ok(())
        } else {
            Err(format!("{age} s"))
        }
    })
    .await;
    let pod = ns.waits_for("a", "SchedulingGated").await.pod_name.unwrap();
    ns.patch::<Pod>(&pod, json!({"spec": {"schedulingGates": null}})).await;
    let status = ns.ended("a").await;
    assert_eq!(
        outcome(&status),
        ("COMPLETED", "Completed", Some(0)),
        "{:?}",
        status.message
    );
    ns.end().await;
}
