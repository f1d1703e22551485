//! Which nodes take new sandboxes. Pure.

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

/// Whether a pod with these tolerations can be scheduled to the node now: it is ready, not cordoned, and has no taint
/// that repels the pod.
pub(crate) fn is_schedulable(node: &Node, tolerations: &[Toleration]) -> bool {
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|s| s.unschedulable).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let mut taints = spec.and_then(|s| s.taints.as_ref()).into_iter().flatten();
    let repels = |taint: &Taint| {
        ["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()) && !tolerations.iter().any(|t| tolerates(t, taint))
    };
    ready && !cordoned && !taints.any(repels)
}

/// As the scheduler compares them: an empty effect or key matches any.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let any_or = |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == actual);
    let values_match = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    };
    any_or(&toleration.effect, &taint.effect) && any_or(&toleration.key, &taint.key) && values_match
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(ready: &str, spec: Value) -> Node {
        let conditions = json!([{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": ready}]);
        serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap()
    }

    #[test]
    fn a_node_must_be_ready_and_not_cordoned() {
        assert!(is_schedulable(&node("True", json!({})), &[]));
        assert!(!is_schedulable(&node("False", json!({})), &[]));
        assert!(!is_schedulable(&node("Unknown", json!({})), &[]));
        assert!(!is_schedulable(&node("True", json!({"unschedulable": true})), &[]));
        assert!(!is_schedulable(&Node::default(), &[]));
    }

    #[test]
    fn a_taint_must_be_tolerated_unless_it_is_only_a_preference() {
        let tainted = |effect: &str| {
            node(
                "True",
                json!({"taints": [{"key": "pool", "value": "gpu", "effect": effect}]}),
            )
        };
        let schedulable = |effect: &str, toleration: Value| {
            is_schedulable(&tainted(effect), &[serde_json::from_value(toleration).unwrap()])
        };
        assert!(is_schedulable(&tainted("PreferNoSchedule"), &[]));
        for effect in ["NoSchedule", "NoExecute"] {
            assert!(!is_schedulable(&tainted(effect), &[]), "{effect}");
            for tolerated in [
                json!({"operator": "Exists"}),
                json!({"key": "pool", "operator": "Exists"}),
                json!({"key": "pool", "operator": "Exists", "effect": effect}),
                json!({"key": "pool", "operator": "Equal", "value": "gpu"}),
                json!({"key": "pool", "value": "gpu"}),
            ] {
                assert!(schedulable(effect, tolerated.clone()), "{effect} {tolerated}");
            }
            for repelled in [
                json!({"key": "other", "operator": "Exists"}),
                json!({"key": "pool", "value": "cpu"}),
                json!({"key": "pool"}),
                json!({"key": "pool", "operator": "Exists", "effect": "PreferNoSchedule"}),
                json!({"key": "pool", "operator": "Gt", "value": "gpu"}),
            ] {
                assert!(!schedulable(effect, repelled.clone()), "{effect} {repelled}");
            }
        }
    }

    #[test]
    fn every_taint_counts() {
        let taints = json!({"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoSchedule"}]});
        let a: Toleration = serde_json::from_value(json!({"key": "a", "operator": "Exists"})).unwrap();
        assert!(!is_schedulable(&node("True", taints), &[a]));
    }
}
