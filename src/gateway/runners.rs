//! Runners: where callers may ask their sandboxes to be. This cluster as a whole, or one for each configured node pool.

use k8s_openapi::api::core::v1::{Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Toleration};
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch as signal;

use super::config::Config;
use super::convert::request_metadata::RequestMetadata;
use crate::api::{Sandbox, Workload};
use crate::kube::{ApiClient, Readable};

/// One runner.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runner {
    /// The id by which callers name it.
    pub id: String,
    /// A group that callers may filter by; may be empty.
    #[serde(default)]
    pub group_id: String,
    /// Words that callers see.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Labels that all its nodes have, and no others.
    pub node_labels: BTreeMap<String, String>,
    /// Taints of its nodes that sandboxes on it tolerate.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
}

/// All runners.
#[derive(Clone)]
pub struct Runners(Arc<Inner>);

struct Inner {
    all: Vec<Runner>,
    /// Whether the one runner is the cluster.
    whole: bool,
    /// Nodes of runners: which of them it is, by the node's name.
    nodes: RwLock<HashMap<String, usize>>,
    ready: signal::Sender<bool>,
}

impl Runners {
    /// Those that are configured; none: the cluster is one.
    pub fn new(config: &Config) -> Runners {
        let whole = config.runners.is_empty();
        let cluster = || Runner {
            id: config.runner_id.clone(),
            ..Runner::default()
        };
        let all = if whole { vec![cluster()] } else { config.runners.clone() };
        Runners(Arc::new(Inner {
            all,
            whole,
            nodes: RwLock::default(),
            // What is everywhere need not be looked for.
            ready: signal::Sender::new(whole),
        }))
    }

    /// All of them: never none.
    pub fn all(&self) -> &[Runner] {
        &self.0.all
    }

    /// The one with this id.
    pub fn find(&self, id: &str) -> Option<&Runner> {
        self.0.all.iter().find(|r| r.id == id)
    }

    /// Whether a node with these labels is one of this runner's. With overlapping labels it is the first one's.
    pub fn has(&self, runner: &Runner, labels: &BTreeMap<String, String>) -> bool {
        self.0.whole || self.index(labels).is_some_and(|i| self.0.all[i].id == runner.id)
    }

    /// Where the sandbox is, or will be for sure.
    pub fn of(&self, sandbox: &Sandbox) -> Option<&Runner> {
        if self.0.whole {
            return self.0.all.first();
        }
        let node = sandbox.status.as_ref().and_then(|s| s.node_name.as_ref());
        let there = node.and_then(|node| self.0.nodes.read().unwrap_or_else(PoisonError::into_inner).get(node).copied());
        there.map(|i| &self.0.all[i]).or_else(|| {
            let asked = RequestMetadata::of(sandbox).runner_ids;
            let mut known = asked.iter().filter_map(|id| self.find(id));
            known.next().filter(|_| known.next().is_none())
        })
    }

    /// Lets the scheduler choose among the nodes of the runners with these ids; none named: of all. False if there is none of them.
    pub fn place(&self, w: &mut Workload, ids: &[String]) -> bool {
        let chosen: Vec<&Runner> = self.0.all.iter().filter(|r| ids.is_empty() || ids.contains(&r.id)).collect();
        if !self.0.whole {
            restrict(w, &chosen);
        }
        !chosen.is_empty()
    }

    /// Waits until it is known which nodes there are.
    pub async fn ready(&self) {
        // The sender is ours, so that it cannot be gone.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Whether it is known which nodes there are.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Watches the nodes' labels until the end of the process, if there is anything to learn from them.
    pub async fn run(&self, client: &ApiClient) {
        if self.0.whole {
            return std::future::pending().await;
        }
        let mut listed = HashMap::new();
        client.watch_cluster_scoped("", |event| self.take(&mut listed, event)).await;
    }

    /// One event of the watch. What a list has before it is whole goes to `listed`.
    fn take(&self, listed: &mut HashMap<String, usize>, event: Event<Readable<PartialObjectMeta<Node>>>) {
        let mut nodes = self.0.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let put = |nodes: &mut HashMap<String, usize>, node: &Readable<PartialObjectMeta<Node>>| match self.index(node.labels()) {
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

    fn index(&self, labels: &BTreeMap<String, String>) -> Option<usize> {
        let has = |r: &Runner| r.node_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        self.0.all.iter().position(has)
    }
}

/// The nodes of any of these runners, out of those that the workload may have already.
fn restrict(w: &mut Workload, runners: &[&Runner]) {
    let affinity: &mut Affinity = w.pod.affinity.get_or_insert_default();
    let required = &mut affinity
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution;
    let before = required.take().map(|r| r.node_selector_terms).unwrap_or_default();
    let before = if before.is_empty() { vec![NodeSelectorTerm::default()] } else { before };
    let term = |before: &NodeSelectorTerm, runner: &Runner| {
        let labels = runner.node_labels.iter().map(|(key, value)| NodeSelectorRequirement {
            key: key.clone(),
            operator: "In".into(),
            values: Some(vec![value.clone()]),
        });
        let expressions = before.match_expressions.iter().flatten().cloned().chain(labels).collect();
        NodeSelectorTerm {
            match_expressions: Some(expressions),
            ..before.clone()
        }
    };
    let node_selector_terms = before.iter().flat_map(|b| runners.iter().map(move |r| term(b, r))).collect();
    *required = Some(NodeSelector { node_selector_terms });
    for toleration in runners.iter().flat_map(|r| &r.tolerations) {
        let all = w.pod.tolerations.get_or_insert_default();
        if !all.contains(toleration) {
            all.push(toleration.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ANNOTATION_REQUEST_FACTS, SandboxStatus};
    use serde_json::json;

    fn runners() -> Runners {
        let text = "runners: [{id: cpu, nodeLabels: {pool: cpu}}, \
            {id: gpu, groupId: big, nodeLabels: {pool: gpu, zone: a}, tolerations: [{key: gpu, operator: Exists}]}]";
        let config: Config = serde_saphyr::from_str(text).unwrap();
        assert_eq!(config.check(), Ok(()));
        Runners::new(&config)
    }

    fn node(name: &str, labels: serde_json::Value) -> Readable<PartialObjectMeta<Node>> {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        serde_json::from_value(object).unwrap()
    }

    fn on(node: Option<&str>, asked: &[&str]) -> Sandbox {
        let mut sandbox = Sandbox::new("a", crate::api::SandboxSpec::default());
        let facts = json!({"runnerIds": asked}).to_string();
        sandbox.annotations_mut().insert(ANNOTATION_REQUEST_FACTS.into(), facts);
        sandbox.status = Some(SandboxStatus {
            node_name: node.map(Into::into),
            ..SandboxStatus::default()
        });
        sandbox
    }

    fn terms(w: &Workload) -> serde_json::Value {
        json!(
            w.pod
                .affinity
                .as_ref()
                .unwrap()
                .node_affinity
                .as_ref()
                .unwrap()
                .required_during_scheduling_ignored_during_execution
        )
    }

    #[test]
    fn without_pools_the_cluster_is_the_runner_and_restricts_nothing() {
        let runners = Runners::new(&Config::default());
        let mut w = Workload::default();
        assert!(runners.is_ready() && runners.place(&mut w, &["default".into()]) && runners.place(&mut w, &[]));
        assert_eq!(w, Workload::default());
        assert!(!runners.place(&mut w, &["other".into()]));
        assert_eq!(runners.of(&on(Some("anywhere"), &[])).unwrap().id, "default");
    }

    #[test]
    fn a_sandbox_is_where_its_node_is_and_before_that_where_it_must_come_to_be() {
        let (runners, mut listed) = (runners(), HashMap::new());
        let id = |sandbox: &Sandbox| runners.of(sandbox).map_or("", |r| r.id.as_str()).to_owned();
        runners.take(&mut listed, Event::Init);
        runners.take(&mut listed, Event::InitApply(node("n1", json!({"pool": "cpu"}))));
        assert!(!runners.is_ready());
        runners.take(&mut listed, Event::InitDone);
        runners.take(&mut listed, Event::Apply(node("n2", json!({"pool": "gpu", "zone": "a"}))));
        runners.take(&mut listed, Event::Apply(node("n3", json!({"pool": "gpu"}))));
        assert!(runners.is_ready());
        assert_eq!(
            [id(&on(Some("n1"), &[])), id(&on(Some("n2"), &[])), id(&on(Some("n3"), &[]))],
            ["cpu", "gpu", ""]
        );
        assert_eq!(
            [id(&on(None, &["gpu"])), id(&on(None, &["gpu", "gone"])), id(&on(None, &["gpu", "cpu"]))],
            ["gpu", "gpu", ""]
        );
        // A node that is gone, or another by now.
        runners.take(&mut listed, Event::Delete(node("n1", json!({}))));
        runners.take(&mut listed, Event::Apply(node("n2", json!({}))));
        assert_eq!([id(&on(Some("n1"), &[])), id(&on(Some("n2"), &["cpu"]))], ["", "cpu"]);
    }

    #[test]
    fn the_scheduler_chooses_among_the_nodes_of_the_runners() {
        let (runners, mut w) = (runners(), Workload::default());
        assert!(runners.place(&mut w, &["gpu".into()]));
        let gpu = json!([{"key": "pool", "operator": "In", "values": ["gpu"]}, {"key": "zone", "operator": "In", "values": ["a"]}]);
        assert_eq!(terms(&w), json!({"nodeSelectorTerms": [{"matchExpressions": gpu}]}));
        assert_eq!(w.pod.tolerations.as_ref().unwrap().len(), 1);
        let mut w: Workload = serde_json::from_value(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}, {"matchFields": []}]}}}}))
        .unwrap();
        assert!(runners.place(&mut w, &[]));
        let keys: Vec<Vec<String>> = terms(&w)["nodeSelectorTerms"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| {
                t["matchExpressions"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|e| e["key"].as_str().unwrap().to_owned())
                    .collect()
            })
            .collect();
        assert_eq!(
            keys,
            [vec!["disk", "pool"], vec!["disk", "pool", "zone"], vec!["pool"], vec!["pool", "zone"]]
        );
    }
}
