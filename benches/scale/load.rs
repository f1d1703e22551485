//! Creates objects at a rate and watches until each runs, in the same way for sandboxes and bare pods.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{ObjectMeta, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use sandbox_operator::api::{Sandbox, State};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::json;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

use crate::fixture::{Failure, IN_FLIGHT, Target};
use crate::stats::Samples;

/// Label with the object's phase. Each phase watches its own objects only.
pub const LABEL: &str = "bench/phase";

/// The decoded part of a watched object. Decoding nothing else keeps the benchmark's own work small, and equal for both
/// kinds.
pub trait Observed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// Whether it runs.
    fn running(&self) -> bool;
}

/// A watched sandbox.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Sandbox)]
pub struct ObservedSandbox {
    metadata: ObjectMeta,
    status: Option<SandboxState>,
}

#[derive(Clone, Debug, Deserialize)]
struct SandboxState {
    state: State,
}

impl Observed for ObservedSandbox {
    fn running(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.state == State::Running)
    }
}

/// A watched pod.
#[derive(Clone, Debug, Deserialize, Resource)]
#[resource(inherit = Pod)]
pub struct ObservedPod {
    metadata: ObjectMeta,
    status: Option<PodState>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodState {
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
}

impl Observed for ObservedPod {
    fn running(&self) -> bool {
        let main = self
            .status
            .iter()
            .flat_map(|s| &s.container_statuses)
            .find(|c| c.name == "main");
        main.and_then(|c| c.state.as_ref()).is_some_and(|s| s.running.is_some())
    }
}

/// Number and rate of the objects.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Prefix of the objects' names.
    pub name: String,
    /// Number of objects.
    pub count: usize,
    /// Creates per second. None: as fast as the API server responds.
    pub rate: Option<u32>,
}

/// Runs one phase until all its objects run.
pub async fn run<K: Observed>(client: &Client, target: &Target, plan: &Plan) -> Result<Samples, Failure> {
    let bound = Duration::from_secs(60) + Duration::from_millis(100) * u32::try_from(plan.count)?;
    let (listed, watching) = oneshot::channel();
    let api: Api<K> = Api::namespaced(client.clone(), &target.namespace);
    let watch = tokio::spawn(all_running(api, plan.clone(), listed));
    let phase = async {
        watching.await?;
        let created = create::<K>(client, target, plan).await?;
        Ok::<_, Failure>((created, watch.await?))
    };
    let (created, seen) = tokio::time::timeout(bound, phase)
        .await
        .map_err(|_| format!("{}: not all of {} ran within {bound:?}", plan.name, plan.count))??;
    let first = created.values().min().copied().ok_or("an empty phase")?;
    let last = seen.values().max().copied().ok_or("an empty phase")?;
    let latencies = seen
        .iter()
        .filter_map(|(name, at)| created.get(name).map(|from| *at - *from))
        .collect();
    Ok(Samples {
        latencies,
        span: last - first,
    })
}

/// When each object of the phase was first seen running.
async fn all_running<K: Observed>(api: Api<K>, plan: Plan, listed: oneshot::Sender<()>) -> HashMap<String, Instant> {
    let config = watcher::Config::default().labels(&format!("{LABEL}={}", plan.name));
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let (mut listed, mut seen) = (Some(listed), HashMap::new());
    while seen.len() < plan.count {
        match events.next().await {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) if object.running() => {
                seen.entry(object.name_any()).or_insert_with(Instant::now);
            }
            Some(Ok(Event::InitDone)) => {
                listed.take().map(|l| l.send(()));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => eprintln!("watch: {error}"),
            None => break,
        }
    }
    seen
}

/// Creates all objects, and returns when each request was sent.
async fn create<K: Observed>(
    client: &Client,
    target: &Target,
    plan: &Plan,
) -> Result<HashMap<String, Instant>, Failure> {
    let url = K::url_path(&(), Some(&target.namespace));
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut tick = plan
        .rate
        .map(|rate| tokio::time::interval(Duration::from_secs(1) / rate));
    let mut in_flight = Vec::with_capacity(plan.count);
    for number in 0..plan.count {
        if let Some(tick) = &mut tick {
            tick.tick().await;
        }
        let name = format!("{}-{number}", plan.name);
        let mut object = target.template.clone();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"][LABEL] = json!(plan.name);
        let request =
            kube::core::Request::new(url.clone()).create(&PostParams::default(), serde_json::to_vec(&object)?)?;
        let permit = permits.clone().acquire_owned().await?;
        let client = client.clone();
        in_flight.push(tokio::spawn(async move {
            let sent = Instant::now();
            let answer = client.request::<IgnoredAny>(request).await;
            drop(permit);
            answer.map(|_| (name, sent))
        }));
    }
    let mut created = HashMap::with_capacity(plan.count);
    for create in in_flight {
        let (name, sent) = create.await??;
        created.insert(name, sent);
    }
    Ok(created)
}
