//! How a sandbox ends, and what keeps it from starting.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::super::pod::StartProblem;
use super::super::pod_events;
use super::{Case, at, containers, ended, main, sandbox, waiting};
use crate::api::{ANNOTATION_AGENT_KEY, SandboxStatus, State};

#[test]
fn the_first_cause_that_explains_the_others_is_the_outcome() {
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
            Case::pod(
                json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": ended(0, "Completed")}),
            ),
            (State::Terminated, "LifetimeExceeded", Some(0)),
        ),
        (
            "deadline, containers in their grace period",
            Case::pod(
                json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": main(json!({"running": {}}))}),
            ),
            (State::Terminating, "LifetimeExceeded", None),
        ),
        (
            "deadline, and gone",
            Case {
                status: SandboxStatus {
                    state: State::Terminating,
                    reason: Some("LifetimeExceeded".into()),
                    ..SandboxStatus::default()
                },
                has_record: true,
                ..Case::default()
            },
            (State::Terminated, "LifetimeExceeded", None),
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
            Case::pod(
                json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": waiting("ErrImagePull", "no such image")}),
            ),
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
                ..Case::pod(
                    json!({"phase": "Failed", "reason": "DeadlineExceeded", "containerStatuses": ended(143, "Error")}),
                )
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
            (State::Terminating, "PodDeleted", None),
        ),
        (
            "deleted, and its containers stopped",
            deleting(json!({"containerStatuses": ended(143, "Error")})),
            (State::Failed, "PodDeleted", Some(143)),
        ),
        (
            "deleted while running, on a node that does not report",
            Case {
                now: 166,
                ..deleting(json!({"containerStatuses": main(json!({"running": {}}))}))
            },
            (State::Failed, "NodeLost", None),
        ),
        (
            "preempted",
            deleting(
                json!({"conditions": disrupted("PreemptionByScheduler"), "containerStatuses": ended(143, "Error")}),
            ),
            (State::Failed, "Preempted", Some(143)),
        ),
        (
            "preempted, containers in their grace period",
            deleting(json!({"conditions": disrupted("PreemptionByScheduler")})),
            (State::Terminating, "Preempted", None),
        ),
        (
            "preempted, and gone",
            Case {
                status: SandboxStatus {
                    state: State::Terminating,
                    reason: Some("Preempted".into()),
                    ..SandboxStatus::default()
                },
                has_record: true,
                ..Case::default()
            },
            (State::Failed, "Preempted", None),
        ),
        (
            "evicted by the API",
            deleting(json!({"phase": "Failed", "conditions": disrupted("EvictionByEvictionAPI")})),
            (State::Failed, "Evicted", None),
        ),
        (
            "evicted by the API, containers in their grace period",
            deleting(json!({"conditions": disrupted("EvictionByEvictionAPI")})),
            (State::Terminating, "Evicted", None),
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
            Case::pod(
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory", "containerStatuses": ended(137, "Error")}),
            ),
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
                has_record: true,
                ..Case::default()
            },
            (State::Failed, "PodDeleted", None),
        ),
        (
            "gone after a stop",
            Case {
                has_record: true,
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
fn a_start_problem_is_shown_at_once_and_fails_at_once_only_where_waiting_cannot_help() {
    let problem = |reason: &str, message: &str| {
        Case::pod(json!({"phase": "Pending", "containerStatuses": waiting(reason, message)}))
    };
    let table = [
        ("InvalidImageName", "", State::Failed, "InvalidImageName"),
        ("ErrImageNeverPull", "", State::Failed, "ErrImageNeverPull"),
        (
            "CreateContainerConfigError",
            "configmap \"x\" not found",
            State::Creating,
            "CreateContainerConfigError",
        ),
        (
            "CreateContainerConfigError",
            "couldn't find key k in Secret n/x",
            State::Creating,
            "CreateContainerConfigError",
        ),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root (pod: \"a\", container: main)",
            State::Failed,
            "CreateContainerConfigError",
        ),
        (
            "CreateContainerConfigError",
            "container's runAsUser breaks non-root policy (pod: \"a\", container: main)",
            State::Failed,
            "CreateContainerConfigError",
        ),
        (
            "CreateContainerConfigError",
            "secret \"runAsNonRoot-non-root\" not found",
            State::Creating,
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
        assert_eq!(
            problem(reason, message).outcome(),
            (state, wanted, None),
            "{reason} {message}"
        );
    }
    let late = Case {
        now: 400,
        ..problem("ImagePullBackOff", "not found")
    };
    assert_eq!(late.outcome(), (State::Failed, "ImagePullError", None));
    let plain = Case {
        now: 400,
        ..problem("ContainerCreating", "")
    };
    assert_eq!(plain.outcome(), (State::Failed, "StartTimeout", None));
    let late = Case {
        first_seen: 250,
        ..plain
    };
    assert_eq!(
        late.outcome().0,
        State::Creating,
        "time without an operator does not count"
    );
    assert_eq!(late.decide().wake, Some(at(550)));
    let agent = json!([{"name": "sandbox-operator-agent", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": {"waiting": {"reason": "ErrImagePull"}}}]);
    assert_eq!(
        Case::pod(json!({"phase": "Pending", "initContainerStatuses": agent}))
            .outcome()
            .1,
        "AgentImageFailed"
    );
}

#[test]
fn the_newest_event_of_a_pod_says_what_keeps_it_from_starting() {
    let event = |kind: &str, reason: &str, second: i64| -> Event {
        let object = json!({"metadata": {}, "involvedObject": {}, "type": kind, "reason": reason, "message": format!("{reason} {second}"), "lastTimestamp": at(second)});
        serde_json::from_value(object).unwrap()
    };
    let (scheduled, pulling) = (event("Normal", "Scheduled", 100), |second| {
        event("Normal", "Pulling", second)
    });
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
        let reported = pod_events::problem(&events);
        assert_eq!(reported.as_ref().map(|t| (t.reason, t.message.as_str())), wanted);
        assert!(reported.is_none_or(|t| !t.is_fatal));
    }
}

#[test]
fn a_problem_from_events_is_shown_at_once_polled_again_and_becomes_the_reason() {
    let mut case = Case::pod(json!({"phase": "Pending", "containerStatuses": waiting("ContainerCreating", "")}));
    case.reported = Some(StartProblem {
        reason: "VolumeNotReady",
        message: "no such claim".into(),
        is_fatal: false,
    });
    case.poll_at = Some(at(130));
    let decision = case.decide();
    assert_eq!(
        (case.outcome(), decision.wake),
        ((State::Creating, "VolumeNotReady", None), Some(at(130)))
    );
    case.now = 400;
    assert_eq!(case.outcome(), (State::Failed, "VolumeNotReady", None));
    assert_eq!(case.decide().wake, Some(at(400)), "cleaned up at once");
}

#[test]
fn an_agent_that_could_not_be_executed_is_told_apart_from_a_main_command_that_exits_with_255() {
    const TOO_LONG: &str = "the main command ended with exit code 255: the container's process could not be executed";
    const OF_MAIN: &str = "the main command ended with exit code 255";
    let case = |message: Option<&str>, finished: &str, has_agent: bool| {
        let state = json!({"terminated": {"exitCode": 255, "reason": "Error", "message": message, "startedAt": "1970-01-01T00:01:43Z", "finishedAt": finished}});
        let mut case = Case::pod(json!({"phase": "Failed", "containerStatuses": main(state)}));
        let annotations = has_agent.then(|| [(ANNOTATION_AGENT_KEY.to_owned(), "k".to_owned())].into());
        case.pod.as_mut().unwrap().metadata.annotations = annotations;
        case.decide().verdict.unwrap().message
    };
    let at_once = "1970-01-01T00:01:43Z";
    assert!(case(None, at_once, true).starts_with(TOO_LONG));
    assert_eq!(case(Some("the main command exited with 255"), at_once, true), OF_MAIN);
    assert_eq!(case(None, "1970-01-01T00:02:43Z", true), OF_MAIN);
    assert_eq!(case(None, at_once, false), OF_MAIN);
    assert_eq!(case(Some("own words"), at_once, true), format!("{OF_MAIN}: own words"));
}

#[test]
fn a_failed_preparation_of_files_is_a_start_error() {
    let state = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "prepare files: /a: No space left on device"}});
    let init = containers(&[("sandbox-operator-files-0", state)]);
    let waiting = waiting("PodInitializing", "");
    let case = Case::pod(json!({"phase": "Failed", "initContainerStatuses": init, "containerStatuses": waiting}));
    assert_eq!(case.outcome(), (State::Failed, "StartError", None));
    let message = case.decide().verdict.unwrap().message;
    assert!(message.contains("No space left"), "{message}");
}
