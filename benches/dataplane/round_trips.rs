//! Round trips: the command `true`, from the request to its exit code.

use futures::stream;
use std::time::Duration;

use crate::calls::{self, words};
use crate::fixture::Failure;
use crate::gateway::Gateway;
use crate::load;
use crate::report::{Cost, Trips};
use crate::setup::Setup;
use crate::stats::{Samples, ratio};

/// The kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As the SDK runs commands.
    StreamExec,
    /// The unary call.
    Exec,
    /// Runs no command: the gateway's own share.
    GetSandbox,
    /// `pods/exec`.
    WebSocket,
    /// `kubectl exec`.
    Kubectl,
}

impl Method {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Method::StreamExec => "StreamExec",
            Method::Exec => "Exec",
            Method::GetSandbox => "GetSandbox (no command)",
            Method::WebSocket => "pods/exec, WebSocket",
            Method::Kubectl => "kubectl exec",
        }
    }
}

/// Measures `count` round trips with `callers` callers.
pub async fn measure(
    setup: &Setup,
    gateway: &Gateway,
    method: Method,
    callers: usize,
    count: usize,
) -> Result<Trips, Failure> {
    eprintln!("{}: {count} by {callers}", method.name());
    let before = gateway.state().await?;
    let samples = run(setup, method, callers, count).await?;
    let after = gateway.state().await?;
    // The first call of each caller counts too.
    let calls = (samples.latencies.len() + callers) as f64;
    let through_gateway = !matches!(method, Method::WebSocket | Method::Kubectl);
    Ok(Trips {
        name: method.name().into(),
        callers,
        timing: samples.timing(),
        cost: through_gateway.then(|| Cost {
            cpu_ms: ratio((after.usage.cpu - before.usage.cpu) * 1000.0, calls),
            api_requests: ratio(after.api_requests - before.api_requests, calls),
        }),
    })
}

/// Runs `true` repeatedly and prints how many seconds each run took.
const SPAWN: &str = "\
import os, sys, time
for _ in range(int(sys.argv[1])):
    began = time.perf_counter()
    os.waitpid(os.posix_spawnp('true', ['true'], os.environ), 0)
    print(time.perf_counter() - began)
";

/// The same without calls: a process in the sandbox runs the command `count` times.
pub async fn inside(setup: &Setup, count: usize) -> Result<Trips, Failure> {
    let mut output = vec![];
    let command = words(&["python3", "-c", SPAWN, &count.to_string()]);
    let mut sink = |data: &[u8]| output.extend_from_slice(data);
    load::bounded(calls::stream_exec(
        &mut setup.caller(0),
        &setup.sandbox(0).sandbox_id,
        command,
        stream::empty(),
        &mut sink,
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

async fn run(setup: &Setup, method: Method, callers: usize, count: usize) -> Result<Samples, Failure> {
    let setup = setup.clone();
    load::run(callers, count, move |n| {
        let setup = setup.clone();
        async move {
            let (mut caller, sandbox, command) = (setup.caller(n), setup.sandbox(n), words(&["true"]));
            match method {
                Method::StreamExec => {
                    calls::stream_exec(&mut caller, &sandbox.sandbox_id, command, stream::empty(), &mut |_| {}).await
                }
                Method::Exec => calls::exec(&mut caller, &sandbox.sandbox_id, command).await,
                Method::GetSandbox => calls::get(&mut caller, &sandbox.sandbox_id).await.map(drop),
                Method::WebSocket => calls::websocket(setup.pods(), &sandbox.pod, command, &mut |_| {}).await,
                Method::Kubectl => calls::kubectl(setup.namespace(), &sandbox.pod, command, &mut |_| {}).await,
            }
        }
    })
    .await
}
