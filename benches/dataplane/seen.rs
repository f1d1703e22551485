//! What a client that watches sees of sandboxes and pods, and when.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use sandbox_operator::api::{Sandbox, State};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ground::{Failure, Ground, PATIENCE};

/// A step on the way to the first result, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The create was answered.
    Answered,
    /// There is a pod.
    Made,
    /// It has a node.
    Placed,
    /// It has a network.
    Networked,
    /// Its main container runs.
    Started,
    /// RUNNING, of a sandbox; Ready, of a bare pod.
    Ready,
    /// The first command has ended.
    Done,
}

impl Step {
    /// All of them, and how they are called in the report.
    pub const ALL: [(Step, &str); 7] = [
        (Step::Answered, "create answered"),
        (Step::Made, "pod seen"),
        (Step::Placed, "on a node"),
        (Step::Networked, "with a network"),
        (Step::Started, "main container runs"),
        (Step::Ready, "RUNNING, Ready"),
        (Step::Done, "first exec"),
    ];
}

/// The first time that a step of a sandbox, or of a bare pod, was seen.
pub struct Seen {
    all: watch::Receiver<All>,
    _watches: JoinSet<()>,
}

#[derive(Default)]
struct All {
    lists: usize,
    steps: HashMap<(String, Step), Instant>,
}

/// What has steps.
trait Steps: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static {
    /// The sandbox or pod that it tells of, and the steps that were made.
    fn steps(&self) -> (String, Vec<Step>);
}

impl Steps for Sandbox {
    fn steps(&self) -> (String, Vec<Step>) {
        let runs = self.status.as_ref().is_some_and(|s| s.state == State::Running);
        (self.name_any(), runs.then_some(Step::Ready).into_iter().collect())
    }
}

impl Steps for Pod {
    fn steps(&self) -> (String, Vec<Step>) {
        let owner = self.owner_references().iter().find(|owner| owner.controller == Some(true));
        let status = self.status.clone().unwrap_or_default();
        let holds = |kind: &str| status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True");
        let main = status.container_statuses.iter().flatten().find(|c| c.name == "main");
        let steps = [
            (Step::Made, true),
            (Step::Placed, holds("PodScheduled")),
            (Step::Networked, holds("PodReadyToStartContainers")),
            (Step::Started, main.and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some())),
            // A sandbox's own state counts for it.
            (Step::Ready, owner.is_none() && holds("Ready")),
        ];
        let made = steps.into_iter().filter(|(_, made)| *made).map(|(step, _)| step).collect();
        (owner.map_or_else(|| self.name_any(), |owner| owner.name.clone()), made)
    }
}

impl Seen {
    /// Watches both namespaces; returns when they are listed.
    pub async fn new(ground: &Ground) -> Result<Seen, Failure> {
        let (tell, mut all) = watch::channel(All::default());
        let mut watches = JoinSet::new();
        let (sandboxes, pods) = (&ground.sandboxes.namespace, &ground.pods.namespace);
        let namespaced = |namespace: &str| Api::namespaced(ground.client.clone(), namespace);
        watches.spawn(follow::<Pod>(namespaced(pods), tell.clone()));
        watches.spawn(follow::<Pod>(namespaced(sandboxes), tell.clone()));
        watches.spawn(follow::<Sandbox>(Api::namespaced(ground.client.clone(), sandboxes), tell));
        let listed = tokio::time::timeout(PATIENCE, all.wait_for(|all| all.lists == 3)).await;
        listed.map_err(|_| "no list of sandboxes and pods")??;
        Ok(Seen { all, _watches: watches })
    }

    /// Waits for a step.
    pub async fn until(&self, name: &str, step: Step) -> Result<Instant, Failure> {
        let key = (name.to_owned(), step);
        let mut all = self.all.clone();
        let seen = tokio::time::timeout(PATIENCE, all.wait_for(|all| all.steps.contains_key(&key))).await;
        let seen = seen.map_err(|_| format!("{name} did not come to {step:?} within {PATIENCE:?}"))??;
        Ok(seen.steps[&key])
    }

    /// When a step was seen, if it was.
    pub fn at(&self, name: &str, step: Step) -> Option<Instant> {
        self.all.borrow().steps.get(&(name.to_owned(), step)).copied()
    }
}

async fn follow<K: Steps>(api: Api<K>, tell: watch::Sender<All>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let (name, steps) = object.steps();
                tell.send_modify(|all| {
                    for step in steps {
                        all.steps.entry((name.clone(), step)).or_insert_with(Instant::now);
                    }
                });
            }
            Ok(Event::InitDone) => tell.send_modify(|all| all.lists += 1),
            Ok(Event::Init | Event::Delete(_)) => {}
            Err(error) => eprintln!("watch: {error}"),
        }
    }
}
