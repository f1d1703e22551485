//! Finding a caller's sandbox and its pod.

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::ResourceExt;
use std::sync::Arc;
use tonic::{Code, Status};

use crate::api::Sandbox;
use crate::gateway::cluster::sandbox_cache::SandboxCache;
use crate::gateway::convert::request_metadata::main_name;
use crate::gateway::error::{Violation, invalid, of_kube, reason, sandbox_not_found, status};
use crate::kube::ApiClient;
use crate::resources::pod_containers::MAIN;
use crate::resources::slim::is_stripped;

/// Finds sandboxes in the cache, and those that it does not have yet (created a moment ago, perhaps by another replica)
/// in the API server.
#[derive(Clone)]
pub(crate) struct SandboxLookup {
    /// The sandboxes that the watch has seen.
    pub(crate) cache: SandboxCache,
    /// The API server.
    pub(crate) api: ApiClient,
}

impl SandboxLookup {
    /// The sandbox of this id in the caller's namespace.
    ///
    /// # Errors
    /// NOT_FOUND, also for a sandbox of another tenant; UNAVAILABLE if the API server does not answer.
    pub(crate) async fn get(&self, namespace: &str, id: &str) -> Result<Arc<Sandbox>, Status> {
        self.find(namespace, id).await?.ok_or_else(|| sandbox_not_found(id))
    }

    /// As [`SandboxLookup::get`], but `None` instead of NOT_FOUND.
    ///
    /// # Errors
    /// UNAVAILABLE if the API server does not answer.
    pub(crate) async fn find(&self, namespace: &str, id: &str) -> Result<Option<Arc<Sandbox>>, Status> {
        match self.cache.get(namespace, id) {
            Some(sandbox) if !is_stripped(&sandbox.metadata) => Ok(Some(sandbox)),
            Some(_) | None => self.read(namespace, id).await,
        }
    }

    /// The sandbox as the API server has it.
    ///
    /// # Errors
    /// As [`SandboxLookup::get`].
    pub(crate) async fn get_live(&self, namespace: &str, id: &str) -> Result<Arc<Sandbox>, Status> {
        self.read(namespace, id).await?.ok_or_else(|| sandbox_not_found(id))
    }

    async fn read(&self, namespace: &str, id: &str) -> Result<Option<Arc<Sandbox>>, Status> {
        if !is_name(id) {
            return Ok(None);
        }
        let found = self.api.get::<Sandbox>(namespace, id).await;
        Ok(found.map_err(|e| of_kube("reading the sandbox", &e))?.map(Arc::new))
    }

    /// The sandbox's pod as the API server has it; `None` if it is deleted, or another pod has its name.
    ///
    /// # Errors
    /// UNAVAILABLE if the API server does not answer.
    pub(crate) async fn pod(&self, sandbox: &Sandbox) -> Result<Option<Pod>, Status> {
        let namespace = sandbox.namespace().unwrap_or_default();
        let Some(name) = sandbox.status.as_ref().and_then(|s| s.pod_name.as_deref()) else {
            return Ok(None);
        };
        let found = self.api.get::<Pod>(&namespace, name).await;
        let found = found.map_err(|e| of_kube("reading the sandbox's pod", &e))?;
        // The recorded UID is that of the pod that the operator created.
        let recorded = sandbox.status.as_ref().and_then(|s| s.pod.as_ref());
        let is_recorded = |pod: &Pod| recorded.is_none_or(|identity| pod.uid().as_ref() == Some(&identity.uid));
        Ok(found.filter(|pod| is_recorded(pod) && is_controlled_by(pod, &sandbox.uid().unwrap_or_default())))
    }
}

/// Whether `id` can be a sandbox's name. Anything else must not become part of a URL path.
fn is_name(id: &str) -> bool {
    (1..=63).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether the Sandbox of this UID controls the pod.
pub(crate) fn is_controlled_by(pod: &Pod, sandbox_uid: &str) -> bool {
    pod.owner_references()
        .iter()
        .any(|o| o.controller == Some(true) && o.uid == sandbox_uid)
}

/// The name in the pod of the container that a request names.
pub(crate) fn container_name(sandbox: &Sandbox, requested: &str) -> String {
    let is_main = requested.is_empty() || requested == main_name(sandbox);
    if is_main { MAIN.into() } else { requested.into() }
}

/// The state of the main container or a sidecar; `None` if the pod has no such container.
pub(crate) fn container_state(pod: &Pod, container: &str) -> Option<ContainerState> {
    let spec = pod.spec.as_ref()?;
    // Sidecars are init containers that are always restarted. Other init containers have finished.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars).find(|c| c.name == container)?;
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let init = status.and_then(|s| s.init_container_statuses.as_ref());
    let found = main.into_iter().chain(init).flatten().find(|c| c.name == container);
    Some(found.and_then(|c| c.state.clone()).unwrap_or_default())
}

/// FAILED_PRECONDITION with the sandbox's state.
pub(crate) fn not_running(sandbox: &Sandbox) -> Status {
    let text = format!("sandbox {} is {}", sandbox.name_any(), sandbox.state().as_str());
    status(Code::FailedPrecondition, reason::SANDBOX_NOT_RUNNING, text)
}

/// INVALID_ARGUMENT that names the container.
pub(crate) fn no_container(name: &str) -> Status {
    let name: String = name.chars().take(63).collect();
    invalid(vec![Violation::new(
        "container",
        format!("the sandbox has no container {name:?}"),
    )])
}

/// For tests.
#[cfg(test)]
pub(crate) mod fake {
    use super::*;
    use crate::kube::ApiMetrics;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Lookups in a cluster without objects, and the number of requests to its API server.
    pub(crate) fn empty_cluster() -> (SandboxLookup, Arc<AtomicU32>) {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = requests.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let status = r#"{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": ""}"#;
            async move {
                http::Response::builder()
                    .status(404)
                    .body(kube::client::Body::from(status.as_bytes().to_vec()))
            }
        });
        let metrics = ApiMetrics::register(&mut prometheus_client::registry::Registry::default());
        let api = ApiClient::new(kube::Client::new(service, "default"), metrics);
        let cache = SandboxCache::new(&[]);
        (SandboxLookup { cache, api }, requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ANNOTATION_MAIN_NAME;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_valid_names_reach_the_api_server() {
        assert!(is_name("a-1"));
        for wrong in ["", "a/b", "..", "A", "a b", &"a".repeat(64), "a?x", "ä"] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_pod_belongs_to_a_sandbox_by_the_uid_of_its_controller() {
        let owned = |controller: bool, uid: &str| {
            let owner =
                json!({"apiVersion": "v1", "kind": "Sandbox", "name": "a", "uid": uid, "controller": controller});
            pod(json!({"metadata": {"ownerReferences": [owner]}}))
        };
        assert!(is_controlled_by(&owned(true, "u"), "u"));
        assert!(!is_controlled_by(&owned(false, "u"), "u"));
        assert!(!is_controlled_by(&owned(true, "v"), "u"));
        assert!(!is_controlled_by(&Pod::default(), "u"));
    }

    #[test]
    fn containers_are_the_main_one_and_the_sidecars() {
        let pod = pod(json!({
            "spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "redis", "restartPolicy": "Always"}, {"name": "install"}]},
            "status": {
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}],
                "initContainerStatuses": [{"name": "install", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}
        }));
        assert!(container_state(&pod, "main").unwrap().running.is_some());
        assert_eq!(
            container_state(&pod, "redis"),
            Some(ContainerState::default()),
            "not started yet"
        );
        assert_eq!(container_state(&pod, "install"), None);
        assert_eq!(container_state(&pod, "other"), None);
    }

    #[test]
    fn the_main_container_has_the_name_that_its_creator_chose() {
        let mut sandbox = Sandbox::default();
        assert_eq!(
            (container_name(&sandbox, ""), container_name(&sandbox, "redis")),
            ("main".into(), "redis".into())
        );
        sandbox.metadata.annotations = Some([(ANNOTATION_MAIN_NAME.to_owned(), "web".to_owned())].into());
        assert_eq!(
            (container_name(&sandbox, "web"), container_name(&sandbox, "")),
            ("main".into(), "main".into())
        );
    }
}
