//! Who calls, and what they may do.

use tonic::Status;

/// A caller, after its credentials were checked. The authentication layer puts it into the request's extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The tenant: the namespace of the caller's ServiceAccount.
    pub namespace: String,
    /// User name, as Kubernetes has it: `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// Something done to sandboxes, as RBAC has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// create sandboxes
    Create,
    /// get sandboxes
    Get,
    /// list sandboxes
    List,
    /// delete sandboxes
    Delete,
    /// create sandboxes/exec
    Exec,
    /// get sandboxes/log
    Logs,
    /// get sandboxes/files
    ReadFiles,
    /// update sandboxes/files
    WriteFiles,
}

/// Checks credentials and rights with the API server.
pub struct Identity {}

impl Identity {
    /// Whether `caller` may do this in its own namespace.
    ///
    /// # Errors
    /// PERMISSION_DENIED, or UNAVAILABLE when the API server does not answer.
    pub async fn authorize(&self, _caller: &Caller, _right: Right) -> Result<(), Status> {
        Err(super::error::unimplemented("authorize"))
    }
}
