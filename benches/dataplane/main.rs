//! Commands, files and starts through the gateway, next to `kubectl exec`, `pods/exec` and bare pods. See
//! docs/benchmarks.md.

mod callers;
mod calls;
mod content;
#[path = "../common/fixture.rs"]
mod fixture;
mod gateway;
mod load;
mod memory;
#[path = "../common/metrics.rs"]
mod metrics;
mod observer;
mod report;
mod round_trips;
mod sdk_polls;
mod setup;
mod starts;
#[path = "../common/stats.rs"]
mod stats;
mod transfers;
#[path = "../common/usage.rs"]
mod usage;

use clap::Parser;
use kube::Client;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Instant;

use callers::Callers;
use fixture::{Failure, Fixture};
use gateway::Gateway;
use report::Report;
use round_trips::Method;
use setup::Setup;

/// The gateway next to the alternatives without it.
#[derive(Parser)]
struct Options {
    /// Small numbers, to check that the benchmark works.
    #[arg(long)]
    quick: bool,
    /// The gateway's URL, as hack/sdk/url.sh prints it.
    #[arg(long)]
    url: String,
    /// Namespace of the gateway.
    #[arg(long, default_value = "sandbox-operator")]
    namespace: String,
    /// ClusterRole of the gateway's users.
    #[arg(long, default_value = "sandbox-operator-user")]
    role: String,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Size of the benchmark.
struct Scale {
    /// Method, callers, round trips.
    round_trips: &'static [(Method, usize, usize)],
    /// Round trips without a call.
    inside: usize,
    /// Idle streams.
    streams: usize,
    /// Rounds of transfers, and how often output repeats the file.
    transfers: (usize, usize),
    /// Name, rounds, number started at once.
    starts: [(&'static str, usize, usize); 2],
}

const FULL: Scale = Scale {
    round_trips: &[
        (Method::StreamExec, 1, 500),
        (Method::Kubectl, 1, 40),
        (Method::WebSocket, 1, 100),
        (Method::Exec, 1, 500),
        (Method::GetSandbox, 1, 500),
        (Method::StreamExec, 16, 3200),
        (Method::Exec, 16, 3200),
        (Method::WebSocket, 16, 320),
        (Method::Kubectl, 4, 80),
        (Method::StreamExec, 64, 6400),
        (Method::Exec, 64, 6400),
        (Method::WebSocket, 64, 320),
    ],
    inside: 500,
    streams: 1000,
    transfers: (5, 8),
    starts: [("one by one", 10, 1), ("burst", 2, 20)],
};
const QUICK: Scale = Scale {
    round_trips: &[
        (Method::StreamExec, 1, 50),
        (Method::Kubectl, 1, 5),
        (Method::WebSocket, 1, 10),
        (Method::Exec, 1, 50),
        (Method::GetSandbox, 1, 50),
        (Method::StreamExec, 16, 160),
        (Method::WebSocket, 16, 32),
        (Method::StreamExec, 64, 320),
    ],
    inside: 50,
    streams: 100,
    transfers: (1, 2),
    starts: [("one by one", 2, 1), ("burst", 2, 5)],
};

#[tokio::main]
async fn main() -> ExitCode {
    fixture::exit_code(bench(Options::parse()).await)
}

async fn bench(options: Options) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let gateway = Gateway::find(&client, &options.namespace).await?;
    let mut fixture = Fixture::new(&client, Value::Null).await?;
    let mut report = Report::default();
    let measured = tokio::select! {
        measured = measure(&options, &gateway, &mut fixture, &mut report) => measured,
        () = fixture::interrupted() => Err("interrupted".into()),
    };
    // After a failure too: print what has been measured.
    print!("{}", report.table());
    eprintln!("removing the benchmark's objects");
    let removed = fixture.remove().await;
    println!("{}", serde_json::to_string(&report)?);
    measured.and(removed)?;
    match report.lost() {
        0 => Ok(()),
        lost => Err(format!("{lost} bytes were lost").into()),
    }
}

async fn measure(
    options: &Options,
    gateway: &Gateway,
    fixture: &mut Fixture,
    report: &mut Report,
) -> Result<(), Failure> {
    let began = Instant::now();
    let scale = if options.quick { QUICK } else { FULL };
    report.processors = std::thread::available_parallelism()?.get();
    eprintln!("callers and sandboxes");
    let callers = Callers::new(fixture, options.url.clone(), &options.role).await?;
    let setup = Setup::new(fixture, &callers).await?;
    // Measure memory first: memory that was used and freed before would hide what the streams use.
    eprintln!("{} idle streams, twice", scale.streams);
    report.memory = memory::measure(&setup, &callers, gateway, scale.streams).await?;
    report
        .round_trips
        .push(round_trips::inside(&setup, scale.inside).await?);
    for (method, callers, count) in scale.round_trips {
        report
            .round_trips
            .push(round_trips::measure(&setup, gateway, *method, *callers, *count).await?);
    }
    let (rounds, times) = scale.transfers;
    report.transfers = transfers::measure(&setup, rounds, times).await?;
    for (name, rounds, at_once) in scale.starts {
        report
            .starts
            .push(starts::measure(fixture, &setup, name, rounds, at_once).await?);
    }
    report.seconds = began.elapsed().as_secs_f64();
    Ok(())
}
