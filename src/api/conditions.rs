//! Condition types, and how a condition is set.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

/// True while the main container runs (sandbox), or the session is open (session).
pub const READY: &str = "Ready";
/// True once the pod is bound to a node.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// True while the pod has scheduling gates. Present only if it ever had any.
pub const SCHEDULING_GATED: &str = "SchedulingGated";
/// Whether the cluster enforces the sandbox's network policy, as last checked. Present only if it ever was not `True`.
pub const NETWORK_ENFORCED: &str = "NetworkEnforced";
/// True once the sandbox has a final state.
pub const FINISHED: &str = "Finished";

/// Sets the condition `kind`. `lastTransitionTime` moves only when the status flips.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: jiff::Timestamp,
) {
    let status = if status { "True" } else { "False" };
    set_to(conditions, kind, status, reason, message, generation, now);
}

/// As [`set`], with any status: `True`, `False` or `Unknown`.
pub fn set_to(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: jiff::Timestamp,
) {
    let old = conditions.iter().position(|c| c.type_ == kind);
    let last_transition_time = match old.map(|i| &conditions[i]) {
        Some(c) if c.status == status => c.last_transition_time.clone(),
        _ => Time(now),
    };
    let new = Condition {
        type_: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time,
    };
    match old {
        Some(i) => conditions[i] = new,
        None => conditions.push(new),
    }
}

/// Schema of a condition list: a map keyed by `type`, so that writers of different conditions do not overwrite each
/// other.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<Condition>();
    json_schema!({
        "type": "array",
        "items": item,
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_only_on_a_flip() {
        let at = |s| jiff::Timestamp::from_second(s).unwrap();
        let mut all = vec![];
        set(&mut all, READY, false, "A", "", Some(1), at(1));
        set(&mut all, READY, false, "B", "other", Some(2), at(2));
        assert_eq!(
            (all.len(), all[0].last_transition_time.0, all[0].reason.as_str()),
            (1, at(1), "B")
        );
        set(&mut all, READY, true, "C", "", Some(2), at(3));
        assert_eq!(all[0].last_transition_time.0, at(3));
    }
}
