//! What users write and read: the custom resources. Types and their rules only; no client, no clock.

pub mod conditions;
pub mod container;
pub mod crds;
pub mod field_path;
pub mod file;
pub mod lifecycle;
mod merge;
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
pub use network::{Egress, EgressMode, EgressRule, Ingress, IngressRule, Network, NetworkPort};
pub use pod::{PodShape, PullPolicy};
pub use sandbox::{DesiredState, PodIdentity, PodOrigin, Sandbox, SandboxSpec, SandboxStatus, State};
pub use session::{SandboxSession, SandboxSessionSpec, SandboxSessionStatus, SessionDesiredState, SessionState};
pub use template::{SandboxTemplate, SandboxTemplateSpec};
pub use volume::*;
pub use workload::{Entrypoint, Port, Workload};

/// API group of every custom resource.
pub const GROUP: &str = "sandbox-operator.dev";
/// Served and stored version.
pub const VERSION: &str = "v1alpha1";

/// Label on every child: the UID of its Sandbox. Selectors use it, never a name.
pub const LABEL_SANDBOX_UID: &str = "sandbox-operator.dev/sandbox-uid";
/// Label on every child: the name of its Sandbox, for people.
pub const LABEL_SANDBOX: &str = "sandbox-operator.dev/sandbox";
/// Label on every child of a Sandbox that belongs to a session: the session's name, for people.
pub const LABEL_SESSION: &str = "sandbox-operator.dev/session";
/// Annotation of a pod: the id of the key whose holder may call its agent.
pub const ANNOTATION_AGENT_KEY: &str = "sandbox-operator.dev/agent-key";
/// Annotation of a Sandbox that is not complete: its creator adds objects that it refers to and then removes the annotation.
pub const ANNOTATION_HOLD: &str = "sandbox-operator.dev/hold";
/// Label of a Secret whose values requests to the gateway may use as secrets: `"true"`.
pub const LABEL_SECRET_STORE: &str = "sandbox-operator.dev/secret-store";
/// Label of a PersistentVolumeClaim that is registered as a volume: its id.
pub const VOLUME_ID: &str = "sandbox-operator.dev/volume-id";
/// Annotation of a registered PersistentVolumeClaim: `"true"` if sandboxes may only read it.
pub const VOLUME_READ_ONLY: &str = "sandbox-operator.dev/volume-read-only";
/// Annotation of a registered PersistentVolumeClaim: the directory in it that is the volume.
pub const VOLUME_SUB_PATH: &str = "sandbox-operator.dev/volume-sub-path";
/// Annotation of a registered PersistentVolumeClaim: a description for people.
pub const VOLUME_DESCRIPTION: &str = "sandbox-operator.dev/volume-description";
/// Annotation of a registered PersistentVolumeClaim: the id of the runner that the registration named.
pub const VOLUME_RUNNER: &str = "sandbox-operator.dev/volume-runner";
/// Annotation of a Sandbox created through the gateway: SHA-256 of the request, by which a retry gets the same sandbox.
pub const ANNOTATION_REQUEST: &str = "sandbox-operator.dev/request-sha256";
/// Annotation of a Sandbox created through the gateway: the parts of the request for which the spec has no field.
pub const ANNOTATION_REQUEST_FACTS: &str = "sandbox-operator.dev/request-facts";
/// Annotation of a Sandbox created through the gateway: the request's name of the main container.
pub const ANNOTATION_MAIN_NAME: &str = "sandbox-operator.dev/main-name";
/// Annotation of a Sandbox created through the gateway: its display name.
pub const ANNOTATION_DISPLAY_NAME: &str = "sandbox-operator.dev/display-name";
/// Annotation of a Sandbox created from a SandboxTemplate: the template's name.
pub const ANNOTATION_TEMPLATE: &str = "sandbox-operator.dev/template";
/// Annotation of a Sandbox created from a SandboxTemplate: the template's generation.
pub const ANNOTATION_TEMPLATE_REVISION: &str = "sandbox-operator.dev/template-revision";
/// Kubernetes' own label for the tool that manages an object; our watches select on it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`], and the field manager of every write.
pub const MANAGER: &str = "sandbox-operator";
/// Domains, with their subdomains, under which users may not set labels or annotations of the pod: ours, Kubernetes', and those of
/// components that decide about a pod's network.
pub const RESERVED_DOMAINS: [&str; 11] = [
    "sandbox-operator.dev",
    "kubernetes.io",
    "k8s.io",
    "karpenter.sh",
    "cncf.io",
    "projectcalico.org",
    "cilium.io",
    "antrea.io",
    "ovn.org",
    "istio.io",
    "linkerd.io",
];
/// Reserved prefixes of keys without a domain: container runtimes are configured by them.
pub const RESERVED_PREFIXES: [&str; 6] = [
    "io.kubernetes.",
    "io.katacontainers.",
    "io.containerd.",
    "dev.gvisor.",
    "org.systemd.",
    "run.oci.",
];

/// Limits that more than one module checks.
pub mod limits {
    /// Longest lifetime in seconds: 30 days, as the hosted service has it.
    pub const MAX_LIFETIME_SECONDS: i64 = 30 * 24 * 3600;
    /// Lifetime in seconds if neither sandbox, session nor operator sets one: 24 hours.
    pub const DEFAULT_LIFETIME_SECONDS: i64 = 24 * 3600;
    /// Seconds until a sandbox must be RUNNING if it does not set them.
    pub const DEFAULT_START_TIMEOUT_SECONDS: i64 = 300;
    /// Seconds between SIGTERM and SIGKILL if the sandbox does not set them.
    pub const DEFAULT_GRACE_SECONDS: i64 = 10;
    /// Seconds for which a finished record is kept if the sandbox does not set them: 24 hours.
    pub const DEFAULT_TTL_SECONDS: i64 = 24 * 3600;
    /// Longest argument or `NAME=value` of a program in bytes: Linux's `MAX_ARG_STRLEN` (include/uapi/linux/binfmts.h), 32 pages of 4 KiB, has a
    /// NUL at its end.
    pub const MAX_EXEC_STRING: usize = 32 * 4096 - 1;
    /// Bytes of inline file content in one sandbox, after decoding. etcd accepts objects of at most 1.5 MiB.
    pub const MAX_INLINE_FILE_BYTES: usize = 256 * 1024;
}
