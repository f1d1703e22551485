//! Requests and limits, and GPUs.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::problems::Problems;
use super::text;
use crate::proto::sandbox as pb;
use crate::resources::quantity::thousandths;

/// Labels of nodes.
pub type Labels = BTreeMap<String, String>;

/// What the nodes have of GPUs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gpus {
    /// The resource that a device plugin counts.
    pub resource: String,
    /// Labels of the nodes with a type of GPU, by the type that callers name.
    pub types: BTreeMap<String, Labels>,
    /// Labels of the nodes whose GPUs have this much memory, by gigabytes.
    pub memory_gb: BTreeMap<i64, Labels>,
}

impl Default for Gpus {
    fn default() -> Gpus {
        Gpus {
            resource: "nvidia.com/gpu".into(),
            types: BTreeMap::new(),
            memory_gb: BTreeMap::new(),
        }
    }
}

type Quantities = BTreeMap<String, Quantity>;

/// Requests and limits of a container, and the labels that its node must have. A GPU is an extended resource, which is not overcommitted:
/// it is both request and limit, wherever it was named.
pub fn from_proto(
    at: &str,
    old: Option<&pb::Resources>,
    new: Option<&pb::ResourceRequirements>,
    gpus: &Gpus,
    problems: &mut Problems,
) -> (Option<ResourceRequirements>, Labels) {
    if old.is_some() && new.is_some() {
        problems.wrong(format!("{at}.resources"), "cannot be given together with resource_requirements");
    }
    let both = old.map(|r| pb::ResourceRequirements {
        requests: Some(r.clone()),
        limits: Some(r.clone()),
    });
    let Some(pb::ResourceRequirements { requests, limits }) = new.cloned().or(both) else {
        return (None, Labels::new());
    };
    let (at_requests, at_limits) = (
        format!("{at}.resource_requirements.requests"),
        format!("{at}.resource_requirements.limits"),
    );
    let (mut asked, gpu_asked) = quantities(&at_requests, requests, problems);
    let (mut bound, gpu_bound) = quantities(&at_limits, limits, problems);
    for (name, request) in &asked {
        let limit = bound.get(name).and_then(thousandths);
        if thousandths(request).zip(limit).is_some_and(|(request, limit)| request > limit) {
            problems.wrong(format!("{at_requests}.{name}"), "is more than its limit");
        }
    }
    if gpu_asked.is_some() && gpu_bound.is_some() && gpu_asked != gpu_bound {
        problems.wrong(format!("{at_requests}.gpu"), "must be the same as in limits");
    }
    let mut labels = Labels::new();
    if let Some(gpu) = gpu_bound.or(gpu_asked) {
        let count = Quantity(gpu.count.to_string());
        asked.insert(gpus.resource.clone(), count.clone());
        bound.insert(gpus.resource.clone(), count);
        labels = node_labels(&format!("{at_limits}.gpu"), &gpu, gpus, problems);
    }
    let some = |q: Quantities| (!q.is_empty()).then_some(q);
    let requirements = ResourceRequirements {
        requests: some(asked),
        limits: some(bound),
        claims: None,
    };
    ((requirements != ResourceRequirements::default()).then_some(requirements), labels)
}

fn quantities(at: &str, resources: Option<pb::Resources>, problems: &mut Problems) -> (Quantities, Option<pb::Gpu>) {
    let pb::Resources { cpu, memory, gpu } = resources.unwrap_or_default();
    let mut all = Quantities::new();
    for (name, value) in [("cpu", cpu), ("memory", memory)] {
        if !value.is_empty() {
            problems.check(format!("{at}.{name}"), text::not_quantity(&value));
            all.insert(name.into(), Quantity(value));
        }
    }
    let gpu = gpu.filter(|g| *g != pb::Gpu::default());
    if gpu.as_ref().is_some_and(|g| g.count < 1) {
        problems.wrong(format!("{at}.gpu.count"), "must be at least 1");
    }
    (all, gpu)
}

fn node_labels(at: &str, gpu: &pb::Gpu, gpus: &Gpus, problems: &mut Problems) -> Labels {
    use pb::gpu::Selector;
    let found = match &gpu.selector {
        None => return Labels::new(),
        Some(Selector::Type(name)) => gpus.types.get(name),
        Some(Selector::MemoryGb(gigabytes)) => gpus.memory_gb.get(gigabytes),
    };
    if found.is_none() {
        problems.no_runner(at, "no node has such a GPU");
    }
    found.cloned().unwrap_or_default()
}

/// The reverse of [`from_proto`].
pub fn to_proto(own: Option<&ResourceRequirements>, node_selector: Option<&Labels>, gpus: &Gpus) -> Option<pb::ResourceRequirements> {
    let of = |quantities: Option<&Quantities>| {
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
        (resources != pb::Resources::default()).then_some(resources)
    };
    let own = own?;
    let requirements = pb::ResourceRequirements {
        requests: of(own.requests.as_ref()),
        limits: of(own.limits.as_ref()),
    };
    (requirements != pb::ResourceRequirements::default()).then_some(requirements)
}

/// The kind of GPU that the sandbox's node must have.
fn selector(node: &Labels, gpus: &Gpus) -> Option<pb::gpu::Selector> {
    let chosen = |labels: &Labels| !labels.is_empty() && labels.iter().all(|(k, v)| node.get(k) == Some(v));
    let by_type = gpus.types.iter().find(|(_, labels)| chosen(labels));
    let by_memory = || gpus.memory_gb.iter().find(|(_, labels)| chosen(labels));
    by_type
        .map(|(name, _)| pb::gpu::Selector::Type(name.clone()))
        .or_else(|| by_memory().map(|(gigabytes, _)| pb::gpu::Selector::MemoryGb(*gigabytes)))
}
