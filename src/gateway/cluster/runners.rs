//! The runner of each node, from a watch of the nodes' labels.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

use crate::api::Sandbox;
use crate::gateway::config::{Config, Runner};
use crate::gateway::convert::runners::RunnerSet;
use crate::kube::{ApiClient, Readable};

/// The runners and their nodes.
#[derive(Clone)]
pub struct Runners(Arc<Inner>);

struct Inner {
    set: RunnerSet,
    /// Indexes of runners by the names of their nodes.
    nodes: RwLock<HashMap<String, usize>>,
    ready: watch::Sender<bool>,
}

impl Runners {
    /// Runners whose nodes are not known yet.
    pub fn new(config: &Config) -> Runners {
        let set = RunnerSet::new(config);
        // The whole cluster needs no watch.
        let ready = watch::Sender::new(set.is_whole_cluster());
        Runners(Arc::new(Inner {
            set,
            nodes: RwLock::default(),
            ready,
        }))
    }

    /// The configured runners.
    pub(crate) fn set(&self) -> &RunnerSet {
        &self.0.set
    }

    /// Whether a node with these labels belongs to `runner`.
    pub(crate) fn has_node(&self, runner: &Runner, labels: &BTreeMap<String, String>) -> bool {
        let set = &self.0.set;
        set.is_whole_cluster() || set.index_of_node(labels).is_some_and(|i| set.all()[i].id == runner.id)
    }

    /// The runner on which the sandbox runs, or the only one on which it can.
    pub(crate) fn of(&self, sandbox: &Sandbox) -> Option<&Runner> {
        let set = &self.0.set;
        if set.is_whole_cluster() {
            return set.all().first();
        }
        let node = sandbox.status.as_ref().and_then(|s| s.node_name.as_ref());
        let index = node.and_then(|node| {
            self.0
                .nodes
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .get(node)
                .copied()
        });
        index.map(|i| &set.all()[i]).or_else(|| set.requested(sandbox))
    }

    /// Waits for the first list of nodes.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether the first list of nodes has arrived.
    pub(crate) fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Watches the nodes until the end of the process.
    pub(crate) async fn run(&self, api: &ApiClient) {
        if self.0.set.is_whole_cluster() {
            return std::future::pending().await;
        }
        let mut listed = HashMap::new();
        api.watch_cluster_scoped("", |event| self.apply(&mut listed, event))
            .await;
    }

    /// Applies an event of the watch. A list replaces the nodes only when it is complete; until then it is collected in
    /// `listed`.
    fn apply(&self, listed: &mut HashMap<String, usize>, event: Event<Readable<PartialObjectMeta<Node>>>) {
        let mut nodes = self.0.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let put = |nodes: &mut HashMap<String, usize>, node: &Readable<PartialObjectMeta<Node>>| match self
            .0
            .set
            .index_of_node(node.labels())
        {
            Some(i) => nodes.insert(node.name_any(), i),
            None => nodes.remove(&node.name_any()),
        };
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(node) => drop(put(listed, &node)),
            Event::InitDone => {
                *nodes = std::mem::take(listed);
                self.0.ready.send_replace(true);
            }
            Event::Apply(node) => drop(put(&mut nodes, &node)),
            Event::Delete(node) => drop(nodes.remove(&node.name_any())),
        }
    }
}

#[cfg(test)]
mod tests;
