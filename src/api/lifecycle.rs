//! How long a sandbox may start, run, stop and be kept.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::merge::or_defaults;

/// Time limits of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Seconds from the pod's start on its node, image pull included, until the sandbox ends as TERMINATED with reason
    /// `LifetimeExceeded`. It is the pod's `activeDeadlineSeconds`. 1 to 2592000 (30 days); default 86400 (24 hours).
    /// May be lowered, never raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub max_lifetime_seconds: Option<i64>,
    /// Seconds within which the sandbox must be RUNNING; otherwise it is FAILED with the reason that delayed it.
    /// Counted from creation, or from the operator's first reconcile if that was later. 1 to 86400; default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub start_timeout_seconds: Option<i64>,
    /// Seconds between SIGTERM and SIGKILL when the sandbox is stopped. 0 to 3600; default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds for which the record, the pod and its logs are kept after the end. 0 to 2592000 (30 days); default 86400
    /// (24 hours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

impl Lifecycle {
    /// These fields, with `defaults` for those that are not set.
    #[must_use]
    pub fn or(self, defaults: Lifecycle) -> Lifecycle {
        or_defaults!(
            self,
            defaults,
            Lifecycle {
                max_lifetime_seconds,
                start_timeout_seconds,
                termination_grace_period_seconds,
                ttl_seconds_after_finished,
            }
        )
    }
}
