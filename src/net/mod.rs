//! Serving on sockets, for the gateway and the agent: listeners, connections that must authenticate in time, TLS, and
//! `grpc-timeout`.

mod connection;
mod grpc_timeout;
mod keyed_limit;
mod listener;
pub mod tls;
mod unauthenticated;

pub use connection::{Connection, Peer};
pub use grpc_timeout::grpc_timeout;
pub use keyed_limit::{KeyedLimit, KeyedSlot, source_network};
pub use listener::{accept, listen};
pub use unauthenticated::UnauthenticatedConn;
