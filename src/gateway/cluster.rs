//! The gateway's only way to the API server. Every call has a timeout.

use kube::Client;

/// Reads and writes of the gateway.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
}
