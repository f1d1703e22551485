//! From API types to child objects: pure functions, no client, no clock.

pub mod address_block;
pub mod addresses;
mod agent_injection;
pub mod constraints;
pub mod effective;
pub mod exec_limits;
pub mod files;
pub mod labels;
pub mod names;
pub mod network_policy;
pub mod pod;
pub mod pod_containers;
pub mod prepare;
pub mod probe;
pub mod quantity;
pub mod service;
pub mod settings;
pub(crate) mod slim;

pub use agent_injection::{AgentDelivery, AgentInjection, AgentKey};
pub use effective::Effective;
pub use settings::Settings;

#[cfg(test)]
mod tests;
