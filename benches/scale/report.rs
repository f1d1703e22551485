//! The report: a table, and one line of JSON.

use serde::Serialize;
use std::fmt::Write as _;

use crate::requests::Writes;
use crate::stats::{Timing, ratio};

/// All measurements.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Processors of the machine that the benchmark ran on.
    pub processors: usize,
    /// Sandboxes next to bare pods.
    pub phases: Vec<Phase>,
    /// The operator's writes per sandbox, create to RUNNING.
    pub writes_to_running: Writes,
    /// The operator's writes per sandbox from RUNNING to COMPLETED.
    pub writes_to_end: Writes,
    /// The operator's resident memory.
    pub memory: Vec<Memory>,
    /// Processor time of the operator per sandbox, create to RUNNING, in milliseconds.
    pub cpu_ms_per_sandbox: f64,
    /// Duration of the whole run in seconds.
    pub seconds: f64,
}

/// One phase of creation.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Sandboxes.
    pub sandboxes: Timing,
    /// Bare pods.
    pub pods: Timing,
}

/// Resident memory with a number of sandboxes.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Number of sandboxes.
    pub sandboxes: usize,
    /// KB.
    pub resident: f64,
}

impl Report {
    /// KB per sandbox, from the first reading of memory to the last.
    pub fn kb_per_sandbox(&self) -> f64 {
        let (Some(first), Some(last)) = (self.memory.first(), self.memory.last()) else {
            return 0.0;
        };
        ratio(
            last.resident - first.resident,
            (last.sandboxes - first.sandboxes) as f64,
        )
    }

    /// The table.
    pub fn table(&self) -> String {
        let mut text = format!("\n{:<28}{:>12}{:>12}{:>8}\n", "", "sandboxes", "bare pods", "ratio");
        let mut line = |name: &str, a: f64, b: f64| {
            let _ = writeln!(text, "{name:<28}{a:>12.3}{b:>12.3}{:>8.2}", ratio(a, b));
        };
        for phase in &self.phases {
            let (s, p) = (&phase.sandboxes, &phase.pods);
            line(&format!("{}: RUNNING per s", phase.name), s.per_second, p.per_second);
            line("  p50 to RUNNING, s", s.p50, p.p50);
            line("  p90", s.p90, p.p90);
            line("  p99", s.p99, p.p99);
        }
        for (name, writes) in [
            ("to RUNNING", &self.writes_to_running),
            ("then to COMPLETED", &self.writes_to_end),
        ] {
            let _ = writeln!(text, "writes per sandbox {name}: {:.2}", writes.values().sum::<f64>());
            for (what, number) in writes {
                let _ = writeln!(text, "  {what:<26}{number:>12.2}");
            }
        }
        for memory in &self.memory {
            let _ = writeln!(
                text,
                "memory at {:>6} sandboxes, MB{:>12.1}",
                memory.sandboxes,
                memory.resident / 1024.0
            );
        }
        let _ = writeln!(text, "memory per sandbox, KB      {:>12.1}", self.kb_per_sandbox());
        let _ = writeln!(text, "processor per sandbox, ms   {:>12.2}", self.cpu_ms_per_sandbox);
        let _ = writeln!(text, "{} processors, {:.0} s in all", self.processors, self.seconds);
        text
    }
}
