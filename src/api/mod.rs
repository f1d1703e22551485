//! What users write and read: the custom resources. Types and their rules only; no client, no clock.

// The derives for schemas and rules repeat the types in a scope of their own.
#![allow(unreachable_pub)]

pub mod conditions;
pub mod container;
pub mod crds;
pub mod field_path;
pub mod file;
pub mod lifecycle;
pub mod limits;
mod merge;
mod metadata;
pub mod network;
pub mod pod;
pub mod reason;
mod rules;
pub mod sandbox;
pub mod session;
pub mod template;
pub mod volume;
pub mod workload;

pub use container::{Container, SecurityProfile, Sidecar};
pub use field_path::{FieldError, FieldPath};
pub use file::{File, KeyRef};
pub use lifecycle::Lifecycle;
pub use metadata::*;
pub use network::{Egress, EgressMode, EgressRule, Ingress, IngressRule, Network, NetworkPort};
pub use pod::{PodShape, PullPolicy};
pub use sandbox::{DesiredState, PodIdentity, PodOrigin, Sandbox, SandboxSpec, SandboxStatus, State};
pub use session::{SandboxSession, SandboxSessionSpec, SandboxSessionStatus, SessionDesiredState, SessionState};
pub use template::{SandboxTemplate, SandboxTemplateSpec};
pub use volume::*;
pub use workload::{Entrypoint, Port, Workload};
