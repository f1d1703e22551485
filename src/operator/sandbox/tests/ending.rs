//! Stops, and what is left to do for a sandbox that has ended.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{Action, Case, at, containers, ended, main, sandbox, terminated, waiting};
use crate::api::{ANNOTATION_AGENT_KEY, SandboxStatus, State};

fn running() -> Value {
    json!({"running": {"startedAt": "1970-01-01T00:01:43Z"}})
}

fn stopped(spec: Value) -> crate::api::Sandbox {
    let mut spec = spec;
    spec["desiredState"] = json!("Stopped");
    sandbox(spec)
}

/// A sandbox with an agent.
fn with_agent(statuses: Value) -> Case {
    let mut case = Case::pod(json!({"podIP": "10.0.0.9", "containerStatuses": statuses}));
    case.pod.as_mut().unwrap().metadata.annotations = Some([(ANNOTATION_AGENT_KEY.to_owned(), "k1".to_owned())].into());
    case
}

/// A sandbox that has ended in this state, with a pod of this status.
fn final_with(state: State, has_run: bool, status: Value) -> Case {
    Case {
        status: SandboxStatus {
            state,
            started_at: has_run.then(|| Time(at(103))),
            finished_at: Some(Time(at(120))),
            observed_generation: Some(1),
            ..SandboxStatus::default()
        },
        now: 121,
        ..Case::pod(status)
    }
}

#[test]
fn a_stop_ends_the_pod_and_keeps_it_and_a_dead_kubelet_does_not_keep_the_record_alive() {
    let case = Case {
        sandbox: stopped(json!({})),
        ..Case::pod(json!({"containerStatuses": main(running())}))
    };
    assert!(matches!(case.action(), Action::SetDeadline(_, 1)));
    let mut case = case.after_write();
    assert_eq!(
        (case.status.state, case.status.expires_at.clone().unwrap().0),
        (State::Terminating, at(120))
    );
    case.pod_spec().active_deadline_seconds = Some(1);
    // 120 is the end of the stop; then five seconds, the grace of the pod, and a minute.
    case.now = 194;
    assert_eq!((case.action(), case.outcome().0), (Action::None, State::Terminating));
    assert_eq!(case.decide().wake, Some(at(195)));
    case.now = 195;
    assert_eq!(
        case.outcome(),
        (State::Failed, "NodeLost", None),
        "nobody saw its processes end"
    );
}

#[test]
fn an_unscheduled_pod_is_deleted_by_a_stop() {
    let mut case = Case {
        sandbox: stopped(json!({})),
        ..Case::pod(json!({"phase": "Pending"}))
    };
    case.pod_spec().node_name = None;
    assert!(matches!(case.action(), Action::DeletePod(_)));
    assert_eq!(case.outcome().0, State::Terminating);
    case.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(110)));
    assert_eq!(case.outcome(), (State::Terminated, "Stopped", None));
}

#[test]
fn a_grace_that_is_shorter_than_that_of_the_pod_is_enforced_without_an_agent() {
    let mut case = Case {
        sandbox: stopped(json!({"stopGracePeriodSeconds": 3, "terminationGracePeriodSeconds": 120})),
        ..Case::pod(json!({"containerStatuses": main(running())}))
    };
    case.pod_spec().termination_grace_period_seconds = Some(120);
    assert!(matches!(case.action(), Action::KillPod(_, 3)));
    assert_eq!(case.outcome().0, State::Terminating);
    let mut case = case.after_write();
    case.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(113)));
    assert_eq!(
        (case.action(), case.outcome().0),
        (Action::None, State::Terminating),
        "its container still runs"
    );
    let lost = Case {
        now: 173,
        pod: case.pod.clone(),
        status: case.status.clone(),
        sandbox: case.sandbox.clone(),
        ..Case::default()
    };
    assert_eq!(lost.outcome(), (State::Failed, "NodeLost", None));
    let gone = Case { pod: None, ..case };
    assert_eq!(gone.outcome(), (State::Terminated, "Stopped", None));
    let mut longer = Case {
        sandbox: stopped(json!({"stopGracePeriodSeconds": 120, "terminationGracePeriodSeconds": 120})),
        ..Case::pod(json!({"containerStatuses": main(running())}))
    };
    longer.pod_spec().termination_grace_period_seconds = Some(120);
    assert!(
        matches!(longer.action(), Action::SetDeadline(_, 1)),
        "which keeps the logs"
    );
}

#[test]
fn the_agent_stops_with_the_grace_that_was_requested_and_the_kubelet_only_after_it() {
    let stopped = |grace: i64| stopped(json!({"stopGracePeriodSeconds": grace}));
    let case = Case {
        sandbox: stopped(30),
        ..with_agent(main(running()))
    };
    let decision = case.decide();
    assert!(matches!(&decision.action, Action::StopAgent(_, 30)), "{decision:?}");
    assert_eq!(decision.wake, Some(at(145)), "its grace, and five seconds more");

    let mut case = case.after_write();
    assert_eq!(case.status.expires_at, Some(Time(at(140))));
    assert_eq!(case.action(), Action::None, "asked once");
    case.sandbox = stopped(0);
    assert!(
        matches!(case.action(), Action::StopAgent(_, 0)),
        "a shorter grace is passed on"
    );
    case.sandbox = stopped(30);
    case.now = 145;
    assert!(
        matches!(case.action(), Action::SetDeadline(_, 1)),
        "the agent did not do it"
    );
    case.pod_spec().termination_grace_period_seconds = Some(11);
    assert!(
        matches!(case.action(), Action::KillPod(_, 0)),
        "the kubelet would take too long"
    );

    case.pod = Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")})).pod;
    assert_eq!(
        case.outcome(),
        (State::Terminated, "Stopped", Some(0)),
        "how the command answers the stop is no outcome"
    );
}

#[test]
fn terminated_is_written_only_when_no_container_runs_and_the_exit_code_is_kept() {
    let sidecar = containers(&[("sidecar", running())]);
    let mut case = Case {
        sandbox: stopped(json!({})),
        ..Case::pod(json!({"containerStatuses": main(running()), "initContainerStatuses": sidecar}))
    }
    .after_write();
    case.pod = Case::pod(json!({"containerStatuses": ended(143, "Error"), "initContainerStatuses": sidecar})).pod;
    assert_eq!(case.outcome(), (State::Terminating, "Stopped", Some(143)));
    assert_eq!(case.action(), Action::None, "the kubelet ends sidecars by itself");
    let case = case.after_write();
    assert_eq!(case.status.exit_code, Some(143));
    // 120 is the end of the stop; then five seconds, the grace of the pod, and a minute.
    let overdue = Case {
        now: 195,
        pod: case.pod.clone(),
        status: case.status.clone(),
        sandbox: case.sandbox.clone(),
        ..Case::default()
    };
    assert_eq!(overdue.outcome(), (State::Failed, "NodeLost", Some(143)));
    let gone = Case { pod: None, ..case };
    assert_eq!(gone.outcome(), (State::Terminated, "Stopped", None));
    assert_eq!(gone.after_write().status.exit_code, Some(143));

    // What a webhook added does not end by itself.
    let mesh = containers(&[("main", terminated(143, "Error")), ("mesh", running())]);
    let case = Case {
        sandbox: stopped(json!({})),
        status: SandboxStatus {
            state: State::Terminating,
            ..SandboxStatus::default()
        },
        ..Case::pod(json!({"containerStatuses": mesh}))
    };
    assert_eq!(case.outcome(), (State::Terminating, "Stopped", Some(143)));
    assert!(matches!(case.action(), Action::SetDeadline(_, 1)));
}

#[test]
fn a_lifetime_that_ends_is_terminated_only_when_no_container_runs() {
    let exceeded =
        |statuses: Value| json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": statuses});
    let mesh = containers(&[("main", terminated(143, "Error")), ("mesh", running())]);
    let case = Case::pod(exceeded(mesh)).after_write();
    assert_eq!(
        (case.status.state, case.status.reason.as_deref(), case.status.exit_code),
        (State::Terminating, Some("LifetimeExceeded"), Some(143))
    );
    let case = Case {
        pod: Case::pod(exceeded(ended(143, "Error"))).pod,
        ..case
    };
    let verdict = case.verdict();
    assert_eq!((verdict.state, verdict.reason), (State::Terminated, "LifetimeExceeded"));
    assert_eq!(verdict.message, "ended after maxLifetimeSeconds: 86400");
}

#[test]
fn a_pod_that_never_ran_is_deleted_however_its_sandbox_ended() {
    for status in [
        json!({"phase": "Pending"}),
        json!({"phase": "Pending", "containerStatuses": waiting("ImagePullBackOff", "")}),
        json!({"phase": "Pending", "containerStatuses": waiting("ImagePullBackOff", ""), "initContainerStatuses": containers(&[("sidecar", running())])}),
        json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": waiting("ImagePullBackOff", "")}),
        json!({"phase": "Failed", "reason": "DeadlineExceeded"}),
        json!({"phase": "Failed", "containerStatuses": ended(128, "StartError")}),
    ] {
        for state in [State::Failed, State::Terminated] {
            assert!(
                matches!(final_with(state, false, status.clone()).action(), Action::DeletePod(_)),
                "{state:?} {status}"
            );
        }
    }
    // Its status no longer shows that the main container ran.
    assert_eq!(
        final_with(State::Failed, true, json!({"phase": "Failed"})).action(),
        Action::None
    );
}

#[test]
fn what_still_runs_of_a_sandbox_that_has_ended_is_ended() {
    let mesh = || containers(&[("main", terminated(0, "Completed")), ("mesh", running())]);
    let case = final_with(State::Completed, true, json!({"containerStatuses": mesh()}));
    assert!(matches!(case.action(), Action::SetDeadline(_, 1)));
    let mut expired = case;
    expired.pod_spec().active_deadline_seconds = Some(1);
    assert_eq!(expired.action(), Action::None, "once");
    // A node that returns.
    let returned = final_with(State::Failed, true, json!({"containerStatuses": main(running())}));
    assert!(matches!(returned.action(), Action::SetDeadline(_, 1)));
    let sidecar = json!({"containerStatuses": ended(0, "Completed"), "initContainerStatuses": containers(&[("sidecar", running())])});
    assert_eq!(
        final_with(State::Completed, true, sidecar).action(),
        Action::None,
        "the kubelet ends sidecars by itself"
    );
    let mut deleting = final_with(State::Completed, true, json!({"containerStatuses": mesh()}));
    deleting.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(121)));
    assert_eq!(deleting.action(), Action::None);
}

#[test]
fn the_record_is_deleted_in_time() {
    let case = final_with(
        State::Completed,
        true,
        json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")}),
    );
    let decision = case.decide();
    assert_eq!((decision.action, decision.wake), (Action::None, Some(at(120 + 86_400))));
    let due = Case {
        now: 120 + 86_400,
        ..case
    };
    assert_eq!(due.action(), Action::Delete);
}
