//! What every call passes before it reaches a service: connections, authentication, limits, and the access log.
//! Services find the result in the request's extensions: the caller, the budget for large bodies, and whether the call
//! was aborted.

pub(crate) mod access_log;
pub mod auth;
pub(crate) mod body_budget;
pub mod caller;
pub mod connection;
mod credentials;
mod failures;
pub mod identity;
pub mod limits;
pub(crate) mod log_search;
pub(crate) mod methods;
mod refusals;
pub(crate) mod request_body;
mod response_body;
pub mod server;
