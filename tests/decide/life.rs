//! The way from a new sandbox to the end of its record.

use super::{Case, at, ended, main, sandbox};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sandbox_operator::api::{ANNOTATION_AGENT_KEY, SandboxSession, SandboxStatus, State};
use sandbox_operator::operator::sandbox::decide::{Action, after_end};
use sandbox_operator::operator::sandbox::observed::PolicyView;
use sandbox_operator::operator::sandbox::status::status;
use serde_json::json;

#[test]
fn a_life_without_trouble() {
    let case = Case::default();
    assert_eq!((case.decide().action, case.outcome().0), (Action::Launch, State::Pending));
    let mut unbound = Case::pod(json!({"phase": "Pending"}));
    unbound.pod.as_mut().unwrap().spec.as_mut().unwrap().node_name = None;
    assert_eq!(unbound.outcome(), (State::Pending, "Scheduling", None));
    assert_eq!(Case::pod(json!({"phase": "Pending"})).outcome(), (State::Creating, "Starting", None));
    assert_eq!(
        Case::pod(json!({"containerStatuses": main(json!({"running": {}}))})).outcome(),
        (State::Running, "Running", None)
    );
}

#[test]
fn sessions_gate_the_start() {
    let session: SandboxSession = serde_json::from_value(json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "metadata": {"name": "s"}, "spec": {"maxSandboxes": 1},
    }))
    .unwrap();
    let named = || sandbox(json!({"sessionName": "s"}));
    let missing = Case {
        sandbox: named(),
        missing: true,
        ..Case::default()
    };
    assert_eq!(missing.outcome(), (State::Pending, "SessionNotFound", None));
    assert_eq!(Case { now: 400, ..missing }.outcome(), (State::Failed, "SessionNotFound", None));
    let full = Case {
        sandbox: named(),
        session: Some(session.clone()),
        room: Some(false),
        ..Case::default()
    };
    assert_eq!((full.outcome().1, full.decide().action), ("SessionFull", Action::None));
    let room = Case {
        sandbox: named(),
        session: Some(session.clone()),
        room: Some(true),
        ..Case::default()
    };
    assert_eq!(room.decide().action, Action::Join);
    let joined = Case {
        sandbox: named(),
        session: Some(session.clone()),
        ..Case::default()
    };
    assert_eq!(joined.decide().action, Action::Launch);
    let mut closed = session;
    closed.spec.desired_state = sandbox_operator::api::SessionDesiredState::Closed;
    let late = Case {
        sandbox: named(),
        session: Some(closed),
        ..Case::default()
    };
    assert_eq!(late.outcome(), (State::Terminated, "SessionClosed", None));
}

#[test]
fn a_stop_ends_the_pod_and_keeps_it_and_a_dead_kubelet_does_not_make_it_immortal() {
    let running = || Case {
        sandbox: sandbox(json!({"desiredState": "Stopped"})),
        ..Case::pod(json!({"containerStatuses": main(json!({"running": {}}))}))
    };
    let case = running();
    assert!(matches!(case.decide().action, Action::SetDeadline(_, 1)));
    let begun = case.observe(|o| status(o, &case.decide().verdict, at(110)));
    assert_eq!((begun.state, begun.expires_at.clone().unwrap().0), (State::Terminating, at(120)));
    let mut sent = Case {
        status: begun,
        now: 150,
        ..running()
    };
    sent.pod.as_mut().unwrap().spec.as_mut().unwrap().active_deadline_seconds = Some(1);
    assert_eq!((sent.decide().action, sent.outcome().0), (Action::None, State::Terminating));
    sent.now = 181;
    assert_eq!(sent.outcome(), (State::Terminated, "Stopped", None));
    let mut unbound = running();
    unbound.pod.as_mut().unwrap().spec.as_mut().unwrap().node_name = None;
    assert!(matches!(unbound.decide().action, Action::DeletePod(_)));
}

#[test]
fn the_lifetime_is_lowered_on_the_pod_and_kept_by_us_too() {
    let running = json!({"containerStatuses": main(json!({"running": {}}))});
    let lowered = Case {
        sandbox: sandbox(json!({"maxLifetimeSeconds": 50})),
        ..Case::pod(running.clone())
    };
    assert!(matches!(lowered.decide().action, Action::SetDeadline(_, 50)));
    // 102 + 50 + grace 10 + 60.
    let overdue = Case { now: 223, ..lowered };
    assert_eq!(overdue.outcome(), (State::Failed, "NodeLost", None));
}

#[test]
fn after_the_end_a_pod_that_never_ran_goes_at_once_and_the_record_in_time() {
    let finished = SandboxStatus {
        state: State::Failed,
        finished_at: Some(Time(at(120))),
        ..SandboxStatus::default()
    };
    let case = Case {
        status: finished.clone(),
        ..Case::pod(json!({"phase": "Pending"}))
    };
    assert!(matches!(case.observe(|o| after_end(o, at(121))).0, Action::DeletePod(_)));
    let case = Case {
        status: finished,
        ..Case::pod(json!({"phase": "Failed"}))
    };
    assert_eq!(case.observe(|o| after_end(o, at(121))), (Action::None, Some(at(120 + 86_400))));
    assert_eq!(case.observe(|o| after_end(o, at(120 + 86_400))).0, Action::Delete);
}

#[test]
fn the_policy_of_a_pod_is_kept_as_it_was_made_and_named_as_its_owner() {
    let policy = |uid: &str, as_made, deleting| {
        let uid = uid.into();
        Some(PolicyView { uid, as_made, deleting })
    };
    let (running, creating) = (json!({"containerStatuses": main(json!({"running": {}}))}), json!({"phase": "Pending"}));
    for (status, policy, action) in [
        (&running, policy("q", true, false), Action::None),
        (&running, None, Action::RestorePolicy),
        (&creating, None, Action::None),
        (&running, policy("q", false, false), Action::RestorePolicy),
        (&creating, policy("q", false, false), Action::RestorePolicy),
        (&running, policy("new", true, false), Action::NamePolicy("new".into())),
        (&running, policy("new", true, true), Action::None),
    ] {
        let case = Case {
            policy: policy.clone(),
            ..Case::pod(status.clone())
        };
        assert_eq!(case.decide().action, action, "{policy:?} {status}");
    }
    let late = Case {
        policy: None,
        now: 90_000,
        ..Case::pod(running)
    };
    assert_eq!((late.decide().action, late.outcome().0), (Action::None, State::Failed));
}

#[test]
fn the_agent_is_asked_to_stop_with_the_grace_that_was_asked_for_and_the_kubelet_only_after_it() {
    let stopped = |grace: i64| sandbox(json!({"desiredState": "Stopped", "stopGracePeriodSeconds": grace}));
    let mut case = Case {
        sandbox: stopped(30),
        ..Case::pod(json!({"podIP": "10.0.0.9", "containerStatuses": main(json!({"running": {}}))}))
    };
    case.pod.as_mut().unwrap().metadata.annotations = Some([(ANNOTATION_AGENT_KEY.to_owned(), "k1".to_owned())].into());
    let decision = case.decide();
    assert!(matches!(&decision.action, Action::AskToStop(_, 30)), "{decision:?}");
    assert_eq!(decision.wake, Some(at(145)), "its grace, and five seconds more");

    case.status = case.observe(|o| status(o, &decision.verdict, at(110)));
    assert_eq!(case.status.expires_at, Some(Time(at(140))));
    assert_eq!(case.decide().action, Action::None, "asked once");
    case.sandbox = stopped(0);
    assert!(matches!(case.decide().action, Action::AskToStop(_, 0)), "a shorter grace is passed on");
    case.sandbox = stopped(30);
    case.now = 145;
    assert!(matches!(case.decide().action, Action::SetDeadline(_, 1)), "the agent did not do it");

    case.pod = Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")})).pod;
    assert_eq!(
        case.outcome(),
        (State::Terminated, "Stopped", Some(0)),
        "what it makes of the stop is its own affair"
    );
}
