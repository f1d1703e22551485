//! Builds the services: each gets the parts that it needs.

use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::agent_client::AgentClient;
use crate::gateway::cluster::runners::Runners;
use crate::gateway::cluster::sandbox_cache::SandboxCache;
use crate::gateway::config::Config;
use crate::gateway::dataplane::agent_handle::Agents;
use crate::gateway::edge::identity::Identity;
use crate::gateway::rpc::discovery_service::Discovery;
use crate::gateway::rpc::sandbox_service::{Parts, Sandboxes};
use crate::gateway::rpc::volume_service::Volumes;
use crate::gateway::sandboxes::create::Creator;
use crate::gateway::sandboxes::lookup::SandboxLookup;
use crate::gateway::sandboxes::public_endpoints::PublicEndpoints;
use crate::gateway::sandboxes::view::SandboxView;
use crate::kube::{ApiClient, TtlCache};

/// What all services share.
pub struct Shared {
    /// The API server.
    pub api: ApiClient,
    /// The watched sandboxes.
    pub cache: SandboxCache,
    /// The runners and their nodes.
    pub runners: Runners,
    /// Authorizes callers.
    pub identity: Arc<Identity>,
    /// Calls agents.
    pub agents: AgentClient,
    /// The configuration.
    pub config: Arc<Config>,
    /// Cancelled when this replica is about to stop: long streams then end, and clients resume them at another replica.
    pub draining: CancellationToken,
}

/// The services.
pub struct Services {
    /// SandboxService and SandboxDataPlaneService.
    pub sandboxes: Sandboxes,
    /// DiscoveryService.
    pub(crate) discovery: Discovery,
    /// VolumeService.
    pub(crate) volumes: Volumes,
}

impl Services {
    /// Builds the services.
    pub fn new(shared: Shared) -> Services {
        let Shared {
            api,
            cache,
            runners,
            identity,
            agents,
            config,
            draining,
        } = shared;
        let lookup = SandboxLookup {
            cache: cache.clone(),
            api: api.clone(),
        };
        let view = SandboxView {
            config: config.clone(),
            runners: runners.clone(),
            cache: cache.clone(),
        };
        Services {
            sandboxes: Sandboxes::new(Parts {
                identity: identity.clone(),
                creator: Creator {
                    api: api.clone(),
                    view: view.clone(),
                },
                view,
                endpoints: PublicEndpoints::new(api.clone(), config.public_services.clone()),
                agents: Agents::new(lookup.clone(), agents, config.agents.clone()),
                lookup,
                max_file_bytes: config.max_file_bytes,
                draining,
            }),
            discovery: Discovery {
                identity: identity.clone(),
                api: api.clone(),
                cache: cache.clone(),
                runners: runners.clone(),
                config,
                observed: Arc::new(TtlCache::new(1)),
            },
            volumes: Volumes {
                identity,
                api,
                cache,
                runners,
            },
        }
    }
}
