//! Every `reason` that a status, condition or event of ours can carry. The text is the manual's.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $value;)+
        /// All reasons with their meaning, for the manual and for the test that proves each.
        pub const ALL: &[(&str, &str)] = &[$(($value, concat!($($doc),+))),+];
    };
}

reasons! {
    /// The main container runs.
    RUNNING = "Running";
    /// The pod is not made yet.
    PENDING = "Pending";
    /// The pod waits for the scheduler.
    SCHEDULING = "Scheduling";
    /// The scheduler ignores the pod until its scheduling gates are removed; the message names them.
    SCHEDULING_GATED = "SchedulingGated";
    /// The pod is on a node; images are pulled and containers made.
    STARTING = "Starting";
    /// The main command ended with exit code 0.
    COMPLETED = "Completed";
    /// The main command ended with another exit code, or by a signal (128 + its number).
    ERROR = "Error";
    /// The main command was killed because its container needed more memory than its limit.
    OOM_KILLED = "OOMKilled";
    /// The main container's end was not seen, so its exit code is not known.
    UNKNOWN = "ContainerStatusUnknown";
    /// Stopped by `desiredState: Stopped`.
    STOPPED = "Stopped";
    /// Stopped because its session was closed.
    SESSION_CLOSED = "SessionClosed";
    /// Its `maxLifetimeSeconds` ended.
    LIFETIME_EXCEEDED = "LifetimeExceeded";
    /// It was not RUNNING within `startTimeoutSeconds`, and nothing more exact is known.
    START_TIMEOUT = "StartTimeout";
    /// Its pod was deleted by someone else.
    POD_DELETED = "PodDeleted";
    /// Its pod made room for one of higher priority.
    PREEMPTED = "Preempted";
    /// Its pod was evicted: by the API, or by a node short of memory or disk.
    EVICTED = "Evicted";
    /// Its node went away or did not answer for longer than the pod tolerates.
    NODE_LOST = "NodeLost";
    /// `sessionName` names a session that does not exist (yet).
    SESSION_NOT_FOUND = "SessionNotFound";
    /// The session already has `maxSandboxes` active sandboxes.
    SESSION_FULL = "SessionFull";
    /// The namespace already has as many active sandboxes as the operator allows.
    NAMESPACE_FULL = "NamespaceFull";
    /// A ResourceQuota of the namespace does not allow the pod (now).
    QUOTA_EXCEEDED = "QuotaExceeded";
    /// No node fits.
    UNSCHEDULABLE = "Unschedulable";
    /// Pod Security or another admission rule refused a child; the message has its text.
    POLICY_REJECTED = "PolicyRejected";
    /// The resolved spec violates a constraint of the cluster's administrator; the message names field and rule.
    CONSTRAINT_VIOLATED = "ConstraintViolated";
    /// It is not proven that the cluster enforces NetworkPolicy, and the operator requires it; the message has what was
    /// found.
    NETWORK_NOT_ENFORCED = "NetworkNotEnforced";
    /// The cluster enforces NetworkPolicy.
    NETWORK_ENFORCED = "NetworkEnforced";
    /// It is not known whether the cluster enforces NetworkPolicy: the pods that check it could not run or connect.
    NETWORK_ENFORCEMENT_UNKNOWN = "NetworkEnforcementUnknown";
    /// An image cannot be pulled.
    IMAGE_PULL_ERROR = "ImagePullError";
    /// An image name cannot be parsed.
    INVALID_IMAGE_NAME = "InvalidImageName";
    /// `imagePullPolicy: Never`, and the node has no such image.
    NEVER_PULL = "ErrImageNeverPull";
    /// The operator's own image, which holds the agent, cannot be pulled.
    AGENT_IMAGE_FAILED = "AgentImageFailed";
    /// A container cannot be configured: a Secret or ConfigMap that it names is missing, for instance.
    CONTAINER_CONFIG = "CreateContainerConfigError";
    /// A volume cannot be mounted: a Secret, ConfigMap or claim that it names is missing, for instance.
    VOLUME_NOT_READY = "VolumeNotReady";
    /// Somebody changed a network policy of ours; it is written back, once a minute at most.
    POLICY_CHANGED = "PolicyChanged";
    /// A container cannot be started: its command does not exist, for instance.
    START_ERROR = "StartError";
    /// An object of another owner has the name of a child; it is left alone.
    NAME_TAKEN = "NameTaken";
    /// The spec asks for something that only the operator or the API server can find to be wrong; the message names the
    /// field.
    INVALID_SPEC = "InvalidSpec";
    /// The session is open.
    OPEN = "Open";
    /// The session is closed, and its sandboxes are stopped or being stopped.
    CLOSED = "Closed";
}
