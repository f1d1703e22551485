//! What the gateway watches, slimmed.

use kube::runtime::reflector::Store;

use crate::api::Sandbox;

/// What is watched.
#[derive(Clone)]
pub struct Caches {
    /// All sandboxes.
    pub sandboxes: Store<Sandbox>,
}
