//! Commands, files and starts through the gateway, next to `kubectl exec`, `pods/exec` and bare pods. See docs/benchmarks.md.

mod callers;
mod calls;
mod content;
mod gateway;
#[path = "../common/ground.rs"]
mod ground;
mod load;
mod memory;
#[path = "../common/metrics.rs"]
mod metrics;
mod polls;
mod report;
mod scene;
mod seen;
mod starts;
#[path = "../common/stats.rs"]
mod stats;
mod transfers;
mod trips;
#[path = "../common/usage.rs"]
mod usage;

use clap::Parser;
use kube::Client;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Instant;

use callers::Callers;
use gateway::Gateway;
use ground::{Failure, Ground};
use report::Report;
use scene::Scene;
use trips::Way;

/// The gateway next to what there is without it.
#[derive(Parser)]
struct Options {
    /// Small numbers: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// The gateway, as hack/sdk/url.sh prints it.
    #[arg(long)]
    url: String,
    /// Namespace of the gateway.
    #[arg(long, default_value = "sandbox-operator")]
    namespace: String,
    /// ClusterRole of the gateway's users.
    #[arg(long, default_value = "sandbox-operator-user")]
    role: String,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many of what.
struct Scale {
    /// Way, callers, round trips.
    trips: &'static [(Way, usize, usize)],
    /// The same without a call.
    inside: usize,
    /// Idle streams.
    streams: usize,
    /// Rounds of transfers, and how often a stream of output has the file.
    transfers: (usize, usize),
    /// Name, rounds, how many at once.
    starts: [(&'static str, usize, usize); 2],
}

const FULL: Scale = Scale {
    trips: &[
        (Way::StreamExec, 1, 500),
        (Way::Kubectl, 1, 40),
        (Way::WebSocket, 1, 100),
        (Way::Exec, 1, 500),
        (Way::GetSandbox, 1, 500),
        (Way::StreamExec, 16, 3200),
        (Way::Exec, 16, 3200),
        (Way::WebSocket, 16, 320),
        (Way::Kubectl, 4, 80),
        (Way::StreamExec, 64, 6400),
        (Way::Exec, 64, 6400),
        (Way::WebSocket, 64, 320),
    ],
    inside: 500,
    streams: 1000,
    transfers: (5, 8),
    starts: [("one by one", 10, 1), ("burst", 2, 20)],
};
const QUICK: Scale = Scale {
    trips: &[
        (Way::StreamExec, 1, 50),
        (Way::Kubectl, 1, 5),
        (Way::WebSocket, 1, 10),
        (Way::Exec, 1, 50),
        (Way::GetSandbox, 1, 50),
        (Way::StreamExec, 16, 160),
        (Way::WebSocket, 16, 32),
        (Way::StreamExec, 64, 320),
    ],
    inside: 50,
    streams: 100,
    transfers: (1, 2),
    starts: [("one by one", 2, 1), ("burst", 2, 5)],
};

#[tokio::main]
async fn main() -> ExitCode {
    ground::exit_code(bench(Options::parse()).await)
}

async fn bench(options: Options) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let gateway = Gateway::find(&client, &options.namespace).await?;
    let mut ground = Ground::new(&client, Value::Null).await?;
    let mut report = Report::default();
    let measured = tokio::select! {
        measured = measure(&options, &gateway, &mut ground, &mut report) => measured,
        () = ground::interrupted() => Err("interrupted".into()),
    };
    // Also after a failure: what was measured until then.
    print!("{}", report.table());
    eprintln!("removing what was made");
    let removed = ground.remove().await;
    println!("{}", serde_json::to_string(&report)?);
    measured.and(removed)?;
    match report.lost() {
        0 => Ok(()),
        lost => Err(format!("{lost} bytes were lost").into()),
    }
}

async fn measure(options: &Options, gateway: &Gateway, ground: &mut Ground, report: &mut Report) -> Result<(), Failure> {
    let began = Instant::now();
    let scale = if options.quick { QUICK } else { FULL };
    report.processors = std::thread::available_parallelism()?.get();
    eprintln!("callers and sandboxes");
    let callers = Callers::new(ground, options.url.clone(), &options.role).await?;
    let scene = Scene::new(ground, &callers).await?;
    // First of all: memory that was used before and is free again would hide what is used now.
    eprintln!("{} idle streams, twice", scale.streams);
    report.memory = memory::measure(&scene, &callers, gateway, scale.streams).await?;
    report.trips.push(trips::inside(&scene, scale.inside).await?);
    for (way, callers, count) in scale.trips {
        report.trips.push(trips::measure(&scene, gateway, *way, *callers, *count).await?);
    }
    let (rounds, times) = scale.transfers;
    report.transfers = transfers::measure(&scene, rounds, times).await?;
    for (name, rounds, at_once) in scale.starts {
        report.starts.push(starts::measure(ground, &scene, name, rounds, at_once).await?);
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(())
}
