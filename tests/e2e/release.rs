//! The installed chart: Helm, the operator's Deployment, its lease.

use crate::support::TestNamespace;
use futures::FutureExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::process::Command;

/// Name of the release that `make install` makes, of its namespace, its Deployment and its lease.
pub const MAIN: &str = "sandbox-operator";
/// Its replicas.
const REPLICAS: i32 = 2;

/// The chart of this tree.
pub fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("charts/sandbox-operator")
}

/// Runs Helm to its end, and returns what it wrote.
pub fn helm(args: &[&str]) -> String {
    let output = Command::new("helm").args(args).output().expect("helm is on the PATH");
    assert!(
        output.status.success(),
        "helm {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The operator's image, as the main release has it.
pub async fn image(ns: &TestNamespace) -> String {
    let deployment = deployments(ns, MAIN).get(MAIN).await.expect("the chart is installed");
    let containers = deployment
        .spec
        .and_then(|s| s.template.spec)
        .expect("a pod template")
        .containers;
    containers[0].image.clone().expect("an image")
}

/// The Deployments of a release's namespace.
pub fn deployments(ns: &TestNamespace, namespace: &str) -> Api<Deployment> {
    Api::namespaced(ns.client.clone(), namespace)
}

/// Does `work` without the main release's operator, which is there again afterwards, even if `work` fails. Tests run
/// one at a time.
pub async fn without_operator<T>(ns: &TestNamespace, work: impl Future<Output = T>) -> T {
    scale(ns, 0).await;
    let done = AssertUnwindSafe(work).catch_unwind().await;
    scale(ns, REPLICAS).await;
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

async fn scale(ns: &TestNamespace, replicas: i32) {
    let deployments = deployments(ns, MAIN);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch(MAIN, &PatchParams::default(), &patch)
        .await
        .expect("scaled");
    ns.eventually("the operator to be scaled", || async {
        let status = deployments.get(MAIN).await.expect("get").status.unwrap_or_default();
        let seen = (
            status.replicas.unwrap_or_default(),
            status.ready_replicas.unwrap_or_default(),
        );
        if seen == (replicas, replicas) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
}

/// The main release's lease.
pub async fn lease(ns: &TestNamespace) -> LeaseSpec {
    let leases: Api<Lease> = Api::namespaced(ns.client.clone(), MAIN);
    leases.get(MAIN).await.expect("a lease").spec.unwrap_or_default()
}
