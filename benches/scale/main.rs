//! How fast sandboxes reach RUNNING next to bare pods with the same spec, and what that costs the operator. See
//! docs/benchmarks.md.

mod cluster;
#[path = "../common/fixture.rs"]
mod fixture;
mod load;
#[path = "../common/metrics.rs"]
mod metrics;
mod report;
mod requests;
#[path = "../common/stats.rs"]
mod stats;
#[path = "../common/usage.rs"]
mod usage;

use clap::Parser;
use kube::Client;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cluster::Operator;
use fixture::{Failure, Fixture};
use load::{ObservedPod, ObservedSandbox, Plan};
use report::{Memory, Phase, Report};
use requests::Writes;
use stats::{Samples, ratio};

/// Writes that follow RUNNING belong to the same sandboxes.
const SETTLE: Duration = Duration::from_secs(2);

/// Sandboxes next to bare pods on fake nodes.
#[derive(Parser)]
struct Options {
    /// Small numbers, to check that the benchmark works.
    #[arg(long)]
    quick: bool,
    /// Namespace of the operator and its lease.
    #[arg(long, default_value = "sandbox-operator")]
    namespace: String,
    /// Name of the operator's lease.
    #[arg(long, default_value = "sandbox-operator")]
    lease: String,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Size of the benchmark.
struct Scale {
    /// Name, objects, creates per second, rounds.
    phases: [(&'static str, usize, Option<u32>, usize); 3],
    /// Sandboxes at the end.
    total: usize,
}

const FULL: Scale = Scale {
    phases: [
        ("burst", 500, None, 2),
        ("steady-20", 300, Some(20), 1),
        ("steady-50", 500, Some(50), 1),
    ],
    total: 10_000,
};
const QUICK: Scale = Scale {
    phases: [
        ("burst", 50, None, 1),
        ("steady-20", 40, Some(20), 1),
        ("steady-50", 50, Some(50), 1),
    ],
    total: 300,
};

#[tokio::main]
async fn main() -> ExitCode {
    fixture::exit_code(bench(Options::parse()).await)
}

async fn bench(options: Options) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let operator = Operator::leading(&client, &options.namespace, &options.lease).await?;
    cluster::fake_nodes(&client).await?;
    let mut fixture = Fixture::new(&client, cluster::sandbox()).await?;
    let scale = if options.quick { QUICK } else { FULL };
    let mut report = Report::default();
    let measured = tokio::select! {
        measured = measure(&client, &operator, &mut fixture, scale, &mut report) => measured,
        () = fixture::interrupted() => Err("interrupted".into()),
    };
    // After a failure too: print what has been measured.
    print!("{}", report.table());
    eprintln!("removing the benchmark's objects");
    let removed = fixture.remove().await;
    println!("{}", serde_json::to_string(&report)?);
    measured.and(removed)
}

async fn measure(
    client: &Client,
    operator: &Operator,
    fixture: &mut Fixture,
    scale: Scale,
    report: &mut Report,
) -> Result<(), Failure> {
    let began = Instant::now();
    report.processors = std::thread::available_parallelism()?.get();
    let mut costs = Costs::default();
    report.memory.push(memory(operator, 0).await?);
    cluster::copy_shape(fixture).await?;
    for (name, count, rate, rounds) in scale.phases {
        let (mut sandboxes, mut pods) = (Samples::default(), Samples::default());
        for round in 0..rounds {
            let plan = Plan {
                name: format!("{name}-{round}"),
                count,
                rate,
            };
            eprintln!("{name}: {count} bare pods, then {count} sandboxes");
            pods.add(load::run::<ObservedPod>(client, &fixture.pods, &plan).await?);
            sandboxes.add(costs.of(client, operator, fixture, &plan).await?);
        }
        report.phases.push(Phase {
            name: name.into(),
            sandboxes: sandboxes.timing(),
            pods: pods.timing(),
        });
        report.memory.push(memory(operator, costs.sandboxes).await?);
    }
    let plan = Plan {
        name: "fill".into(),
        count: scale.total - costs.sandboxes,
        rate: None,
    };
    eprintln!("{} sandboxes", scale.total);
    costs.of(client, operator, fixture, &plan).await?;
    report.memory.push(memory(operator, scale.total).await?);
    report.writes_to_running = per_sandbox(&costs.writes, costs.sandboxes);
    report.cpu_ms_per_sandbox = ratio(costs.cpu * 1000.0, costs.sandboxes as f64);

    let (name, count, ..) = scale.phases[0];
    eprintln!("{count} sandboxes to COMPLETED");
    let before = cluster::writes(client).await?;
    cluster::complete(fixture, &format!("{name}-0"), count).await?;
    tokio::time::sleep(SETTLE).await;
    report.writes_to_end = per_sandbox(&requests::between(&before, &cluster::writes(client).await?, 0), count);
    report.seconds = began.elapsed().as_secs_f64();
    Ok(())
}

async fn memory(operator: &Operator, sandboxes: usize) -> Result<Memory, Failure> {
    let resident = operator.usage().await?.resident;
    Ok(Memory { sandboxes, resident })
}

fn per_sandbox(writes: &Writes, sandboxes: usize) -> Writes {
    writes
        .iter()
        .map(|(what, number)| (what.clone(), ratio(*number, sandboxes as f64)))
        .collect()
}

/// The operator's cost of sandboxes that reached RUNNING.
#[derive(Default)]
struct Costs {
    sandboxes: usize,
    writes: Writes,
    cpu: f64,
}

impl Costs {
    /// Runs a phase of sandboxes and adds its cost.
    async fn of(
        &mut self,
        client: &Client,
        operator: &Operator,
        fixture: &Fixture,
        plan: &Plan,
    ) -> Result<Samples, Failure> {
        let (writes, usage) = (cluster::writes(client).await?, operator.usage().await?);
        let samples = load::run::<ObservedSandbox>(client, &fixture.sandboxes, plan).await?;
        tokio::time::sleep(SETTLE).await;
        for (what, number) in requests::between(&writes, &cluster::writes(client).await?, plan.count) {
            *self.writes.entry(what).or_default() += number;
        }
        self.cpu += operator.usage().await?.cpu - usage.cpu;
        self.sandboxes += plan.count;
        Ok(samples)
    }
}
