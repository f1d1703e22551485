//! Resource usage of operator and gateway, from their metrics.

use kube::Client;

use crate::fixture::Failure;
use crate::metrics::value;

/// Resource usage of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory in KB.
    pub resident: f64,
    /// Processor time in seconds, since its start.
    pub cpu: f64,
}

impl Usage {
    /// Reads it from the metrics of the process.
    pub fn of(metrics: &str) -> Result<Usage, Failure> {
        let value = |name: &str| value(metrics, name).ok_or_else(|| format!("the metrics have no {name}"));
        Ok(Usage {
            resident: value("process_resident_memory_bytes")? / 1024.0,
            cpu: value("process_cpu_seconds_total")?,
        })
    }
}

/// The metrics of a pod, through the API server.
pub async fn metrics(client: &Client, namespace: &str, pod: &str, port: u16) -> Result<String, Failure> {
    text(
        client,
        &format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics"),
    )
    .await
}

/// The API server's response for a path.
pub async fn text(client: &Client, path: &str) -> Result<String, Failure> {
    Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?)
}
