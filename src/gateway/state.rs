//! What every call shares.

use tokio_util::sync::CancellationToken;

use super::caches::Caches;
use super::config::Config;
use super::convert::to_proto;
use super::identity::Identity;
use super::public::Doors;
use super::runners::Runners;
use crate::agent_client::AgentClient;
use crate::api::{DesiredState, Sandbox};
use crate::kube::ApiClient;
use crate::proto::sandbox as pb;

/// What every call shares.
pub struct Gateway {
    /// The client of the API server.
    pub cluster: ApiClient,
    /// What is watched.
    pub caches: Caches,
    /// Where sandboxes may be.
    pub runners: Runners,
    /// Who calls, and what they may do.
    pub identity: Identity,
    /// Calls to the agents in the sandboxes.
    pub agents: AgentClient,
    /// Where agents were found a moment ago.
    pub known_agents: super::data::target::Agents,
    /// Where public ports were found a moment ago.
    pub doors: Doors,
    /// The configuration file.
    pub config: Config,
    /// Cancelled when this replica is about to end: long streams then end with [`super::error::draining`], and go on at another replica.
    pub draining: CancellationToken,
}

impl Gateway {
    /// A gateway that knows nobody yet. `caches` are filled by whoever runs them.
    pub fn new(cluster: ApiClient, caches: Caches, agents: AgentClient, config: Config) -> Gateway {
        Gateway {
            identity: Identity::new(cluster.clone(), &config),
            runners: Runners::new(&config),
            known_agents: super::data::target::Agents::default(),
            doors: Doors::default(),
            draining: CancellationToken::new(),
            cluster,
            caches,
            agents,
            config,
        }
    }

    /// The sandbox as its callers are told of it.
    pub fn told(&self, sandbox: &Sandbox) -> pb::Sandbox {
        let mut told = to_proto::sandbox(sandbox, &self.config, self.runners.of(sandbox));
        if sandbox.spec.desired_state == DesiredState::Stopped
            && self.caches.just_ended(sandbox)
            && let Some(status) = &mut told.status
        {
            status.state = pb::State::Terminating.into();
        }
        told
    }
}
