//! DiscoveryService: the runners, and the resources of their nodes. They are computed at most once per [`TTL`], because
//! that reads all nodes and all sandboxes.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::ListParams;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Request, Response, Status};

use crate::api::Sandbox;
use crate::gateway::cluster::nodes::is_schedulable;
use crate::gateway::cluster::runners::Runners;
use crate::gateway::cluster::sandbox_cache::SandboxCache;
use crate::gateway::config::{Config, Runner};
use crate::gateway::edge::caller::Permission;
use crate::gateway::edge::identity::Identity;
use crate::gateway::error::{Violation, invalid, of_kube, reason, status};
use crate::gateway::rpc::authorize::authorize;
use crate::kube::{ApiClient, TtlCache};
use crate::proto::sandbox as pb;
use crate::proto::sandbox::discovery_service_server::DiscoveryService;
use crate::resources::quantity::{thousandths, units};

/// Time for which the runners are cached.
const TTL: Duration = Duration::from_secs(1);
/// The label in which the GPU operator puts the product name.
const GPU_PRODUCT: &str = "nvidia.com/gpu.product";
/// The visibilities that a service may have.
const VISIBILITIES: [pb::Visibility; 3] = [pb::Visibility::Public, pb::Visibility::Private, pb::Visibility::Custom];

/// The service.
#[derive(Clone)]
pub(crate) struct Discovery {
    /// Authorizes callers.
    pub(crate) identity: Arc<Identity>,
    /// The API server, for the nodes.
    pub(crate) api: ApiClient,
    /// The sandboxes on the nodes.
    pub(crate) cache: SandboxCache,
    /// The runners.
    pub(crate) runners: Runners,
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// All runners, in the full view.
    pub(crate) observed: Arc<TtlCache<(), Arc<Vec<pb::AvailableRunner>>>>,
}

#[tonic::async_trait]
impl DiscoveryService for Discovery {
    async fn list_available_runners(
        &self,
        request: Request<pb::ListAvailableRunnersRequest>,
    ) -> Result<Response<pb::ListAvailableRunnersResponse>, Status> {
        authorize(&self.identity, &request, Permission::List).await?;
        let request = request.into_inner();
        if !request.page_token.is_empty() {
            return Err(invalid(vec![Violation::new(
                "page_token",
                "must be empty: all runners are in one page",
            )]));
        }
        let observed = self.observe().await?;
        let runners = observed.iter().map(|runner| in_view(runner, request.view));
        Ok(Response::new(pb::ListAvailableRunnersResponse {
            runners: runners.filter(|r| matches(r, &request)).collect(),
            next_page_token: String::new(),
        }))
    }

    async fn get_available_runner(
        &self,
        request: Request<pb::GetAvailableRunnerRequest>,
    ) -> Result<Response<pb::AvailableRunner>, Status> {
        authorize(&self.identity, &request, Permission::List).await?;
        let request = request.into_inner();
        let ours = request.organization_id.is_empty() || request.organization_id == self.config.organization_id;
        let observed = self.observe().await?;
        let runner = observed.iter().find(|runner| runner.runner_id == request.runner_id);
        let Some(runner) = runner.filter(|_| ours) else {
            let text = format!("no runner {}", request.runner_id);
            return Err(status(Code::NotFound, reason::RUNNER_NOT_FOUND, text));
        };
        Ok(Response::new(in_view(runner, request.view)))
    }
}

impl Discovery {
    /// All runners, in the full view. Concurrent calls share one list of the nodes.
    async fn observe(&self) -> Result<Arc<Vec<pb::AvailableRunner>>, Status> {
        let observe = async {
            let nodes = self.api.list_cluster_scoped::<Node>(&ListParams::default()).await;
            let nodes = nodes.map_err(|e| of_kube("listing the nodes", &e))?.items;
            let sandboxes = self.cache.list_all();
            let runners = self.runners.set().all().iter().map(|runner| {
                let has_node = |node: &&Node| self.runners.has_node(runner, node.labels());
                let nodes: Vec<&Node> = nodes.iter().filter(has_node).collect();
                available(&self.config, runner, &nodes, &sandboxes)
            });
            Ok::<_, Status>((Arc::new(runners.collect()), TTL))
        };
        self.observed.get_or_fetch(&(), Instant::now(), observe).await
    }
}

/// A runner with the fields of the view: only the full view has its free resources.
fn in_view(runner: &pb::AvailableRunner, view: i32) -> pb::AvailableRunner {
    let mut runner = runner.clone();
    if view != pb::RunnerView::Full as i32 {
        runner.resources = None;
    }
    runner
}

fn matches(runner: &pb::AvailableRunner, request: &pb::ListAvailableRunnersRequest) -> bool {
    let capabilities = runner.capabilities.clone().unwrap_or_default();
    (request.runner_group_id.is_empty() || runner.runner_group_id == request.runner_group_id)
        && (request.gpu_type.is_empty() || capabilities.supported_gpu_types.contains(&request.gpu_type))
        && (request.architecture.is_empty() || capabilities.supported_architectures.contains(&request.architecture))
        && (!request.healthy_only || runner.healthy)
        && (request.service_visibility == 0
            || capabilities
                .supported_service_visibilities
                .contains(&request.service_visibility))
}

/// A runner with these nodes, as callers see it. Pure.
fn available(config: &Config, runner: &Runner, nodes: &[&Node], sandboxes: &[Arc<Sandbox>]) -> pb::AvailableRunner {
    let gpu = config.gpus.resource.as_str();
    let usable: Vec<&Node> = nodes
        .iter()
        .copied()
        .filter(|n| is_schedulable(n, &runner.tolerations))
        .collect();
    let names: BTreeSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
    let max = |resource: &str, of: fn(&Quantity) -> Option<i64>| {
        usable
            .iter()
            .filter_map(|n| of(allocatable(n, resource)?))
            .max()
            .unwrap_or_default()
    };
    let sum = |resource: &str, of: fn(&Quantity) -> Option<i64>| {
        usable.iter().filter_map(|n| of(allocatable(n, resource)?)).sum::<i64>()
    };
    let running: Vec<&Arc<Sandbox>> = sandboxes
        .iter()
        .filter(|s| {
            let node = s.status.as_ref().and_then(|s| s.node_name.as_deref());
            !s.is_final() && node.is_some_and(|node| names.contains(node))
        })
        .collect();
    let requested = |resource: &str, of: fn(&Quantity) -> Option<i64>| {
        let requests = running
            .iter()
            .filter_map(|s| s.spec.workload.container.resources.as_ref()?.requests.as_ref());
        requests.filter_map(|r| of(r.get(resource)?)).sum::<i64>()
    };
    let free = |resource: &str, of: fn(&Quantity) -> Option<i64>| {
        sum(resource, of).saturating_sub(requested(resource, of)).max(0)
    };
    let distinct = |of: fn(&Node) -> Option<String>| {
        usable
            .iter()
            .filter_map(|n| of(n))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let connected_at = nodes
        .iter()
        .filter_map(|n| n.metadata.creation_timestamp.as_ref())
        .map(|t| t.0.as_second())
        .min();
    pb::AvailableRunner {
        runner_id: runner.id.clone(),
        runner_group_id: runner.group_id.clone(),
        tags: runner.tags.clone(),
        healthy: !usable.is_empty(),
        capabilities: Some(pb::RunnerCapabilitySummary {
            max_cpu_millicores: max("cpu", thousandths),
            max_memory_bytes: max("memory", units),
            max_gpu_count: max(gpu, units),
            supported_gpu_types: distinct(|n| n.metadata.labels.as_ref()?.get(GPU_PRODUCT).cloned()),
            supported_architectures: distinct(|n| n.metadata.labels.as_ref()?.get("kubernetes.io/arch").cloned()),
            supports_privileged: false,
            available_storage_classes: vec![],
            supported_service_visibilities: VISIBILITIES.iter().map(|v| *v as i32).collect(),
        }),
        resources: Some(pb::RunnerResourceSummary {
            available_cpu_millicores: free("cpu", thousandths),
            available_memory_bytes: free("memory", units),
            available_gpu_count: free(gpu, units),
            running_sandboxes: i32::try_from(running.len()).unwrap_or(i32::MAX),
        }),
        connected_at: Some(prost_types::Timestamp {
            seconds: connected_at.unwrap_or_default(),
            nanos: 0,
        }),
        is_shared: false,
        organization_id: config.organization_id.clone(),
    }
}

fn allocatable<'a>(node: &'a Node, resource: &str) -> Option<&'a Quantity> {
    node.status.as_ref()?.allocatable.as_ref()?.get(resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: &str, cpu: &str) -> Node {
        tainted(name, ready, cpu, json!([]))
    }

    fn tainted(name: &str, ready: &str, cpu: &str, taints: serde_json::Value) -> Node {
        let object = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"kubernetes.io/arch": "amd64", GPU_PRODUCT: "H100"}},
            "spec": {"taints": taints},
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "nvidia.com/gpu": "2"}, "conditions": [{"type": "Ready", "status": ready}]},
        });
        serde_json::from_value(object).unwrap()
    }

    fn runner() -> Runner {
        Runner {
            id: "pool".into(),
            ..Runner::default()
        }
    }

    fn sandbox(state: &str) -> Arc<Sandbox> {
        let object = json!({
            "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a"},
            "spec": {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}, "status": {"state": state, "nodeName": "a"},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn free_resources_are_those_of_schedulable_nodes_minus_the_requests_of_sandboxes() {
        let nodes = [
            node("a", "True", "4"),
            node("b", "True", "1500m"),
            node("c", "False", "64"),
        ];
        let sandboxes = [sandbox("RUNNING"), sandbox("COMPLETED")];
        let all: Vec<&Node> = nodes.iter().collect();
        let runner = available(&Config::default(), &runner(), &all, &sandboxes);
        let (can, left) = (runner.capabilities.clone().unwrap(), runner.resources.unwrap());
        assert!(runner.healthy && !runner.organization_id.is_empty());
        assert_eq!(
            (can.max_cpu_millicores, can.max_memory_bytes, can.max_gpu_count),
            (4000, 8 << 30, 2)
        );
        assert_eq!(
            (can.supported_architectures, can.supported_gpu_types),
            (vec!["amd64".to_owned()], vec!["H100".to_owned()])
        );
        assert_eq!(
            (
                left.available_cpu_millicores,
                left.available_memory_bytes,
                left.available_gpu_count
            ),
            (5000, 15 << 30, 4)
        );
        assert_eq!(left.running_sandboxes, 1);
        let gone = available(&Config::default(), &self::runner(), &all[2..], &sandboxes);
        assert!(!gone.healthy);
        assert_eq!(gone.resources.unwrap().running_sandboxes, 0, "they are on other nodes");
    }

    /// Such as the nodes of kwok, on which nothing runs.
    #[test]
    fn a_node_counts_only_if_sandboxes_tolerate_its_taints() {
        let taints = json!([{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]);
        let nodes = [node("a", "True", "4"), tainted("fake", "True", "1000", taints)];
        let all: Vec<&Node> = nodes.iter().collect();
        let cpu = |runner: &Runner| {
            let runner = available(&Config::default(), runner, &all, &[]);
            let (max, free) = (
                runner.capabilities.unwrap().max_cpu_millicores,
                runner.resources.unwrap(),
            );
            (max, free.available_cpu_millicores)
        };
        assert_eq!(cpu(&runner()), (4000, 4000));
        let toleration = json!({"key": "kwok.x-k8s.io/node", "operator": "Exists"});
        let tolerant = Runner {
            tolerations: vec![serde_json::from_value(toleration).unwrap()],
            ..runner()
        };
        assert_eq!(cpu(&tolerant), (1_000_000, 1_004_000));
    }

    #[test]
    fn filters_use_capabilities() {
        let runner = available(&Config::default(), &runner(), &[&node("a", "True", "4")], &[]);
        let asks = |ask: pb::ListAvailableRunnersRequest| matches(&runner, &ask);
        assert!(asks(pb::ListAvailableRunnersRequest::default()));
        let gpu = |kind: &str| pb::ListAvailableRunnersRequest {
            gpu_type: kind.into(),
            ..Default::default()
        };
        assert!(asks(gpu("H100")) && !asks(gpu("A100")));
        let visible = pb::ListAvailableRunnersRequest {
            service_visibility: pb::Visibility::Private.into(),
            ..Default::default()
        };
        assert!(asks(visible));
    }
}
