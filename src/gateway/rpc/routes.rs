//! All gRPC services behind one port.

use tonic::service::{Routes, RoutesBuilder};

use crate::gateway::edge::methods::{self, MAX_MESSAGE};
use crate::gateway::rpc::health::{Health, SERVED};
use crate::gateway::rpc::services::Services;
use crate::proto::sandbox::discovery_service_server::DiscoveryServiceServer;
use crate::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneServiceServer;
use crate::proto::sandbox::sandbox_service_server::SandboxServiceServer;
use crate::proto::sandbox::volume_service_server::VolumeServiceServer;

/// All services. A new one also needs its name in [`SERVED`].
pub fn routes(services: Services, health: &Health) -> Routes {
    let mut routes = Routes::builder();
    // The authentication layer limits the messages of each method; this is the limit of the largest.
    routes.add_service(SandboxServiceServer::new(services.sandboxes.clone()).max_decoding_message_size(MAX_MESSAGE));
    routes.add_service(SandboxDataPlaneServiceServer::new(services.sandboxes).max_decoding_message_size(MAX_MESSAGE));
    routes.add_service(DiscoveryServiceServer::new(services.discovery));
    routes.add_service(VolumeServiceServer::new(services.volumes));
    routes.add_service(health.service());
    add_reflection(&mut routes);
    routes.routes()
}

fn add_reflection(routes: &mut RoutesBuilder) {
    let builder =
        || tonic_reflection::server::Builder::configure().register_file_descriptor_set(methods::reflected(SERVED));
    match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes.add_service(v1).add_service(v1alpha);
        }
        // The build generates the descriptors, and a test reads them.
        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "no reflection"),
    }
}
