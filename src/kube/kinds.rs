//! What a kind must provide to be read and written here.

use ::kube::Resource;
use ::kube::core::{ClusterResourceScope, NamespaceResourceScope};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// A kind whose objects live in namespaces.
pub trait Namespaced: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object {}
impl<K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object> Namespaced for K {}

/// A kind whose objects live outside namespaces.
pub trait ClusterScoped: Resource<DynamicType = (), Scope = ClusterResourceScope> + Object {}
impl<K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Object> ClusterScoped for K {}

/// What every kind must provide.
pub trait Object: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}
impl<K: Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static> Object for K {}
