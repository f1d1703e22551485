//! The API group, and the labels and annotations that have a meaning.

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
/// Annotation of a Sandbox that is not complete: its creator adds objects that it refers to and then removes the
/// annotation.
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
pub const ANNOTATION_REQUEST_METADATA: &str = "sandbox-operator.dev/request-metadata";
/// Annotation of a Sandbox created through the gateway: bytes of the Sandbox and of the Secrets that it owns.
pub const ANNOTATION_STORED_BYTES: &str = "sandbox-operator.dev/stored-bytes";
/// Annotation of a Sandbox created through the gateway: the request's name of the main container.
pub const ANNOTATION_MAIN_NAME: &str = "sandbox-operator.dev/main-name";
/// Annotation of a Sandbox created through the gateway: its display name.
pub const ANNOTATION_DISPLAY_NAME: &str = "sandbox-operator.dev/display-name";
/// Annotation of a Sandbox created from a SandboxTemplate: the template's name.
pub const ANNOTATION_TEMPLATE: &str = "sandbox-operator.dev/template";
/// Annotation of a Sandbox created from a SandboxTemplate: the template's generation.
pub const ANNOTATION_TEMPLATE_REVISION: &str = "sandbox-operator.dev/template-revision";
/// Annotation of a Sandbox created through the gateway: the user who requested it, as the API server authenticated it.
/// Only the gateway may set it.
pub const ANNOTATION_CREATED_BY: &str = "sandbox-operator.dev/created-by";
/// Kubernetes' own label for the tool that manages an object; our watches select on it.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`], and the field manager of every write.
pub const MANAGER: &str = "sandbox-operator";
/// Domains, with their subdomains, under which users may not set labels or annotations of the pod: ours, Kubernetes',
/// and those of components that decide about a pod's network.
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
