//! Requests and limits, and GPUs.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

use super::problems::Problems;
use super::text::{self, non_empty};
use crate::api::FieldPath;
use crate::gateway::config::Gpus;
use crate::proto::sandbox as pb;
use crate::resources::quantity::thousandths;

/// Labels of nodes.
pub(super) type Labels = BTreeMap<String, String>;

type Quantities = BTreeMap<String, Quantity>;

/// Requests and limits of the container at `path`, and the labels that its node must have. `both`: the older field,
/// which is requests and limits at once. A GPU is an extended resource and cannot be overcommitted: it is both request
/// and limit, wherever it is set.
pub(crate) fn from_proto(
    path: &FieldPath,
    both: Option<pb::Resources>,
    requirements: Option<pb::ResourceRequirements>,
    gpus: &Gpus,
    problems: &mut Problems,
) -> (Option<ResourceRequirements>, Labels) {
    if both.is_some() && requirements.is_some() {
        problems.invalid(
            &path.field("resources"),
            "must be left out if resource_requirements is set",
        );
    }
    let requirements_path = path.field("resource_requirements");
    let (requests_path, limits_path, (mut requests, requested_gpu), (mut limits, limit_gpu)) =
        match (requirements, both) {
            (Some(pb::ResourceRequirements { requests, limits }), _) => {
                let (requests_path, limits_path) =
                    (requirements_path.field("requests"), requirements_path.field("limits"));
                let requests = quantities(&requests_path, requests, problems);
                let limits = quantities(&limits_path, limits, problems);
                (requests_path, limits_path, requests, limits)
            }
            (None, both) => {
                let path = path.field("resources");
                let both = quantities(&path, both, problems);
                (path.clone(), path, both.clone(), both)
            }
        };
    for name in RESOURCES {
        let [request, limit] = [&requests, &limits].map(|all| all.get(name).and_then(thousandths));
        if request.zip(limit).is_some_and(|(request, limit)| request > limit) {
            problems.invalid(&requests_path.field(name), "must be at most the limit");
        }
    }
    if requested_gpu.is_some() && limit_gpu.is_some() && requested_gpu != limit_gpu {
        problems.invalid(&requests_path.field("gpu"), "must be the same as in limits");
    }
    let gpu_path = if limit_gpu.is_some() {
        limits_path
    } else {
        requests_path
    }
    .field("gpu");
    let mut labels = Labels::new();
    if let Some(gpu) = limit_gpu.or(requested_gpu) {
        let count = Quantity(gpu.count.to_string());
        requests.insert(gpus.resource.clone(), count.clone());
        limits.insert(gpus.resource.clone(), count);
        labels = node_labels(&gpu_path, &gpu, gpus, problems);
    }
    let requirements = ResourceRequirements {
        requests: non_empty(requests),
        limits: non_empty(limits),
        claims: None,
    };
    (non_empty(requirements), labels)
}

const RESOURCES: [&str; 2] = ["cpu", "memory"];

fn quantities(
    path: &FieldPath,
    resources: Option<pb::Resources>,
    problems: &mut Problems,
) -> (Quantities, Option<pb::Gpu>) {
    let pb::Resources { cpu, memory, gpu } = resources.unwrap_or_default();
    let mut quantities = Quantities::new();
    for (name, value) in RESOURCES.into_iter().zip([cpu, memory]) {
        if !value.is_empty() {
            problems.check(&path.field(name), text::quantity_error(&value));
            quantities.insert(name.into(), Quantity(value));
        }
    }
    let gpu = gpu.filter(|g| *g != pb::Gpu::default());
    if gpu.as_ref().is_some_and(|g| g.count < 1) {
        problems.invalid(&path.field("gpu").field("count"), "must be at least 1");
    }
    (quantities, gpu)
}

fn node_labels(path: &FieldPath, gpu: &pb::Gpu, gpus: &Gpus, problems: &mut Problems) -> Labels {
    use pb::gpu::Selector;
    let found = match &gpu.selector {
        None => return Labels::new(),
        Some(Selector::Type(name)) => gpus.types.get(name),
        Some(Selector::MemoryGb(gigabytes)) => gpus.memory_gb.get(gigabytes),
    };
    if found.is_none() {
        problems.no_suitable_runner(path, "no node has such a GPU");
    }
    found.cloned().unwrap_or_default()
}

/// The reverse of [`from_proto`].
pub(crate) fn to_proto(
    own: Option<&ResourceRequirements>,
    node_selector: Option<&Labels>,
    gpus: &Gpus,
) -> Option<pb::ResourceRequirements> {
    let to_resources = |quantities: Option<&Quantities>| {
        let quantities = quantities?;
        let get = |name: &str| quantities.get(name).map(|q| q.0.clone()).unwrap_or_default();
        let resources = pb::Resources {
            cpu: get("cpu"),
            memory: get("memory"),
            gpu: get(&gpus.resource).parse().ok().map(|count| pb::Gpu {
                count,
                selector: node_selector.and_then(|labels| selector(labels, gpus)),
            }),
        };
        non_empty(resources)
    };
    let own = own?;
    let requirements = pb::ResourceRequirements {
        requests: to_resources(own.requests.as_ref()),
        limits: to_resources(own.limits.as_ref()),
    };
    non_empty(requirements)
}

/// The type of GPU that the labels of the sandbox's node stand for.
fn selector(node: &Labels, gpus: &Gpus) -> Option<pb::gpu::Selector> {
    let matches = |labels: &Labels| !labels.is_empty() && labels.iter().all(|(k, v)| node.get(k) == Some(v));
    let by_type = gpus.types.iter().find(|(_, labels)| matches(labels));
    let by_memory = || gpus.memory_gb.iter().find(|(_, labels)| matches(labels));
    by_type
        .map(|(name, _)| pb::gpu::Selector::Type(name.clone()))
        .or_else(|| by_memory().map(|(gigabytes, _)| pb::gpu::Selector::MemoryGb(*gigabytes)))
}
