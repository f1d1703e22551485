//! How the agent gets into a pod, and whose calls it accepts.

use super::settings::Delivery;

/// How the agent reaches the pods of this cluster; [`Delivery::Auto`] is decided before a pod is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentDelivery {
    /// As a read-only image volume.
    ImageVolume,
    /// By an init container.
    InitContainer,
}

impl AgentDelivery {
    /// Decides `Auto` by whether all nodes support image volumes.
    pub(crate) fn resolve(delivery: Delivery, every_node_mounts_images: bool) -> AgentDelivery {
        match (delivery, every_node_mounts_images) {
            (Delivery::ImageVolume, _) | (Delivery::Auto, true) => AgentDelivery::ImageVolume,
            (Delivery::InitContainer, _) | (Delivery::Auto, false) => AgentDelivery::InitContainer,
        }
    }
}

/// The key that signs the tokens of a pod's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentKey {
    /// Its ID, by which the private key is found.
    pub id: String,
    /// The public key, in base64.
    pub public_key: String,
}

/// How a pod gets its agent, and who may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInjection {
    /// How it reaches them.
    pub delivery: AgentDelivery,
    /// Who may call it.
    pub key: AgentKey,
}
