//! From the create to the result of a first command: sandboxes next to bare pods of the same shape.

use futures::future::try_join_all;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use sandbox_operator::api::Sandbox;
use serde_json::json;
use std::time::{Duration, Instant};

use crate::calls::{self, words};
use crate::ground::{Failure, Ground, PATIENCE};
use crate::load::bounded;
use crate::polls::seen_by_sdk;
use crate::report::{Stage, Starts};
use crate::scene::Scene;
use crate::seen::{Seen, Step};
use crate::stats::Samples;

/// What is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sandbox,
    Pod,
}

/// When the steps of one start were made.
struct Start {
    began: Instant,
    steps: Vec<(Step, Instant)>,
}

impl Start {
    fn took(&self, step: Step) -> Option<Duration> {
        self.steps
            .iter()
            .find(|(s, _)| *s == step)
            .map(|(_, at)| at.saturating_duration_since(self.began))
    }

    /// How long it takes a caller who looks when the SDK looks.
    fn took_sdk(&self) -> Option<Duration> {
        let (answered, ready, done) = (self.took(Step::Answered)?, self.took(Step::Ready)?, self.took(Step::Done)?);
        Some(answered + seen_by_sdk(ready.saturating_sub(answered)) + done.saturating_sub(ready))
    }
}

/// `rounds` times `at_once` of each kind, one kind after the other; they take turns in being the first.
pub async fn measure(ground: &Ground, scene: &Scene, name: &str, rounds: usize, at_once: usize) -> Result<Starts, Failure> {
    let seen = Seen::new(ground).await?;
    let (mut pods, mut sandboxes) = ((Samples::default(), vec![]), (Samples::default(), vec![]));
    for round in 1..=rounds {
        eprintln!("{name}: {at_once} bare pods and {at_once} sandboxes, round {round} of {rounds}");
        let mut kinds = [(Kind::Pod, &mut pods), (Kind::Sandbox, &mut sandboxes)];
        if round % 2 == 0 {
            kinds.reverse();
        }
        for (kind, (samples, starts)) in kinds {
            let began = Instant::now();
            let all = (0..at_once).map(|n| start(ground, scene, &seen, kind, format!("bare-{round}-{n}"), n));
            let all = try_join_all(all).await?;
            samples.add(Samples {
                latencies: all.iter().filter_map(|start| start.took(Step::Done)).collect(),
                span: began.elapsed(),
            });
            starts.extend(all);
            remove(ground, scene, kind).await?;
        }
    }
    let p50 = |starts: &[Start], took: &dyn Fn(&Start) -> Option<Duration>| {
        let latencies = starts.iter().filter_map(took).collect();
        let samples = Samples {
            latencies,
            ..Samples::default()
        };
        samples.timing().p50
    };
    let stage = |(step, name): (Step, &str)| Stage {
        name: name.into(),
        sandboxes: p50(&sandboxes.1, &|start| start.took(step)),
        pods: p50(&pods.1, &|start| start.took(step)),
    };
    Ok(Starts {
        name: name.into(),
        at_once,
        sandboxes: sandboxes.0.timing(),
        pods: pods.0.timing(),
        sdk_p50: p50(&sandboxes.1, &Start::took_sdk),
        stages: Step::ALL.map(stage).into(),
    })
}

async fn start(ground: &Ground, scene: &Scene, seen: &Seen, kind: Kind, name: String, n: usize) -> Result<Start, Failure> {
    let mut caller = scene.caller(n);
    let command = words(&["true"]);
    let began = Instant::now();
    let (name, answered) = match kind {
        Kind::Sandbox => {
            let made = bounded(async { Ok(caller.create_sandbox(calls::create()).await?) }).await?;
            (made.into_inner().sandbox_id, Instant::now())
        }
        Kind::Pod => {
            let mut pod = ground.pods.template.clone();
            pod["metadata"]["name"] = json!(name);
            pods(ground).create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
            (name, Instant::now())
        }
    };
    seen.until(&name, Step::Ready).await?;
    match kind {
        Kind::Sandbox => bounded(calls::stream_exec(&mut caller, &name, command, stream::empty(), &mut |_| {})).await?,
        Kind::Pod => bounded(calls::websocket(&pods(ground), &name, command, &mut |_| {})).await?,
    }
    let done = Instant::now();
    let steps = Step::ALL.iter().filter_map(|(step, _)| match step {
        Step::Answered => Some((*step, answered)),
        Step::Done => Some((*step, done)),
        _ => Some((*step, seen.at(&name, *step)?)),
    });
    Ok(Start {
        began,
        steps: steps.collect(),
    })
}

fn pods(ground: &Ground) -> Api<Pod> {
    Api::namespaced(ground.client.clone(), &ground.pods.namespace)
}

/// Removes what was started, so that the next has the node to itself.
async fn remove(ground: &Ground, scene: &Scene, kind: Kind) -> Result<(), Failure> {
    let all = ListParams::default();
    let (left, stays) = match kind {
        Kind::Pod => {
            pods(ground).delete_collection(&DeleteParams::default(), &all).await?;
            (pods(ground), 0)
        }
        Kind::Sandbox => {
            let sandboxes: Api<Sandbox> = Api::namespaced(ground.client.clone(), scene.namespace());
            for sandbox in sandboxes.list_metadata(&all).await?.items {
                let name = sandbox.metadata.name.unwrap_or_default();
                if !scene.places().iter().any(|place| place.sandbox_id == name) {
                    sandboxes.delete(&name, &DeleteParams::background()).await?;
                }
            }
            (scene.pods().clone(), scene.places().len())
        }
    };
    let began = Instant::now();
    while left.list_metadata(&all).await?.items.len() > stays {
        if began.elapsed() > 2 * PATIENCE {
            return Err("pods that were removed do not go".into());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}
