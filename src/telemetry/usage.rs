//! What the process itself uses, read anew for each scrape, under the names that Prometheus' own client libraries give it.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;

/// Resident memory and processor time.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident(&status) {
            let memory = ConstGauge::new(bytes);
            memory.encode(encoder.encode_descriptor("process_resident_memory_bytes", "Resident memory", None, memory.metric_type())?)?;
        }
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let micros = (usage.user_time() + usage.system_time()).num_microseconds();
            let cpu = ConstCounter::new(micros as f64 / 1e6);
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", "Processor time, user and system", None, cpu.metric_type())?)?;
        }
        Ok(())
    }
}

fn resident(status: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("VmSize:\t  9000 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n"), Some(2048 * 1024));
        assert_eq!(resident(""), None);
    }
}
