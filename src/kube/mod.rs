//! What operator and gateway share of the Kubernetes API: a client with timeouts and metrics, watches, and objects that may be malformed.

mod client;
mod metrics;
mod readable;
mod ttl_cache;
mod watch;

use ::kube::Resource;
use ::kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub use self::client::{ApiClient, ConnectError, Target, connect, timed_out};
pub use self::metrics::ApiMetrics;
pub use self::readable::{Readable, Unreadable};
pub use self::ttl_cache::TtlCache;
pub use self::watch::readable;

/// A kind whose objects live in namespaces.
pub trait Namespaced: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object {}
impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object> Namespaced for K {}

/// A kind whose objects live outside namespaces.
pub trait ClusterScoped: Resource<DynamicType = (), Scope = ClusterResourceScope> + Object {}
impl<K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Object> ClusterScoped for K {}

/// What every kind must provide.
pub trait Object: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<K: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static> Object for K {}
