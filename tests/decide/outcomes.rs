//! How a sandbox ends, and what keeps it from starting.

use super::{Case, at, ended, main, sandbox, waiting};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sandbox_operator::api::{SandboxStatus, State};
use sandbox_operator::operator::sandbox::observed::Trouble;
use sandbox_operator::operator::sandbox::pod_events;
use serde_json::{Value, json};

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
            "deadline before the start, with what kept it from starting",
            Case {
                status: SandboxStatus {
                    reason: Some("ImagePullError".into()),
                    message: Some("no such image".into()),
                    ..SandboxStatus::default()
                },
                ..Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded"}))
            },
            (State::Failed, "ImagePullError", None),
        ),
        (
            "deadline before the start, with what still keeps it",
            Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": waiting("ErrImagePull", "no such image")})),
            (State::Failed, "ImagePullError", None),
        ),
        (
            "deadline while it was starting",
            Case {
                status: SandboxStatus {
                    reason: Some("Starting".into()),
                    ..SandboxStatus::default()
                },
                ..Case::pod(json!({"phase": "Failed", "reason": "DeadlineExceeded"}))
            },
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
    let late = Case { seen: 250, ..plain };
    assert_eq!(late.outcome().0, State::Creating, "time in which nobody looked does not count");
    assert_eq!(late.decide().wake, Some(at(550)));
    let agent = json!([{"name": "sandbox-operator-agent", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": "ErrImagePull"}}}]);
    assert_eq!(
        Case::pod(json!({"phase": "Pending", "initContainerStatuses": agent})).outcome().1,
        "AgentImageFailed"
    );
}

#[test]
fn the_newest_of_a_pods_events_says_what_keeps_it_from_starting() {
    let event = |kind: &str, reason: &str, second: i64| -> Event {
        let object = json!({"metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": format!("{reason} {second}"), "lastTimestamp": at(second)});
        serde_json::from_value(object).unwrap()
    };
    let (scheduled, pulling) = (event("Normal", "Scheduled", 100), |second| event("Normal", "Pulling", second));
    let mount = |second| event("Warning", "FailedMount", second);
    for (events, wanted) in [
        (vec![], None),
        (vec![scheduled.clone()], None),
        (
            vec![mount(110), scheduled.clone(), mount(105)],
            Some(("VolumeNotReady", "FailedMount 110")),
        ),
        (vec![mount(105), pulling(110)], None),
        (vec![mount(105), pulling(105)], None),
        (
            vec![scheduled.clone(), event("Warning", "FailedAttachVolume", 101)],
            Some(("VolumeNotReady", "FailedAttachVolume 101")),
        ),
        (
            vec![scheduled, event("Warning", "FailedCreatePodSandBox", 101)],
            Some(("StartError", "FailedCreatePodSandBox 101")),
        ),
        (vec![event("Warning", "DNSConfigForming", 101)], None),
    ] {
        let told = pod_events::trouble(&events);
        assert_eq!(told.as_ref().map(|t| (t.reason, t.message.as_str())), wanted);
        assert!(told.is_none_or(|t| !t.fatal));
    }
}

#[test]
fn what_the_events_told_is_shown_at_once_looked_at_again_and_the_reason_in_the_end() {
    let mut case = Case::pod(json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating", "")}));
    case.told = Some(Trouble {
        reason: "VolumeNotReady",
        message: "no such claim".into(),
        fatal: false,
    });
    case.look_again = Some(at(130));
    let decision = case.decide();
    assert_eq!(
        (case.outcome(), decision.wake),
        ((State::Creating, "VolumeNotReady", None), Some(at(130)))
    );
    case.now = 400;
    assert_eq!((case.outcome(), case.decide().wake), ((State::Failed, "VolumeNotReady", None), None));
}
