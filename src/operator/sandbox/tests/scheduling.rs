//! A pod that the scheduler has not placed.

use serde_json::{Value, json};

use super::super::decision::Action;
use super::{Case, at, sandbox};
use crate::api::{SandboxStatus, State};

fn unbound(condition: Value) -> Case {
    let mut case = Case::pod(json!({"phase": "Pending", "conditions": [condition]}));
    case.pod_spec().node_name = None;
    case
}

fn gated() -> Case {
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked"});
    let mut case = unbound(condition);
    let gates = json!([{"name": "example.com/queue"}, {"name": "example.com/quota"}]);
    case.pod_spec().scheduling_gates = serde_json::from_value(gates).unwrap();
    case
}

fn unschedulable() -> Case {
    unbound(json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}))
}

fn condition(status: &SandboxStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

#[test]
fn scheduling_gates_are_named_and_the_condition_is_that_of_the_pod() {
    let case = gated();
    let verdict = case.verdict();
    assert_eq!((verdict.state, verdict.reason), (State::Pending, "SchedulingGated"));
    assert!(
        verdict.message.ends_with(": example.com/queue, example.com/quota"),
        "{}",
        verdict.message
    );
    let status = case.after_write().status;
    let wanted = ("False".into(), "SchedulingGated".into(), "Scheduling is blocked".into());
    assert_eq!(condition(&status, "PodScheduled"), wanted);
}

#[test]
fn the_start_timeout_does_not_run_while_gated_and_starts_anew_afterwards() {
    let hours_later = Case {
        now: 20_000,
        ..gated().after_write()
    };
    assert_eq!(
        (hours_later.outcome().1, hours_later.decide().wake),
        ("SchedulingGated", None)
    );
    // The gates are removed; an operator that restarts at any time has nothing but the status.
    let removed = Case {
        pod: unschedulable().pod,
        first_seen: 100,
        ..hours_later
    };
    assert_eq!(removed.outcome(), (State::Pending, "Unschedulable", None));
    assert_eq!(removed.decide().wake, Some(at(20_300)));
    let written = removed.after_write();
    assert_eq!(condition(&written.status, "SchedulingGated").0, "False");
    let before = Case { now: 20_299, ..written };
    assert_eq!(before.outcome().0, State::Pending);
    let after = Case { now: 20_300, ..before };
    assert_eq!(after.outcome(), (State::Failed, "Unschedulable", None));
}

#[test]
fn a_sandbox_that_was_never_gated_has_no_condition_for_it() {
    let status = unschedulable().after_write().status;
    assert!(status.conditions.iter().all(|c| c.type_ != "SchedulingGated"));
}

#[test]
fn a_gated_sandbox_can_be_stopped() {
    let stopped = Case {
        sandbox: sandbox(json!({"desiredState": "Stopped"})),
        ..gated()
    };
    assert!(matches!(stopped.action(), super::Action::DeletePod(_)));
    let gone = Case {
        pod: None,
        ..stopped.after_write()
    };
    assert_eq!(gone.outcome(), (State::Terminated, "Stopped", None));
}

#[test]
fn a_full_namespace_keeps_a_sandbox_waiting() {
    let full = Case {
        namespace_is_full: true,
        ..Case::default()
    };
    assert_eq!(full.outcome(), (State::Pending, "NamespaceFull", None));
    let decision = full.decide();
    assert_eq!(
        (decision.action, decision.wake),
        (Action::None, Some(at(120))),
        "asks again"
    );
    let late = Case { now: 400, ..full };
    assert_eq!(late.outcome(), (State::Failed, "NamespaceFull", None));
}
