//! What every call shares.

use tokio_util::sync::CancellationToken;

use super::caches::Caches;
use super::cluster::Cluster;
use super::config::Config;
use super::identity::Identity;
use crate::agent_client::AgentClient;

/// What every call shares.
pub struct Gateway {
    /// The one place that speaks to the API server, with a timeout around each call.
    pub cluster: Cluster,
    /// What is watched.
    pub caches: Caches,
    /// Who calls, and what they may do.
    pub identity: Identity,
    /// Calls to the agents in the sandboxes.
    pub agents: AgentClient,
    /// Where agents were found a moment ago.
    pub known_agents: super::data::target::Agents,
    /// The configuration file.
    pub config: Config,
    /// Cancelled when this replica is about to end: long streams then end with [`super::error::draining`], and go on at another replica.
    pub draining: CancellationToken,
}

impl Gateway {
    /// A gateway that knows nobody yet. `caches` are filled by whoever runs them.
    pub fn new(cluster: Cluster, caches: Caches, agents: AgentClient, config: Config) -> Gateway {
        Gateway {
            identity: Identity::new(cluster.clone(), &config),
            known_agents: super::data::target::Agents::default(),
            draining: CancellationToken::new(),
            cluster,
            caches,
            agents,
            config,
        }
    }
}
