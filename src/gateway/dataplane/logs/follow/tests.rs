use super::*;
use crate::gateway::sandboxes::lookup::{SandboxLookup, fake};
use serde_json::json;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

fn sandbox(state: &str, version: u32) -> Sandbox {
    serde_json::from_value(json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": {}, "status": {"state": state},
        "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": version.to_string()},
    }))
    .unwrap()
}

fn log(sandboxes: SandboxLookup) -> Log {
    let (entries, _) = mpsc::channel(1);
    Log {
        entries,
        sandbox: Arc::new(sandbox("PENDING", 1)),
        sandboxes,
        start: Start::Beginning,
        session: None,
        timestamps: false,
        offset: 0,
        tail: None,
        searches: None,
        past_end: false,
        files: None,
        container: MAIN.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_sandbox_costs_its_followers_hardly_any_request() {
    let (sandboxes, requests) = fake::empty_cluster();
    let cache = sandboxes.cache.clone();
    cache.put(sandbox("PENDING", 1));
    let mut log = log(sandboxes);
    let started = tokio::time::Instant::now();
    for _ in 0..10 {
        assert!(!log.change(PAUSE).await);
    }
    assert!(started.elapsed() >= 10 * UNCHANGED);
    assert_eq!(requests.load(Ordering::Relaxed), 0);
    cache.put(sandbox("RUNNING", 2));
    let changed = tokio::time::Instant::now();
    assert!(log.change(PAUSE).await && changed.elapsed() <= 2 * PAUSE);
    assert_eq!(log.sandbox.state(), State::Running);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_was_deleted_is_noticed_at_once() {
    let (sandboxes, _) = fake::empty_cluster();
    let mut log = log(sandboxes);
    let started = tokio::time::Instant::now();
    assert!(!log.change(PAUSE).await, "it is not in the cache");
    assert!(started.elapsed() <= 2 * PAUSE);
    assert_eq!(log.follow().await.unwrap_err().unwrap_err().code(), Code::NotFound);
}
