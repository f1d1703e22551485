//! The operator comes and goes; sandboxes do not notice.

use crate::release::{MAIN, chart, deployments, helm, lease};
use crate::support::{TestNamespace, light, outcome, sh};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use sandbox_operator::api::{LABEL_SANDBOX_UID, Sandbox};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Half of the sandboxes are under way when the leader is told to go, the others arrive while nobody leads.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_standby_takes_over_at_once_and_nothing_is_lost_or_made_twice() {
    let ns = TestNamespace::new("takeover").await;
    let names: Vec<String> = (0..20).map(|i| format!("s{i}")).collect();
    let (before, after) = names.split_at(names.len() / 2);
    let old = RefCell::new(lease(&ns).await);
    let leader = old.borrow().holder_identity.clone().unwrap();
    join_all(before.iter().map(|name| ns.sandbox(name, light(sh("sleep 1"))))).await;
    let pods: Api<Pod> = Api::namespaced(ns.client.clone(), MAIN);
    pods.delete(&leader, &DeleteParams::default()).await.unwrap();
    join_all(after.iter().map(|name| ns.sandbox(name, light(sh("sleep 1"))))).await;
    let new = ns
        .eventually("another leader", || async {
            let seen = lease(&ns).await;
            match seen.holder_identity.as_deref() {
                Some(name) if name == leader => Err(format!("{:?}", old.replace(seen))),
                Some("") | None => Err("nobody leads".into()),
                Some(_) => Ok(seen),
            }
        })
        .await;
    let (last, old) = (new.acquire_time.unwrap().0, old.into_inner());
    let waited = last.duration_since(old.renew_time.unwrap().0).as_secs();
    assert!(
        waited < i64::from(old.lease_duration_seconds.unwrap()),
        "taken after {waited} s: it was not given back"
    );
    for name in &names {
        assert_eq!(
            outcome(&ns.ended(name).await),
            ("COMPLETED", "Completed", Some(0)),
            "{name}"
        );
    }
    let pods = ns.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let owners: BTreeSet<&String> = pods.iter().filter_map(|p| p.labels().get(LABEL_SANDBOX_UID)).collect();
    assert_eq!(
        (pods.len(), owners.len()),
        (names.len(), names.len()),
        "one pod for each"
    );
    ns.end().await;
}

/// Whoever may update an object may give it times that the API server takes and no type of ours does.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn objects_that_the_types_cannot_read_keep_nobody_from_beginning() {
    let ns = TestNamespace::new("unreadable").await;
    ns.sandbox("odd", light(json!({}))).await;
    let pod = ns.running("odd").await.pod_name.unwrap();
    let namespace = &ns.namespace;
    for path in [
        format!("/apis/sandbox-operator.dev/v1alpha1/namespaces/{namespace}/sandboxes/odd"),
        format!("/api/v1/namespaces/{namespace}/pods/{pod}"),
    ] {
        ns.eventually("a time that is too late", || async {
            make_odd(&ns, &path).await.map_err(|e| e.to_string())
        })
        .await;
    }
    for name in [MAIN.to_owned(), format!("{MAIN}-gateway")] {
        let all = deployments(&ns, MAIN);
        all.restart(&name).await.unwrap();
        ns.eventually("new replicas that are ready", || async {
            let deployment = all.get(&name).await.unwrap();
            let (status, wanted) = (deployment.status.unwrap(), deployment.spec.unwrap().replicas);
            let seen = status.observed_generation == deployment.metadata.generation;
            let new =
                status.updated_replicas == wanted && status.available_replicas == wanted && status.replicas == wanted;
            if seen && new {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    }
    ns.sandbox("next", light(sh("true"))).await;
    assert_eq!(outcome(&ns.ended("next").await), ("COMPLETED", "Completed", Some(0)));
    // The types of this test cannot read it either.
    let path = format!("/apis/sandbox-operator.dev/v1alpha1/namespaces/{namespace}/sandboxes/odd");
    let stop = http::Request::patch(&path).header("content-type", "application/merge-patch+json");
    let stop = stop.body(br#"{"spec": {"desiredState": "Stopped"}}"#.to_vec()).unwrap();
    ns.client.request::<Value>(stop).await.unwrap();
    ns.eventually("the end of an odd one", || async {
        let get = http::Request::get(&path).body(vec![]).unwrap();
        let status = ns.client.request::<Value>(get).await.unwrap()["status"].take();
        if status["state"] == "TERMINATED" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    ns.end().await;
}

async fn make_odd(ns: &TestNamespace, path: &str) -> kube::Result<()> {
    let late = json!("9999-12-31T23:59:59Z");
    let get = || http::Request::get(path).body(vec![]).unwrap();
    let mut object: Value = ns.client.request(get()).await?;
    object["metadata"]["annotations"]["example.com/odd"] = json!("true");
    for manager in object["metadata"]["managedFields"].as_array_mut().unwrap() {
        manager["time"] = late.clone();
    }
    let put = http::Request::put(path).header("content-type", "application/json");
    ns.client
        .request::<Value>(put.body(serde_json::to_vec(&object).unwrap()).unwrap())
        .await?;
    let object: Value = ns.client.request(get()).await?;
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["time"] == late), "this test tests nothing");
    Ok(())
}

/// An older chart, whose custom resource has another column; then this one; then none; then this one again.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn sandboxes_outlive_upgrades_and_an_uninstall() {
    let ns = TestNamespace::new("upgrade").await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&ns.namespace);
    let older = older_chart(&folder);
    let values = folder.join("values.yaml");
    std::fs::write(
        &values,
        helm(&["get", "values", MAIN, "--namespace", MAIN, "--output", "yaml"]),
    )
    .unwrap();
    let install = |chart: &Path, round: &str| {
        let release = [
            "upgrade",
            "--install",
            MAIN,
            text(chart),
            "--namespace",
            MAIN,
            "--values",
            text(&values),
        ];
        helm(&[&release[..], &["--set", round, "--wait", "--timeout", "180s"]].concat());
    };

    install(&older, "podAnnotations.round=older");
    assert!(columns(&ns).await.contains(&"Older".into()));
    for name in ["a", "b"] {
        ns.sandbox(name, light(json!({}))).await;
        ns.running(name).await;
    }
    let started = lives(&ns).await;
    assert_eq!(started.len(), 2);

    install(&chart(), "podAnnotations.round=newer");
    let now = columns(&ns).await;
    assert!(
        now.contains(&"Exit".into()) && !now.contains(&"Older".into()),
        "{now:?}"
    );
    assert_eq!(lives(&ns).await, started, "after the upgrade");
    ns.stop("a").await;
    assert_eq!(outcome(&ns.ended("a").await), ("TERMINATED", "Stopped", Some(0)));

    helm(&["uninstall", MAIN, "--namespace", MAIN, "--wait"]);
    assert!(deployments(&ns, MAIN).get_opt(MAIN).await.unwrap().is_none());
    assert_eq!(
        ns.count::<Sandbox>().await,
        2,
        "the records stay, and so does what defines them"
    );
    install(&chart(), "podAnnotations.round=again");
    assert_eq!(lives(&ns).await, started, "after a new installation");
    ns.running("b").await;
    ns.stop("b").await;
    assert_eq!(outcome(&ns.ended("b").await), ("TERMINATED", "Stopped", Some(0)));
    std::fs::remove_dir_all(folder).unwrap();
    ns.end().await;
}

/// UID and restarts of every pod.
async fn lives(ns: &TestNamespace) -> BTreeMap<String, (Option<String>, i32)> {
    let pods = ns.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let restarts = |pod: &Pod| {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        statuses.map(|c| c.restart_count).sum()
    };
    pods.iter().map(|p| (p.name_any(), (p.uid(), restarts(p)))).collect()
}

/// What `kubectl get` shows of a Sandbox.
async fn columns(ns: &TestNamespace) -> Vec<String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(ns.client.clone());
    let definition = definitions.get("sandboxes.sandbox-operator.dev").await.unwrap();
    let columns = definition.spec.versions[0].additional_printer_columns.clone();
    columns.unwrap_or_default().into_iter().map(|c| c.name).collect()
}

/// A copy of the chart as it might have been: lower version, another name of a column.
fn older_chart(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let copied = Command::new("cp")
        .args(["-rL", text(&chart()), text(folder)])
        .status()
        .unwrap();
    assert!(copied.success());
    let older = folder.join(chart().file_name().unwrap());
    replace(&older.join("Chart.yaml"), "\nversion: ", "\nversion: 0.0.1-before-");
    replace(
        &older.join("crds-generated/sandboxes.sandbox-operator.dev.yaml"),
        "name: Exit\n",
        "name: Older\n",
    );
    older
}

fn replace(file: &Path, from: &str, to: &str) {
    let before = std::fs::read_to_string(file).unwrap();
    assert!(before.contains(from), "{} has {from:?}", file.display());
    std::fs::write(file, before.replace(from, to)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
