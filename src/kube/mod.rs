//! What operator and gateway share of the Kubernetes API: a client with timeouts and metrics, watches, and objects that
//! may be malformed.

mod client;
mod kinds;
mod metrics;
mod readable;
mod refusal;
mod shares;
mod ttl_cache;
mod watch;

pub use self::client::{ApiClient, ConnectError, Target, connect, timed_out};
pub use self::kinds::{ClusterScoped, Namespaced, Object};
pub use self::metrics::ApiMetrics;
pub use self::readable::{Readable, Unreadable};
pub use self::refusal::Refusal;
pub use self::ttl_cache::TtlCache;
pub use self::watch::readable;
