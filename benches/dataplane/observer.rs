//! Watches sandboxes and pods, and records when each step is first visible.

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

use crate::fixture::{Failure, Fixture, TIMEOUT};

/// The steps from create to the first result, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The create has returned.
    Answered,
    /// The pod exists.
    Created,
    /// The pod is scheduled.
    Scheduled,
    /// The pod has a network.
    NetworkReady,
    /// Its main container runs.
    Started,
    /// RUNNING, of a sandbox; Ready, of a bare pod.
    Ready,
    /// The first command has ended.
    Done,
}

impl Step {
    /// All steps with their names in the report.
    pub const ALL: [(Step, &str); 7] = [
        (Step::Answered, "create returned"),
        (Step::Created, "pod seen"),
        (Step::Scheduled, "scheduled"),
        (Step::NetworkReady, "with a network"),
        (Step::Started, "main container runs"),
        (Step::Ready, "RUNNING, Ready"),
        (Step::Done, "first exec"),
    ];
}

/// When each step of a sandbox or bare pod was first visible.
pub struct Observer {
    all: watch::Receiver<All>,
    _watches: JoinSet<()>,
}

#[derive(Default)]
struct All {
    lists: usize,
    steps: HashMap<(String, Step), Instant>,
}

/// An object with steps.
trait Steps:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// The sandbox or bare pod that it belongs to, and the steps that it shows.
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
        let owner = self
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let status = self.status.clone().unwrap_or_default();
        let holds = |kind: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == kind && c.status == "True")
        };
        let main = status.container_statuses.iter().flatten().find(|c| c.name == "main");
        let steps = [
            (Step::Created, true),
            (Step::Scheduled, holds("PodScheduled")),
            (Step::NetworkReady, holds("PodReadyToStartContainers")),
            (
                Step::Started,
                main.and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some()),
            ),
            // For a sandbox, its own state counts.
            (Step::Ready, owner.is_none() && holds("Ready")),
        ];
        let made = steps
            .into_iter()
            .filter(|(_, made)| *made)
            .map(|(step, _)| step)
            .collect();
        (owner.map_or_else(|| self.name_any(), |owner| owner.name.clone()), made)
    }
}

impl Observer {
    /// Watches both namespaces. Returns once both are listed.
    pub async fn new(fixture: &Fixture) -> Result<Observer, Failure> {
        let (sender, mut all) = watch::channel(All::default());
        let mut watches = JoinSet::new();
        let (sandboxes, pods) = (&fixture.sandboxes.namespace, &fixture.pods.namespace);
        let namespaced = |namespace: &str| Api::namespaced(fixture.client.clone(), namespace);
        watches.spawn(follow::<Pod>(namespaced(pods), sender.clone()));
        watches.spawn(follow::<Pod>(namespaced(sandboxes), sender.clone()));
        watches.spawn(follow::<Sandbox>(
            Api::namespaced(fixture.client.clone(), sandboxes),
            sender,
        ));
        let listed = tokio::time::timeout(TIMEOUT, all.wait_for(|all| all.lists == 3)).await;
        listed.map_err(|_| "no list of sandboxes and pods")??;
        Ok(Observer { all, _watches: watches })
    }

    /// Waits for a step.
    pub async fn until(&self, name: &str, step: Step) -> Result<Instant, Failure> {
        let key = (name.to_owned(), step);
        let mut all = self.all.clone();
        let seen = tokio::time::timeout(TIMEOUT, all.wait_for(|all| all.steps.contains_key(&key))).await;
        let seen = seen.map_err(|_| format!("{name} did not reach {step:?} within {TIMEOUT:?}"))??;
        Ok(seen.steps[&key])
    }

    /// When a step was first visible, if it was.
    pub fn at(&self, name: &str, step: Step) -> Option<Instant> {
        self.all.borrow().steps.get(&(name.to_owned(), step)).copied()
    }
}

async fn follow<K: Steps>(api: Api<K>, sender: watch::Sender<All>) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let (name, steps) = object.steps();
                sender.send_modify(|all| {
                    for step in steps {
                        all.steps.entry((name.clone(), step)).or_insert_with(Instant::now);
                    }
                });
            }
            Ok(Event::InitDone) => sender.send_modify(|all| all.lists += 1),
            Ok(Event::Init | Event::Delete(_)) => {}
            Err(error) => eprintln!("watch: {error}"),
        }
    }
}
