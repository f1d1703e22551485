//! How a sandbox ends, and what keeps it from starting.

use super::{Case, at, ended, main, sandbox, waiting};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sandbox_operator::api::State;
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
