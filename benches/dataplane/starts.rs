//! From create to the result of a first command: sandboxes next to bare pods with the same spec.

use futures::future::try_join_all;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use sandbox_operator::api::Sandbox;
use serde_json::json;
use std::time::{Duration, Instant};

use crate::calls::{self, words};
use crate::fixture::{Failure, Fixture, TIMEOUT};
use crate::load::bounded;
use crate::observer::{Observer, Step};
use crate::report::{Stage, Starts};
use crate::sdk_polls::next_sdk_poll;
use crate::setup::Setup;
use crate::stats::Samples;

/// The kind of object that is started.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sandbox,
    Pod,
}

/// When one start reached its steps.
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

    /// The duration for a caller that polls like the SDK.
    fn took_sdk(&self) -> Option<Duration> {
        let (answered, ready, done) = (
            self.took(Step::Answered)?,
            self.took(Step::Ready)?,
            self.took(Step::Done)?,
        );
        Some(answered + next_sdk_poll(ready.saturating_sub(answered)) + done.saturating_sub(ready))
    }
}

/// Starts `at_once` objects of each kind, `rounds` times. The kinds alternate in going first.
pub async fn measure(
    fixture: &Fixture,
    setup: &Setup,
    name: &str,
    rounds: usize,
    at_once: usize,
) -> Result<Starts, Failure> {
    let seen = Observer::new(fixture).await?;
    let (mut pods, mut sandboxes) = ((Samples::default(), vec![]), (Samples::default(), vec![]));
    for round in 1..=rounds {
        eprintln!("{name}: {at_once} bare pods and {at_once} sandboxes, round {round} of {rounds}");
        let mut kinds = [(Kind::Pod, &mut pods), (Kind::Sandbox, &mut sandboxes)];
        if round % 2 == 0 {
            kinds.reverse();
        }
        for (kind, (samples, starts)) in kinds {
            let began = Instant::now();
            let all = (0..at_once).map(|n| start(fixture, setup, &seen, kind, format!("bare-{round}-{n}"), n));
            let all = try_join_all(all).await?;
            samples.add(Samples {
                latencies: all.iter().filter_map(|start| start.took(Step::Done)).collect(),
                span: began.elapsed(),
            });
            starts.extend(all);
            remove(fixture, setup, kind).await?;
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

async fn start(
    fixture: &Fixture,
    setup: &Setup,
    seen: &Observer,
    kind: Kind,
    name: String,
    n: usize,
) -> Result<Start, Failure> {
    let mut caller = setup.caller(n);
    let command = words(&["true"]);
    let began = Instant::now();
    let (name, answered) = match kind {
        Kind::Sandbox => {
            let made = bounded(async { Ok(caller.create_sandbox(calls::create()).await?) }).await?;
            (made.into_inner().sandbox_id, Instant::now())
        }
        Kind::Pod => {
            let mut pod = fixture.pods.template.clone();
            pod["metadata"]["name"] = json!(name);
            pods(fixture)
                .create(&PostParams::default(), &serde_json::from_value(pod)?)
                .await?;
            (name, Instant::now())
        }
    };
    seen.until(&name, Step::Ready).await?;
    match kind {
        Kind::Sandbox => {
            bounded(calls::stream_exec(
                &mut caller,
                &name,
                command,
                stream::empty(),
                &mut |_| {},
            ))
            .await?
        }
        Kind::Pod => bounded(calls::websocket(&pods(fixture), &name, command, &mut |_| {})).await?,
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

fn pods(fixture: &Fixture) -> Api<Pod> {
    Api::namespaced(fixture.client.clone(), &fixture.pods.namespace)
}

/// Removes the started objects, so that the next start has the node for itself.
async fn remove(fixture: &Fixture, setup: &Setup, kind: Kind) -> Result<(), Failure> {
    let all = ListParams::default();
    let (left, expected) = match kind {
        Kind::Pod => {
            pods(fixture).delete_collection(&DeleteParams::default(), &all).await?;
            (pods(fixture), 0)
        }
        Kind::Sandbox => {
            let sandboxes: Api<Sandbox> = Api::namespaced(fixture.client.clone(), setup.namespace());
            for sandbox in sandboxes.list_metadata(&all).await?.items {
                let name = sandbox.metadata.name.unwrap_or_default();
                if !setup.sandboxes().iter().any(|running| running.sandbox_id == name) {
                    sandboxes.delete(&name, &DeleteParams::background()).await?;
                }
            }
            (setup.pods().clone(), setup.sandboxes().len())
        }
    };
    let began = Instant::now();
    while left.list_metadata(&all).await?.items.len() > expected {
        if began.elapsed() > 2 * TIMEOUT {
            return Err("deleted pods still exist".into());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}
