//! `grpc.health.v1`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// Names of the services whose health is reported, besides that of the whole server.
pub const SERVED: &[&str] = &[
    "coreweave.sandbox.v1.SandboxService",
    "coreweave.sandbox.v1.SandboxDataPlaneService",
    "coreweave.sandbox.v1.DiscoveryService",
    "coreweave.sandbox.v1.VolumeService",
];

/// The health of this replica.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Not serving yet.
    pub async fn new() -> Health {
        let health = Health(HealthReporter::new());
        health.set_serving(false).await;
        health
    }

    /// Sets whether this replica serves.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in SERVED.iter().chain(&[""]) {
            self.0.set_service_status(service, status).await;
        }
    }

    /// Ends the streams of Watch.
    pub async fn end_watches(mut self) {
        for service in SERVED.iter().chain(&[""]) {
            self.0.clear_service_status(service).await;
        }
    }

    /// The gRPC service.
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }
}
