//! Authorization of a request's caller.

use tonic::{Code, Request, Status};

use crate::gateway::edge::caller::{Caller, Permission};
use crate::gateway::edge::identity::Identity;
use crate::gateway::error::{reason, status};

/// The caller of a request, if it has the permission.
///
/// # Errors
/// PERMISSION_DENIED; UNAVAILABLE if the API server does not answer.
pub(crate) async fn authorize<T>(
    identity: &Identity,
    request: &Request<T>,
    permission: Permission,
) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    // The authentication layer refuses calls without a caller. This is a second check.
    let caller = caller.ok_or_else(|| status(Code::Unauthenticated, reason::UNAUTHENTICATED, "no credentials"))?;
    identity.authorize(&caller, permission).await?;
    Ok(caller)
}
