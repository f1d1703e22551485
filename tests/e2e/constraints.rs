//! `sandboxes.constraints`, as `hack/install.sh` sets them.

use crate::support::TestNamespace;
use serde_json::json;

/// Neither object alone violates `maxResources`, so that admission lets both pass.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_operator_checks_what_results_from_session_and_sandbox() {
    let ns = TestNamespace::new("constraints").await;
    let half = json!({"limits": {"example.com/scarce": "1"}});
    ns.session("half", json!({"defaults": {"resources": half}})).await;
    let sidecar = json!({"name": "s", "image": "python:3.11", "resources": half});
    ns.sandbox("a", json!({"sessionName": "half", "sidecars": [sidecar]}))
        .await;
    let status = ns.until("a", "to end", |s| s.state.is_final()).await;
    assert_eq!(status.reason.as_deref(), Some("ConstraintViolated"), "{status:?}");
    let message = status.message.unwrap_or_default();
    let expected = "spec.defaults.resources.limits[\"example.com/scarce\"] of SandboxSession half: must be at most 1";
    assert!(message.starts_with(expected), "{message}");
    ns.end().await;
}
