//! A Sandbox as callers see it.

use std::sync::Arc;

use crate::api::{DesiredState, Sandbox};
use crate::gateway::cluster::runners::Runners;
use crate::gateway::cluster::sandbox_cache::SandboxCache;
use crate::gateway::config::Config;
use crate::gateway::convert::to_proto;
use crate::proto::sandbox as pb;

/// Converts Sandboxes to messages.
#[derive(Clone)]
pub(crate) struct SandboxView {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// The runners, one of which the message names.
    pub(crate) runners: Runners,
    /// Knows which sandboxes ended a moment ago.
    pub(crate) cache: SandboxCache,
}

impl SandboxView {
    /// The message of a sandbox.
    pub(crate) fn to_proto(&self, sandbox: &Sandbox) -> pb::Sandbox {
        let mut message = to_proto::sandbox(sandbox, &self.config, self.runners.of(sandbox));
        if sandbox.spec.desired_state == DesiredState::Stopped
            && self.cache.just_ended(sandbox)
            && let Some(status) = &mut message.status
        {
            status.state = pb::State::Terminating.into();
        }
        message
    }
}
