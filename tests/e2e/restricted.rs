//! A second operator, for one namespace: with rights there only, with the agent by init container, and with proof that the
//! cluster enforces NetworkPolicy.

use crate::release::{chart, deployments, helm, image, without_operator};
use crate::shapes::agent_cases;
use crate::support::{TestNamespace, light, outcome, sh};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use std::process::Command;

#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_operator_of_one_namespace_serves_it_and_no_other() {
    let (home, watched, other) = (
        TestNamespace::new("home").await,
        TestNamespace::new("watched").await,
        TestNamespace::new("other").await,
    );
    let image = image(&home).await;
    without_operator(&home, async {
        other.sandbox("a", light(sh("true"))).await;
        install(&home, &watched, &image);
        enforcement(&home, &watched).await;
        assert!(may_make_pods(&home, &watched).await);
        assert!(!may_make_pods(&home, &other).await);
        let wrong = watched.run_all(agent_cases(&image)).await;
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        watched.sandbox("idle", light(json!({"containerImage": image}))).await;
        watched.running("idle").await;
        for pod in watched.api::<Pod>().list(&ListParams::default()).await.unwrap() {
            assert!(
                pod.spec.unwrap().init_containers.is_some(),
                "the agent comes by init container"
            );
        }
        assert_eq!(other.count::<Pod>().await, 0);

        // `idle` still runs, and from now on there is room for one.
        lose_agent_image(&home, &image).await;
        watched.sandbox("no-agent", light(json!({}))).await;
        let full = watched.waits_for("no-agent", "NamespaceFull").await;
        assert_eq!(full.state.as_str(), "PENDING");
        watched.stop("idle").await;
        assert_eq!(
            outcome(&watched.ended("idle").await),
            ("TERMINATED", "Stopped", Some(0))
        );
        assert_eq!(
            outcome(&watched.ended("no-agent").await),
            ("FAILED", "AgentImageFailed", None)
        );
        home.eventually("an event about a check without a result", || async {
            match events(&home).await {
                reasons if reasons.contains(&"NetworkEnforcementUnknown".into()) => Ok(()),
                reasons => Err(format!("{reasons:?}")),
            }
        })
        .await;
        helm(&["uninstall", &home.namespace, "--namespace", &home.namespace]);
    })
    .await;
    // It was only waiting for its own operator.
    assert_eq!(outcome(&other.ended("a").await), ("COMPLETED", "Completed", Some(0)));
    for ns in [home, watched, other] {
        ns.end().await;
    }
}

/// The release is named like its namespace: the chart also makes roles of the whole cluster, whose names must not be
/// taken.
fn install(home: &TestNamespace, watched: &TestNamespace, image: &str) {
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let values = json!({
        "image": {"repository": repository, "tag": tag}, "replicas": 1, "crds": {"install": false}, "watchNamespaces": [watched.namespace],
        // It may not ask for the API server's address, and does not start without one.
        "sandboxes": {"agent": {"delivery": "InitContainer"}, "network": {"apiServer": ["192.0.2.0/24"], "enforcement": "Require"}, "maxActivePerNamespace": 64},
    });
    let values: Vec<String> = values
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let chart = chart();
    let mut args = vec![
        "install",
        &home.namespace,
        chart.to_str().unwrap(),
        "--namespace",
        &home.namespace,
    ];
    args.extend(["--wait", "--timeout", "120s"]);
    args.extend(values.iter().flat_map(|value| ["--set-json", value]));
    helm(&args);
}

/// Where the cluster enforces NetworkPolicy, sandboxes start. Where it does not, they wait, and start when the operator no
/// longer requires it.
async fn enforcement(home: &TestNamespace, watched: &TestNamespace) {
    watched.sandbox("held", light(sh("true"))).await;
    let name = &home.namespace;
    let result = home
        .eventually("a check of the network", || async {
            let found = home.api::<ConfigMap>().get(&format!("{name}-network")).await.unwrap();
            let data = found.data.unwrap_or_default();
            data.get("result").cloned().ok_or_else(|| "no result".into())
        })
        .await;
    let test = Command::new("helm")
        .args(["test", name, "--namespace", name, "--logs"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&test.stdout).into_owned();
    assert!(
        log.contains("DIRECTION"),
        "{log}{}",
        String::from_utf8_lossy(&test.stderr)
    );
    assert_eq!(test.status.success(), result == "Enforced", "{log}");
    let (reason, held) = match result.as_str() {
        "Enforced" => ("NetworkEnforced", false),
        _ => ("NetworkNotEnforced", true),
    };
    home.eventually("an event", || async {
        let reasons = events(home).await;
        reasons
            .contains(&reason.into())
            .then_some(())
            .ok_or_else(|| format!("{reasons:?}"))
    })
    .await;
    if held {
        let status = watched.waits_for("held", "NetworkNotEnforced").await;
        assert_eq!(status.pod_name, None);
        let (chart, warn) = (chart(), "sandboxes.network.enforcement=Warn");
        let upgrade = [
            "upgrade",
            name,
            chart.to_str().unwrap(),
            "--namespace",
            name,
            "--reuse-values",
        ];
        helm(&[&upgrade[..], &["--set", warn, "--wait", "--timeout", "120s"]].concat());
    }
    let ended = watched.ended("held").await;
    assert_eq!(outcome(&ended), ("COMPLETED", "Completed", Some(0)));
    let probes: Api<Pod> = Api::namespaced(home.client.clone(), &format!("{name}-probe"));
    home.eventually("the pods of the checks to be deleted", || async {
        match probes.list(&ListParams::default()).await.unwrap().items.len() {
            0 => Ok(()),
            pods => Err(format!("{pods} pods")),
        }
    })
    .await;
}

/// The reasons of the events about the network check.
async fn events(home: &TestNamespace) -> Vec<String> {
    let name = format!("{}-network", home.namespace);
    let events = home.api::<Event>().list(&ListParams::default()).await.unwrap();
    let about = |event: &Event| event.regarding.as_ref().is_some_and(|r| r.name.as_ref() == Some(&name));
    events
        .items
        .into_iter()
        .filter(about)
        .filter_map(|e| e.reason)
        .collect()
}

async fn may_make_pods(home: &TestNamespace, ns: &TestNamespace) -> bool {
    let review = json!({"spec": {
        "user": format!("system:serviceaccount:{0}:{0}", home.namespace),
        "resourceAttributes": {"namespace": ns.namespace, "verb": "create", "resource": "pods"},
    }});
    let reviews: Api<SubjectAccessReview> = Api::all(home.client.clone());
    let review = serde_json::from_value(review).unwrap();
    reviews
        .create(&PostParams::default(), &review)
        .await
        .unwrap()
        .status
        .unwrap()
        .allowed
}

/// Names an image in the configuration that no node has, allows one active sandbox, and has the operator read it.
async fn lose_agent_image(home: &TestNamespace, image: &str) {
    let name = &home.namespace;
    let config = home.api::<ConfigMap>().get(name).await.unwrap().data.unwrap()["config.yaml"].clone();
    let lost = config
        .replace(&format!("image: {image}"), "image: no-such-image:1")
        .replace("imagePullPolicy: IfNotPresent", "imagePullPolicy: Never")
        .replace("maxActivePerNamespace: 64", "maxActivePerNamespace: 1");
    assert_ne!(lost, config);
    home.patch::<ConfigMap>(name, json!({"data": {"config.yaml": lost}}))
        .await;
    let restarted: Value = json!({"template": {"metadata": {"annotations": {"restarted": "once"}}}});
    let deployments = deployments(home, name);
    home.patch::<k8s_openapi::api::apps::v1::Deployment>(name, json!({"spec": restarted}))
        .await;
    home.eventually("the operator to be rolled", || async {
        let deployment = deployments.get(name).await.unwrap();
        let status = deployment.status.unwrap_or_default();
        let rolled = status.observed_generation == deployment.metadata.generation
            && (status.replicas, status.updated_replicas, status.ready_replicas) == (Some(1), Some(1), Some(1));
        if rolled { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}
