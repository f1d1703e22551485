//! The configured runners, and the node affinity by which a sandbox is placed on the nodes of some of them. Pure.

use k8s_openapi::api::core::v1::{Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use std::collections::BTreeMap;

use crate::api::{Sandbox, Workload};
use crate::gateway::config::{Config, Runner};
use crate::gateway::convert::request_metadata::RequestMetadata;

/// The configured runners. Without any, the whole cluster is one runner.
#[derive(Debug)]
pub(crate) struct RunnerSet {
    runners: Vec<Runner>,
    is_whole_cluster: bool,
}

impl RunnerSet {
    /// The runners of a configuration.
    pub(crate) fn new(config: &Config) -> RunnerSet {
        let is_whole_cluster = config.runners.is_empty();
        let cluster = || Runner {
            id: config.runner_id.clone(),
            ..Runner::default()
        };
        let runners = if is_whole_cluster {
            vec![cluster()]
        } else {
            config.runners.clone()
        };
        RunnerSet {
            runners,
            is_whole_cluster,
        }
    }

    /// Whether the only runner is the whole cluster.
    pub(crate) fn is_whole_cluster(&self) -> bool {
        self.is_whole_cluster
    }

    /// All runners; at least one.
    pub(crate) fn all(&self) -> &[Runner] {
        &self.runners
    }

    /// The runner with this id.
    pub(crate) fn find(&self, id: &str) -> Option<&Runner> {
        self.runners.iter().find(|r| r.id == id)
    }

    /// Index of the runner to which a node with these labels belongs: the first that matches.
    pub(crate) fn index_of_node(&self, labels: &BTreeMap<String, String>) -> Option<usize> {
        let matches = |r: &Runner| r.node_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        self.runners.iter().position(matches)
    }

    /// The runner that a sandbox's creator chose, if there was only one to choose from.
    pub(crate) fn requested(&self, sandbox: &Sandbox) -> Option<&Runner> {
        let ids = RequestMetadata::of(sandbox).runner_ids;
        let mut requested = ids.iter().filter_map(|id| self.find(id));
        requested.next().filter(|_| requested.next().is_none())
    }

    /// Restricts `w` to nodes of the runners with these ids; without ids to nodes of any runner. Returns false if there
    /// is no such runner.
    pub(crate) fn place(&self, w: &mut Workload, ids: &[String]) -> bool {
        let chosen: Vec<&Runner> = self
            .runners
            .iter()
            .filter(|r| ids.is_empty() || ids.contains(&r.id))
            .collect();
        if !self.is_whole_cluster {
            restrict(w, &chosen);
        }
        !chosen.is_empty()
    }
}

/// Requires nodes of any of these runners, in addition to what the workload requires already.
fn restrict(w: &mut Workload, runners: &[&Runner]) {
    let affinity: &mut Affinity = w.pod.affinity.get_or_insert_default();
    let required = &mut affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution;
    let before = required.take().map(|r| r.node_selector_terms).unwrap_or_default();
    let before = if before.is_empty() {
        vec![NodeSelectorTerm::default()]
    } else {
        before
    };
    let term = |before: &NodeSelectorTerm, runner: &Runner| {
        let labels = runner.node_labels.iter().map(|(key, value)| NodeSelectorRequirement {
            key: key.clone(),
            operator: "In".into(),
            values: Some(vec![value.clone()]),
        });
        let expressions = before
            .match_expressions
            .iter()
            .flatten()
            .cloned()
            .chain(labels)
            .collect();
        NodeSelectorTerm {
            match_expressions: Some(expressions),
            ..before.clone()
        }
    };
    let node_selector_terms = before
        .iter()
        .flat_map(|b| runners.iter().map(move |r| term(b, r)))
        .collect();
    *required = Some(NodeSelector { node_selector_terms });
    for toleration in runners.iter().flat_map(|r| &r.tolerations) {
        let all = w.pod.tolerations.get_or_insert_default();
        if !all.contains(toleration) {
            all.push(toleration.clone());
        }
    }
}

#[cfg(test)]
mod tests;
