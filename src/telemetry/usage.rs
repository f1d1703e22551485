//! Resource usage of the process, read at each scrape, under the names that Prometheus' client libraries use.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;

/// Resident memory and processor time.
#[derive(Debug)]
pub(crate) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = resident(&status) {
            let memory = ConstGauge::new(bytes);
            memory.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                "Resident memory",
                None,
                memory.metric_type(),
            )?)?;
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(ticks) = ticks(&stat) {
            let cpu = ConstCounter::new(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
            cpu.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "Processor time, user and system",
                None,
                cpu.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Fields 14 and 15, user and system time. They are counted from the end of the name, which may contain spaces.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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
    fn processor_time_is_user_and_system() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 170 30 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("42 (a"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident("VmSize:\t  9000 kB\nVmRSS:\t    2048 kB\nRssAnon:\t 1 kB\n"),
            Some(2048 * 1024)
        );
        assert_eq!(resident(""), None);
    }
}
