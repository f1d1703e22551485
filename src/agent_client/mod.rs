//! How operator and gateway call the agents in the sandboxes.

/// Calls to agents.
pub struct AgentClient {}
