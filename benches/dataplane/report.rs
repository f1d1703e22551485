//! The report: tables, and one line of JSON.

use serde::Serialize;
use std::fmt::Write as _;

use crate::stats::{Timing, ratio};

/// All measurements.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Processors of the machine that the benchmark ran on.
    pub processors: usize,
    /// Resident memory of all replicas of the gateway.
    pub memory: Vec<Memory>,
    /// Round trips.
    pub round_trips: Vec<Trips>,
    /// Files and output.
    pub transfers: Vec<Transfer>,
    /// From create to the first result.
    pub starts: Vec<Starts>,
    /// Duration of the whole run in seconds.
    pub seconds: f64,
}

/// Resident memory with a number of idle streams.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Kind of streams.
    pub what: String,
    /// Open StreamExec calls.
    pub streams: usize,
    /// Connections to the gateway.
    pub connections: usize,
    /// KB.
    pub resident: f64,
}

/// One method of running a command.
#[derive(Debug, Serialize)]
pub struct Trips {
    /// Its name.
    pub name: String,
    /// Callers at once.
    pub callers: usize,
    /// The round trips.
    pub timing: Timing,
    /// Cost for the gateway.
    pub cost: Option<Cost>,
}

/// Cost of one call for the gateway.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Processor time in milliseconds.
    pub cpu_ms: f64,
    /// Requests to the API server.
    pub api_requests: f64,
}

/// One method of transferring content.
#[derive(Debug, Serialize)]
pub struct Transfer {
    /// Its name.
    pub name: String,
    /// Bytes per transfer.
    pub bytes: u64,
    /// Duration of the transfers.
    pub timing: Timing,
    /// Bytes that are missing or wrong.
    pub lost: u64,
}

/// One way to start sandboxes.
#[derive(Debug, Serialize)]
pub struct Starts {
    /// Its name.
    pub name: String,
    /// Started at once.
    pub at_once: usize,
    /// From create to the first result, for sandboxes.
    pub sandboxes: Timing,
    /// The same for bare pods.
    pub pods: Timing,
    /// Median of sandboxes for a caller that polls like the SDK.
    pub sdk_p50: f64,
    /// Durations until each step.
    pub stages: Vec<Stage>,
}

/// Medians from create to one step.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// The step.
    pub name: String,
    /// For sandboxes.
    pub sandboxes: f64,
    /// For bare pods.
    pub pods: f64,
}

impl Transfer {
    fn megabytes_per_second(&self) -> f64 {
        ratio(self.bytes as f64 / 1e6, self.timing.p50)
    }
}

impl Report {
    /// Lost bytes of all transfers.
    pub fn lost(&self) -> u64 {
        self.transfers.iter().map(|t| t.lost).sum()
    }

    /// Median in seconds of a method with one caller, or 0 if it was not measured.
    fn p50(&self, name: &str) -> f64 {
        let found = self.round_trips.iter().find(|t| t.name == name && t.callers == 1);
        found.map_or(0.0, |t| t.timing.p50)
    }

    /// The tables.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.targets(&mut text);
        self.round_trips(&mut text);
        self.transfers(&mut text);
        self.starts(&mut text);
        self.memory(&mut text);
        let _ = writeln!(text, "\n{} processors, {:.0} s in all", self.processors, self.seconds);
        text
    }

    fn targets(&self, text: &mut String) {
        let _ = writeln!(text, "\n{:<44}{:>12}{:>16}", "", "measured", "wanted");
        let mut line = |name: &str, value: f64, wanted: &str| {
            let _ = writeln!(text, "{name:<44}{value:>12.2}{wanted:>16}");
        };
        let (exec, kubectl) = (self.p50("StreamExec"), self.p50("kubectl exec"));
        if kubectl > 0.0 {
            line("exec, one caller: p50, ms", exec * 1000.0, "at most 5");
            line("kubectl exec / exec: p50", ratio(kubectl, exec), "at least 20");
        }
        for starts in &self.starts {
            let name = format!("create to first exec / bare pod, {}: p50", starts.name);
            line(&name, ratio(starts.sandboxes.p50, starts.pods.p50), "at most 1.25");
        }
        if !self.transfers.is_empty() {
            line("bytes lost", self.lost() as f64, "0");
        }
    }

    fn round_trips(&self, text: &mut String) {
        let heads = ["callers", "p50 ms", "p95 ms", "p99 ms", "per s", "cpu ms", "api calls"];
        let _ = writeln!(
            text,
            "\n{:<28}{}",
            "round trip of `true`",
            columns(heads.map(String::from))
        );
        for round_trips in &self.round_trips {
            let t = &round_trips.timing;
            let cost = |of: fn(&Cost) -> f64| {
                round_trips
                    .cost
                    .as_ref()
                    .map_or(String::new(), |c| format!("{:.2}", of(c)))
            };
            let ms = |seconds: f64| format!("{:.2}", seconds * 1000.0);
            let line = [
                round_trips.callers.to_string(),
                ms(t.p50),
                ms(t.p95),
                ms(t.p99),
                format!("{:.1}", t.per_second),
                cost(|c| c.cpu_ms),
                cost(|c| c.api_requests),
            ];
            let _ = writeln!(text, "{:<28}{}", round_trips.name, columns(line));
        }
    }

    fn transfers(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{:<28}{}",
            "files, output",
            columns(["MB", "MB/s", "bytes lost"].map(String::from))
        );
        for transfer in &self.transfers {
            let line = [
                format!("{:.1}", transfer.bytes as f64 / 1e6),
                format!("{:.1}", transfer.megabytes_per_second()),
                transfer.lost.to_string(),
            ];
            let _ = writeln!(text, "{:<28}{}", transfer.name, columns(line));
        }
    }

    fn starts(&self, text: &mut String) {
        for starts in &self.starts {
            let _ = writeln!(
                text,
                "\n{:<28}{}",
                starts.name,
                columns(["sandboxes", "bare pods", "ratio"].map(String::from))
            );
            let mut line = |name: &str, a: f64, b: f64| {
                let _ = writeln!(text, "{name:<28}{a:>12.3}{b:>12.3}{:>12.2}", ratio(a, b));
            };
            let (s, p) = (&starts.sandboxes, &starts.pods);
            line("to the first exec: p50, s", s.p50, p.p50);
            line("  p99", s.p99, p.p99);
            line("  p50 at the SDK's sdk_polls", starts.sdk_p50, p.p50);
            line("started per s", s.per_second, p.per_second);
            for stage in &starts.stages {
                line(&format!("  {}", stage.name), stage.sandboxes, stage.pods);
            }
        }
    }

    fn memory(&self, text: &mut String) {
        let heads = ["streams", "connections", "MB", "KB each"].map(String::from);
        let _ = writeln!(text, "\n{:<28}{}", "gateway, idle streams", columns(heads));
        for (number, now) in self.memory.iter().enumerate() {
            let before = number.checked_sub(1).and_then(|n| self.memory.get(n));
            let each = before.map_or(String::new(), |before| {
                let new = now.streams.saturating_sub(before.streams) as f64;
                format!("{:.1}", ratio(now.resident - before.resident, new))
            });
            let line = [
                now.streams.to_string(),
                now.connections.to_string(),
                format!("{:.1}", now.resident / 1024.0),
                each,
            ];
            let _ = writeln!(text, "{:<28}{}", now.what, columns(line));
        }
    }
}

fn columns<const N: usize>(texts: [String; N]) -> String {
    texts.map(|text| format!("{text:>12}")).concat()
}
