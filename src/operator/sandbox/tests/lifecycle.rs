//! From a new sandbox to a running one.

use serde_json::json;

use super::super::context::LaunchFailure;
use super::super::decision::Verdict;
use super::super::observed::PolicyView;
use super::{Action, Case, at, ended, main, sandbox};
use crate::api::{SandboxSession, SessionDesiredState, State};

#[test]
fn a_lifecycle_without_problems() {
    let case = Case::default();
    assert_eq!((case.action(), case.outcome().0), (Action::Launch, State::Pending));
    let mut unbound = Case::pod(json!({"phase": "Pending"}));
    unbound.pod_spec().node_name = None;
    assert_eq!(unbound.outcome(), (State::Pending, "Scheduling", None));
    assert_eq!(
        Case::pod(json!({"phase": "Pending"})).outcome(),
        (State::Creating, "Starting", None)
    );
    let running = Case::pod(json!({"containerStatuses": main(json!({"running": {}}))}));
    assert_eq!(running.outcome(), (State::Running, "Running", None));
    let completed = Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")}));
    assert_eq!(completed.outcome(), (State::Completed, "Completed", Some(0)));
}

#[test]
fn a_sandbox_waits_for_its_session_and_for_room_in_it() {
    let session: SandboxSession = serde_json::from_value(json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "metadata": {"name": "s"}, "spec": {"maxSandboxes": 1},
    }))
    .unwrap();
    let named = || Case {
        sandbox: sandbox(json!({"sessionName": "s"})),
        ..Case::default()
    };
    let missing = Case {
        session_is_missing: true,
        ..named()
    };
    assert_eq!(missing.outcome(), (State::Pending, "SessionNotFound", None));
    assert_eq!(
        Case { now: 400, ..missing }.outcome(),
        (State::Failed, "SessionNotFound", None)
    );
    let joining = |has_room| Case {
        session: Some(session.clone()),
        has_room: Some(has_room),
        ..named()
    };
    assert_eq!(
        (joining(false).outcome().1, joining(false).action()),
        ("SessionFull", Action::None)
    );
    assert_eq!(joining(true).action(), Action::Join);
    let joined = Case {
        session: Some(session.clone()),
        ..named()
    };
    assert_eq!(joined.action(), Action::Launch);
    let mut closed = session;
    closed.spec.desired_state = SessionDesiredState::Closed;
    let late = Case {
        session: Some(closed),
        ..named()
    };
    assert_eq!(late.outcome(), (State::Terminated, "SessionClosed", None));
}

#[test]
fn a_launch_that_failed_is_told_and_tried_again_in_time_unless_that_cannot_help() {
    let failed = |reason, retry_at: Option<i64>| Case {
        launch_failure: Some(LaunchFailure {
            verdict: Verdict::new(
                if retry_at.is_some() {
                    State::Pending
                } else {
                    State::Failed
                },
                reason,
                "text",
            ),
            retry_at: retry_at.map(at),
        }),
        ..Case::default()
    };
    let quota = failed("QuotaExceeded", Some(115));
    let decision = quota.decide();
    assert_eq!(
        (quota.outcome(), &decision.action),
        ((State::Pending, "QuotaExceeded", None), &Action::None)
    );
    assert_eq!(decision.wake, Some(at(115)));
    let due = Case { now: 115, ..quota };
    assert_eq!(
        (due.outcome().1, due.action()),
        ("QuotaExceeded", Action::Launch),
        "the reason stays while it is tried"
    );
    let late = Case { now: 400, ..due };
    assert_eq!(
        (late.outcome(), late.action()),
        ((State::Failed, "QuotaExceeded", None), Action::None)
    );
    let refused = failed("NameTaken", None);
    assert_eq!(
        (refused.outcome(), refused.action()),
        ((State::Failed, "NameTaken", None), Action::None)
    );
}

#[test]
fn the_lifetime_is_lowered_on_the_pod_and_enforced_by_the_operator_too() {
    let lowered = Case {
        sandbox: sandbox(json!({"maxLifetimeSeconds": 50})),
        ..Case::pod(json!({"containerStatuses": main(json!({"running": {}}))}))
    };
    assert!(matches!(lowered.action(), Action::SetDeadline(_, 50)));
    // 102 + 50 + grace 10 + 60.
    let overdue = Case { now: 223, ..lowered };
    assert_eq!(overdue.outcome(), (State::Failed, "NodeLost", None));
}

#[test]
fn the_policy_of_a_pod_is_restored_and_set_as_its_owner() {
    let policy = |uid: &str, is_unmodified, is_deleting| {
        let uid = uid.into();
        Some(PolicyView {
            uid,
            is_unmodified,
            is_deleting,
        })
    };
    let (running, creating) = (
        json!({"containerStatuses": main(json!({"running": {}}))}),
        json!({"phase": "Pending"}),
    );
    for (status, policy, action) in [
        (&running, policy("q", true, false), Action::None),
        (&running, None, Action::RestorePolicy),
        (&creating, None, Action::None),
        (&running, policy("q", false, false), Action::RestorePolicy),
        (&creating, policy("q", false, false), Action::RestorePolicy),
        (
            &running,
            policy("new", true, false),
            Action::SetPolicyOwner("new".into()),
        ),
        (&running, policy("new", true, true), Action::None),
    ] {
        let case = Case {
            policy: policy.clone(),
            ..Case::pod(status.clone())
        };
        assert_eq!(case.action(), action, "{policy:?} {status}");
    }
    let late = Case {
        policy: None,
        now: 90_000,
        ..Case::pod(running)
    };
    assert_eq!((late.action(), late.outcome().0), (Action::None, State::Failed));
}
