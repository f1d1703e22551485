//! How fast sandboxes come to RUNNING next to bare pods of the same shape, and what that costs the operator. See docs/benchmarks.md.

mod cluster;
#[path = "../common/ground.rs"]
mod ground;
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
use ground::{Failure, Ground};
use load::{Plan, SeenPod, SeenSandbox};
use report::{Memory, Phase, Report};
use requests::Writes;
use stats::{Samples, ratio};

/// Trailing writes belong to the sandboxes whose RUNNING they follow.
const SETTLE: Duration = Duration::from_secs(2);

/// Sandboxes next to bare pods on fake nodes.
#[derive(Parser)]
struct Options {
    /// Small numbers: whether it works, not how fast it is.
    #[arg(long)]
    quick: bool,
    /// Namespace of the operator and its lease.
    #[arg(long, default_value = "sandbox-operator")]
    namespace: String,
    /// Name of the operator's lease.
    #[arg(long, default_value = "sandbox-operator")]
    lease: String,
    /// `cargo bench` says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many of what.
struct Scale {
    /// Name, objects, creates per second, rounds.
    phases: [(&'static str, usize, Option<u32>, usize); 3],
    /// Sandboxes in the end.
    total: usize,
}

const FULL: Scale = Scale {
    phases: [("burst", 500, None, 2), ("steady-20", 300, Some(20), 1), ("steady-50", 500, Some(50), 1)],
    total: 10_000,
};
const QUICK: Scale = Scale {
    phases: [("burst", 50, None, 1), ("steady-20", 40, Some(20), 1), ("steady-50", 50, Some(50), 1)],
    total: 300,
};

#[tokio::main]
async fn main() -> ExitCode {
    ground::exit_code(bench(Options::parse()).await)
}

async fn bench(options: Options) -> Result<(), Failure> {
    let client = Client::try_default().await?;
    let operator = Operator::leading(&client, &options.namespace, &options.lease).await?;
    cluster::fake_nodes(&client).await?;
    let mut ground = Ground::new(&client, cluster::sandbox()).await?;
    let scale = if options.quick { QUICK } else { FULL };
    let mut report = Report::default();
    let measured = tokio::select! {
        measured = measure(&client, &operator, &mut ground, scale, &mut report) => measured,
        () = ground::interrupted() => Err("interrupted".into()),
    };
    // Also after a failure: what was measured until then.
    print!("{}", report.table());
    eprintln!("removing what was made");
    let removed = ground.remove().await;
    println!("{}", serde_json::to_string(&report)?);
    measured.and(removed)
}

async fn measure(client: &Client, operator: &Operator, ground: &mut Ground, scale: Scale, report: &mut Report) -> Result<(), Failure> {
    let began = Instant::now();
    report.processors = std::thread::available_parallelism()?.get();
    let mut costs = Costs::default();
    report.memory.push(memory(operator, 0).await?);
    cluster::copy_shape(ground).await?;
    for (name, count, rate, rounds) in scale.phases {
        let (mut sandboxes, mut pods) = (Samples::default(), Samples::default());
        for round in 0..rounds {
            let plan = Plan {
                name: format!("{name}-{round}"),
                count,
                rate,
            };
            eprintln!("{name}: {count} bare pods, then {count} sandboxes");
            pods.add(load::run::<SeenPod>(client, &ground.pods, &plan).await?);
            sandboxes.add(costs.of(client, operator, ground, &plan).await?);
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
    costs.of(client, operator, ground, &plan).await?;
    report.memory.push(memory(operator, scale.total).await?);
    report.writes_to_running = per_sandbox(&costs.writes, costs.sandboxes);
    report.cpu_ms_per_sandbox = ratio(costs.cpu * 1000.0, costs.sandboxes as f64);

    let (name, count, ..) = scale.phases[0];
    eprintln!("{count} sandboxes to COMPLETED");
    let before = cluster::writes(client).await?;
    cluster::complete(ground, &format!("{name}-0"), count).await?;
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

/// What the operator has spent on sandboxes that came to RUNNING.
#[derive(Default)]
struct Costs {
    sandboxes: usize,
    writes: Writes,
    cpu: f64,
}

impl Costs {
    /// Runs a phase of sandboxes, and counts what it cost.
    async fn of(&mut self, client: &Client, operator: &Operator, ground: &Ground, plan: &Plan) -> Result<Samples, Failure> {
        let (writes, usage) = (cluster::writes(client).await?, operator.usage().await?);
        let samples = load::run::<SeenSandbox>(client, &ground.sandboxes, plan).await?;
        tokio::time::sleep(SETTLE).await;
        for (what, number) in requests::between(&writes, &cluster::writes(client).await?, plan.count) {
            *self.writes.entry(what).or_default() += number;
        }
        self.cpu += operator.usage().await?.cpu - usage.cpu;
        self.sandboxes += plan.count;
        Ok(samples)
    }
}
