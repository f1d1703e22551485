//! Round trips: the command `true`, from the request to its exit code.

use futures::stream;
use std::time::Duration;

use crate::calls::{self, words};
use crate::gateway::Gateway;
use crate::ground::Failure;
use crate::load;
use crate::report::{Cost, Trips};
use crate::scene::Scene;
use crate::stats::{Samples, ratio};

/// What makes the round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As the SDK runs commands.
    StreamExec,
    /// The unary call.
    Exec,
    /// No command at all: what the gateway itself needs.
    GetSandbox,
    /// `pods/exec`.
    WebSocket,
    /// `kubectl exec`.
    Kubectl,
}

impl Way {
    /// As it is called in the report.
    pub fn name(self) -> &'static str {
        match self {
            Way::StreamExec => "StreamExec",
            Way::Exec => "Exec",
            Way::GetSandbox => "GetSandbox (no command)",
            Way::WebSocket => "pods/exec, WebSocket",
            Way::Kubectl => "kubectl exec",
        }
    }
}

/// `count` round trips by so many callers.
pub async fn measure(scene: &Scene, gateway: &Gateway, way: Way, callers: usize, count: usize) -> Result<Trips, Failure> {
    eprintln!("{}: {count} by {callers}", way.name());
    let before = gateway.state().await?;
    let samples = run(scene, way, callers, count).await?;
    let after = gateway.state().await?;
    // What each caller did first is in it too.
    let calls = (samples.latencies.len() + callers) as f64;
    let through_gateway = !matches!(way, Way::WebSocket | Way::Kubectl);
    Ok(Trips {
        name: way.name().into(),
        callers,
        timing: samples.timing(),
        cost: through_gateway.then(|| Cost {
            cpu_ms: ratio((after.usage.cpu - before.usage.cpu) * 1000.0, calls),
            api_requests: ratio(after.api_requests - before.api_requests, calls),
        }),
    })
}

/// Starts `true` and waits for it, and says in seconds how long each took.
const SPAWN: &str = "\
import os, sys, time
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    os.waitpid(os.posix_spawnp('true', ['true'], os.environ), 0)
    print(time.perf_counter() - began)
";

/// What is left of it without any call: the same command, `count` times, by a process in the sandbox.
pub async fn inside(scene: &Scene, count: usize) -> Result<Trips, Failure> {
    let mut output = vec![];
    let command = words(&["python3", "-c", SPAWN, &count.to_string()]);
    let mut take = |data: &[u8]| output.extend_from_slice(data);
    load::bounded(calls::stream_exec(
        &mut scene.caller(0),
        &scene.place(0).sandbox_id,
        command,
        stream::empty(),
        &mut take,
    ))
    .await?;
    let seconds: Result<Vec<f64>, _> = String::from_utf8(output)?.lines().map(str::parse).collect();
    let latencies: Vec<Duration> = seconds?.into_iter().map(Duration::from_secs_f64).collect();
    let samples = Samples {
        span: latencies.iter().sum(),
        latencies,
    };
    Ok(Trips {
        name: "in the sandbox, no call".into(),
        callers: 1,
        timing: samples.timing(),
        cost: None,
    })
}

async fn run(scene: &Scene, way: Way, callers: usize, count: usize) -> Result<Samples, Failure> {
    let scene = scene.clone();
    load::run(callers, count, move |n| {
        let scene = scene.clone();
        async move {
            let (mut caller, place, command) = (scene.caller(n), scene.place(n), words(&["true"]));
            match way {
                Way::StreamExec => calls::stream_exec(&mut caller, &place.sandbox_id, command, stream::empty(), &mut |_| {}).await,
                Way::Exec => calls::exec(&mut caller, &place.sandbox_id, command).await,
                Way::GetSandbox => calls::get(&mut caller, &place.sandbox_id).await.map(drop),
                Way::WebSocket => calls::websocket(scene.pods(), &place.pod, command, &mut |_| {}).await,
                Way::Kubectl => calls::kubectl(scene.namespace(), &place.pod, command, &mut |_| {}).await,
            }
        }
    })
    .await
}
