//! DiscoveryService: the runners, and what their nodes have.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::ListParams;
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

use super::config::Config;
use super::error::{Violation, invalid, of_kube, reason, status};
use super::identity::Right;
use super::runners::Runner;
use super::service::admit;
use super::state::Gateway;
use crate::api::Sandbox;
use crate::proto::sandbox as pb;
use crate::proto::sandbox::discovery_service_server::DiscoveryService;
use crate::resources::quantity::{thousandths, units};

/// The label with which the operator of a node's GPUs names their product.
const GPU_PRODUCT: &str = "nvidia.com/gpu.product";
/// What a service's visibility may be: see [`super::convert::services`].
const VISIBILITIES: [pb::Visibility; 3] = [pb::Visibility::Public, pb::Visibility::Private, pb::Visibility::Custom];

/// Serves DiscoveryService.
#[derive(Clone)]
pub struct Discovery(pub Arc<Gateway>);

#[tonic::async_trait]
impl DiscoveryService for Discovery {
    async fn list_available_runners(
        &self,
        request: Request<pb::ListAvailableRunnersRequest>,
    ) -> Result<Response<pb::ListAvailableRunnersResponse>, Status> {
        admit(&self.0, &request, Right::List).await?;
        let asked = request.into_inner();
        if !asked.page_token.is_empty() {
            return Err(invalid(vec![Violation::new("page_token", "all runners come in one page")]));
        }
        let seen = self.seen().await?;
        let runners = self.0.runners.all().iter().map(|r| self.available(r, &seen, asked.view));
        Ok(Response::new(pb::ListAvailableRunnersResponse {
            runners: runners.filter(|r| matches(r, &asked)).collect(),
            next_page_token: String::new(),
        }))
    }

    async fn get_available_runner(&self, request: Request<pb::GetAvailableRunnerRequest>) -> Result<Response<pb::AvailableRunner>, Status> {
        admit(&self.0, &request, Right::List).await?;
        let asked = request.into_inner();
        let ours = asked.organization_id.is_empty() || asked.organization_id == self.0.config.organization_id;
        let Some(runner) = self.0.runners.find(&asked.runner_id).filter(|_| ours) else {
            let text = format!("there is no runner {}", asked.runner_id);
            return Err(status(Code::NotFound, reason::RUNNER_NOT_FOUND, text));
        };
        Ok(Response::new(self.available(runner, &self.seen().await?, asked.view)))
    }
}

/// Nodes and sandboxes.
type Seen = (Vec<Node>, Vec<Arc<Sandbox>>);

impl Discovery {
    async fn seen(&self) -> Result<Seen, Status> {
        let nodes = self
            .0
            .cluster
            .list_cluster_scoped(&ListParams::default())
            .await
            .map_err(|e| of_kube("list the nodes", &e))?;
        Ok((nodes.items, self.0.caches.all_sandboxes()))
    }

    /// With what is left of it, where the view is the full one.
    fn available(&self, runner: &Runner, (nodes, sandboxes): &Seen, view: i32) -> pb::AvailableRunner {
        let nodes: Vec<&Node> = nodes.iter().filter(|n| self.0.runners.has(runner, n.labels())).collect();
        available(&self.0.config, runner, &nodes, sandboxes, view == pb::RunnerView::Full as i32)
    }
}

fn matches(runner: &pb::AvailableRunner, asked: &pb::ListAvailableRunnersRequest) -> bool {
    let can = runner.capabilities.clone().unwrap_or_default();
    (asked.runner_group_id.is_empty() || runner.runner_group_id == asked.runner_group_id)
        && (asked.gpu_type.is_empty() || can.supported_gpu_types.contains(&asked.gpu_type))
        && (asked.architecture.is_empty() || can.supported_architectures.contains(&asked.architecture))
        && (!asked.healthy_only || runner.healthy)
        && (asked.service_visibility == 0 || can.supported_service_visibilities.contains(&asked.service_visibility))
}

/// What callers see of a runner with these nodes: pure.
fn available(config: &Config, runner: &Runner, nodes: &[&Node], sandboxes: &[Arc<Sandbox>], full: bool) -> pb::AvailableRunner {
    let gpu = config.gpus.resource.as_str();
    let usable: Vec<&Node> = nodes.iter().copied().filter(|n| is_usable(n)).collect();
    let names: BTreeSet<&str> = nodes.iter().filter_map(|n| n.metadata.name.as_deref()).collect();
    let most =
        |resource: &str, of: fn(&Quantity) -> Option<i64>| usable.iter().filter_map(|n| of(allocatable(n, resource)?)).max().unwrap_or_default();
    let sum = |resource: &str, of: fn(&Quantity) -> Option<i64>| usable.iter().filter_map(|n| of(allocatable(n, resource)?)).sum::<i64>();
    let here: Vec<&Arc<Sandbox>> = sandboxes
        .iter()
        .filter(|s| {
            let status = s.status.as_ref().filter(|s| !s.state.is_final());
            status.and_then(|s| s.node_name.as_deref()).is_some_and(|node| names.contains(node))
        })
        .collect();
    let taken = |resource: &str, of: fn(&Quantity) -> Option<i64>| {
        let requests = here
            .iter()
            .filter_map(|s| s.spec.workload.container.resources.as_ref()?.requests.as_ref());
        requests.filter_map(|r| of(r.get(resource)?)).sum::<i64>()
    };
    let left = |resource: &str, of: fn(&Quantity) -> Option<i64>| sum(resource, of).saturating_sub(taken(resource, of)).max(0);
    let distinct = |of: fn(&Node) -> Option<String>| usable.iter().filter_map(|n| of(n)).collect::<BTreeSet<_>>().into_iter().collect();
    let since = nodes
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
            max_cpu_millicores: most("cpu", thousandths),
            max_memory_bytes: most("memory", units),
            max_gpu_count: most(gpu, units),
            supported_gpu_types: distinct(|n| n.metadata.labels.as_ref()?.get(GPU_PRODUCT).cloned()),
            supported_architectures: distinct(|n| n.metadata.labels.as_ref()?.get("kubernetes.io/arch").cloned()),
            supports_privileged: false,
            available_storage_classes: vec![],
            supported_service_visibilities: VISIBILITIES.iter().map(|v| *v as i32).collect(),
        }),
        resources: full.then(|| pb::RunnerResourceSummary {
            available_cpu_millicores: left("cpu", thousandths),
            available_memory_bytes: left("memory", units),
            available_gpu_count: left(gpu, units),
            running_sandboxes: i32::try_from(here.len()).unwrap_or(i32::MAX),
        }),
        connected_at: Some(prost_types::Timestamp {
            seconds: since.unwrap_or_default(),
            nanos: 0,
        }),
        is_shared: false,
        organization_id: config.organization_id.clone(),
    }
}

fn allocatable<'a>(node: &'a Node, resource: &str) -> Option<&'a Quantity> {
    node.status.as_ref()?.allocatable.as_ref()?.get(resource)
}

/// Ready, and open to new pods.
fn is_usable(node: &Node) -> bool {
    let closed = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    !closed && conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, ready: &str, cpu: &str) -> Node {
        let object = json!({
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"kubernetes.io/arch": "amd64", GPU_PRODUCT: "H100"}},
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
    fn the_cluster_is_the_sum_of_its_ready_nodes_less_what_sandboxes_asked_for() {
        let nodes = [node("a", "True", "4"), node("b", "True", "1500m"), node("c", "False", "64")];
        let sandboxes = [sandbox("RUNNING"), sandbox("COMPLETED")];
        let all: Vec<&Node> = nodes.iter().collect();
        let runner = available(&Config::default(), &runner(), &all, &sandboxes, true);
        let (can, left) = (runner.capabilities.clone().unwrap(), runner.resources.unwrap());
        assert!(runner.healthy && !runner.organization_id.is_empty());
        assert_eq!((can.max_cpu_millicores, can.max_memory_bytes, can.max_gpu_count), (4000, 8 << 30, 2));
        assert_eq!(
            (can.supported_architectures, can.supported_gpu_types),
            (vec!["amd64".to_owned()], vec!["H100".to_owned()])
        );
        assert_eq!(
            (left.available_cpu_millicores, left.available_memory_bytes, left.available_gpu_count),
            (5000, 15 << 30, 4)
        );
        assert_eq!(left.running_sandboxes, 1);
        let gone = available(&Config::default(), &self::runner(), &all[2..], &sandboxes, true);
        assert!(!gone.healthy);
        assert_eq!(gone.resources.unwrap().running_sandboxes, 0, "they are on other nodes");
    }

    #[test]
    fn filters_go_by_what_it_can() {
        let runner = available(&Config::default(), &runner(), &[&node("a", "True", "4")], &[], false);
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
