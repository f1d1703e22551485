//! The state machine of a sandbox, case by case. Each outcome rule has the counter-example that breaks a simpler one.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sandbox_operator::api::{Sandbox, SandboxSession, SandboxStatus, State};
use sandbox_operator::operator::sandbox::decide::{Action, Decision, after_end, decide};
use sandbox_operator::operator::sandbox::observed::{Observed, PodView, Session};
use sandbox_operator::operator::sandbox::status::{status, worth_writing};
use sandbox_operator::resources::{Effective, Settings};
use serde_json::{Value, json};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn sandbox(spec: Value) -> Sandbox {
    let object = json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox",
        "metadata": {"name": "a", "namespace": "n", "uid": "1234abcd-1", "creationTimestamp": "1970-01-01T00:01:40Z", "generation": 1},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A pod on a node, with this status, made of the given main container state.
fn pod(status: Value) -> Pod {
    let mut whole = json!({"phase": "Running", "startTime": "1970-01-01T00:01:42Z"});
    whole.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": "a-1234abcd", "uid": "p"}, "spec": {"nodeName": "node", "containers": [], "activeDeadlineSeconds": 86400}, "status": whole});
    serde_json::from_value(object).unwrap()
}

fn main(state: Value) -> Value {
    json!([{"name": "main", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state}])
}

fn ended(code: i32, reason: &str) -> Value {
    main(json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": "1970-01-01T00:01:43Z", "finishedAt": "1970-01-01T00:01:50Z"}}))
}

fn waiting(reason: &str, message: &str) -> Value {
    main(json!({"waiting": {"reason": reason, "message": message}}))
}

struct Case {
    sandbox: Sandbox,
    status: SandboxStatus,
    session: Option<SandboxSession>,
    room: Option<bool>,
    missing: bool,
    launched: bool,
    pod: Option<Pod>,
    now: i64,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            sandbox: sandbox(json!({})),
            status: SandboxStatus::default(),
            session: None,
            room: None,
            missing: false,
            launched: false,
            pod: None,
            now: 110,
        }
    }
}

impl Case {
    fn pod(status: Value) -> Case {
        Case {
            pod: Some(pod(status)),
            launched: true,
            ..Case::default()
        }
    }

    fn observe<T>(&self, look: impl Fn(&Observed) -> T) -> T {
        let effective = Effective::new(&self.sandbox, self.session.as_ref(), &Settings::default());
        let session = match (&self.session, self.room) {
            _ if self.missing => Session::Missing,
            (Some(session), Some(room)) => Session::Joining { session, room },
            (session, _) => Session::Settled(session.as_ref()),
        };
        let pod = self.pod.as_ref().map(PodView::new);
        look(&Observed {
            sandbox: &self.sandbox,
            status: &self.status,
            effective: &effective,
            session,
            launched: self.launched,
            pod,
            policy: true,
            agent_image: "agent:1",
        })
    }

    fn decide(&self) -> Decision {
        self.observe(|o| decide(o, at(self.now)))
    }

    fn outcome(&self) -> (State, &'static str, Option<i32>) {
        let verdict = self.decide().verdict;
        (verdict.state, verdict.reason, verdict.exit.and_then(|e| e.code))
    }
}

#[test]
fn outcomes_in_the_order_in_which_they_explain_each_other() {
    let stopped = || sandbox(json!({"desiredState": "Stopped"}));
    let deleting = |status: Value| {
        let mut case = Case::pod(status);
        case.pod.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(at(105)));
        case
    };
    let disrupted = |reason: &str| json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
    type Row = (&'static str, Case, (State, &'static str, Option<i32>));
    let table: Vec<Row> = vec![
        (
            "exit 0",
            Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")})),
            (State::Completed, "Completed", Some(0)),
        ),
        (
            "exit 3",
            Case::pod(json!({"phase": "Failed", "containerStatuses": ended(3, "Error")})),
            (State::Failed, "Error", Some(3)),
        ),
        (
            "main ended, sidecars still end",
            Case::pod(json!({"containerStatuses": ended(0, "Completed")})),
            (State::Completed, "Completed", Some(0)),
        ),
        (
            "killed for memory",
            Case::pod(json!({"phase": "Failed", "containerStatuses": ended(137, "OOMKilled")})),
            (State::Failed, "OOMKilled", Some(137)),
        ),
        (
            "a child killed for memory, main goes on to 0",
            Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "OOMKilled")})),
            (State::Completed, "Completed", Some(0)),
        ),
        (
            "a child killed for memory, main goes on to 1",
            Case::pod(json!({"phase": "Failed", "containerStatuses": ended(1, "OOMKilled")})),
            (State::Failed, "Error", Some(1)),
        ),
        (
            "deadline with exit 0",
            Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": ended(0, "Completed")})),
            (State::Terminated, "LifetimeExceeded", Some(0)),
        ),
        (
            "deadline before the start",
            Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded"})),
            (State::Terminated, "LifetimeExceeded", None),
        ),
        (
            "deadline by a stop",
            Case {
                sandbox: stopped(),
                ..Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": ended(143, "Error")}))
            },
            (State::Terminated, "Stopped", Some(143)),
        ),
        (
            "a natural end seen before the stop was carried out",
            Case {
                sandbox: stopped(),
                ..Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")}))
            },
            (State::Completed, "Completed", Some(0)),
        ),
        (
            "deleted by someone, Succeeded",
            deleting(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")})),
            (State::Failed, "PodDeleted", Some(0)),
        ),
        (
            "deleted while running",
            deleting(json!({"containerStatuses": main(json!({"running": {}}))})),
            (State::Failed, "PodDeleted", None),
        ),
        (
            "preempted",
            deleting(json!({"conditions": disrupted("PreemptionByScheduler")})),
            (State::Failed, "Preempted", None),
        ),
        (
            "evicted by the API",
            deleting(json!({"conditions": disrupted("EvictionByEvictionAPI")})),
            (State::Failed, "Evicted", None),
        ),
        (
            "node gone",
            deleting(json!({"conditions": disrupted("DeletionByTaintManager")})),
            (State::Failed, "NodeLost", None),
        ),
        (
            "pod collected",
            deleting(json!({"conditions": disrupted("DeletionByPodGC")})),
            (State::Failed, "NodeLost", None),
        ),
        (
            "evicted by the kubelet",
            Case::pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory", "containerStatuses": ended(137, "Error")})),
            (State::Failed, "Evicted", Some(137)),
        ),
        (
            "made-up 137",
            Case::pod(json!({"phase": "Failed", "containerStatuses": ended(137, "ContainerStatusUnknown")})),
            (State::Failed, "ContainerStatusUnknown", None),
        ),
        (
            "made-up 128",
            Case::pod(json!({"phase": "Failed", "containerStatuses": ended(128, "StartError")})),
            (State::Failed, "StartError", None),
        ),
        (
            "refused by the kubelet",
            Case::pod(json!({"phase": "Failed", "reason": "OutOfcpu"})),
            (State::Failed, "Error", None),
        ),
        (
            "gone",
            Case {
                launched: true,
                ..Case::default()
            },
            (State::Failed, "PodDeleted", None),
        ),
        (
            "gone after a stop",
            Case {
                launched: true,
                sandbox: stopped(),
                ..Case::default()
            },
            (State::Terminated, "Stopped", None),
        ),
        (
            "stopped before it began",
            Case {
                sandbox: stopped(),
                ..Case::default()
            },
            (State::Terminated, "Stopped", None),
        ),
    ];
    let wrong: Vec<String> = table
        .iter()
        .filter(|(_, case, wanted)| case.outcome() != *wanted)
        .map(|(name, case, wanted)| format!("{name}: {:?}, not {wanted:?}", case.outcome()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn trouble_is_told_at_once_and_fails_at_once_only_where_waiting_cannot_help() {
    let trouble = |reason: &str, message: &str| Case::pod(json!({"phase": "Pending", "containerStatuses": waiting(reason, message)}));
    let table = [
        ("InvalidImageName", "", State::Failed, "InvalidImageName"),
        ("ErrImageNeverPull", "", State::Failed, "ErrImageNeverPull"),
        (
            "CreateContainerConfigError",
            "configmap \"x\" not found",
            State::Failed,
            "CreateContainerConfigError",
        ),
        (
            "CreateContainerConfigError",
            "failed to sync configmap cache: timed out",
            State::Creating,
            "CreateContainerConfigError",
        ),
        ("RunContainerError", "no such file", State::Failed, "StartError"),
        ("ErrImagePull", "not found", State::Creating, "ImagePullError"),
        ("ImagePullBackOff", "not found", State::Creating, "ImagePullError"),
        ("ContainerCreating", "", State::Creating, "Starting"),
    ];
    for (reason, message, state, wanted) in table {
        assert_eq!(trouble(reason, message).outcome(), (state, wanted, None), "{reason} {message}");
    }
    let late = Case {
        now: 400,
        ..trouble("ImagePullBackOff", "not found")
    };
    assert_eq!(late.outcome(), (State::Failed, "ImagePullError", None));
    let plain = Case {
        now: 400,
        ..trouble("ContainerCreating", "")
    };
    assert_eq!(plain.outcome(), (State::Failed, "StartTimeout", None));
    let agent = json!([{"name": "sandbox-operator-agent", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": "ErrImagePull"}}}]);
    assert_eq!(
        Case::pod(json!({"phase": "Pending", "initContainerStatuses": agent})).outcome().1,
        "AgentImageFailed"
    );
}

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
fn a_plain_wait_is_not_worth_a_write_and_an_unchanged_status_never() {
    let case = Case::default();
    let new = case.observe(|o| status(o, &case.decide().verdict, at(110)));
    assert!(!worth_writing(&case.status, &new));
    let creating = Case::pod(json!({"phase": "Pending"}));
    let new = creating.observe(|o| status(o, &creating.decide().verdict, at(110)));
    assert!(worth_writing(&creating.status, &new));
    let again = Case {
        status: new.clone(),
        now: 120,
        ..Case::pod(json!({"phase": "Pending"}))
    };
    assert!(!worth_writing(&new, &again.observe(|o| status(o, &again.decide().verdict, at(120)))));
}
