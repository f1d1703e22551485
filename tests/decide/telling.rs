//! Which looks at a sandbox end in a write of its status.

use super::{Case, at, ended, main, sandbox, waiting};
use k8s_openapi::api::core::v1::Pod;
use sandbox_operator::api::SandboxStatus;
use sandbox_operator::operator::sandbox::status::{status, worth_writing};
use serde_json::json;

/// Looks at a sandbox in these states, one after the other: which of them were told.
fn told(looks: Vec<Case>) -> Vec<&'static str> {
    let (mut written, mut states) = (SandboxStatus::default(), vec![]);
    for (i, look) in (0..).zip(looks) {
        let case = Case {
            status: written.clone(),
            now: 110 + i,
            ..look
        };
        let (new, worth) = case.observe(|o| {
            let new = status(o, &case.decide().verdict, at(case.now));
            let worth = worth_writing(o, &new, at(case.now));
            (new, worth)
        });
        if worth {
            states.push(new.state.as_str());
            written = new;
        }
    }
    states
}

fn unbound() -> Case {
    let mut case = Case::pod(json!({"phase": "Pending"}));
    let spec = case.pod.as_mut().and_then(|p: &mut Pod| p.spec.as_mut()).unwrap();
    spec.node_name = None;
    case
}

fn creating() -> Case {
    Case::pod(json!({"phase": "Pending"}))
}

fn running() -> Case {
    Case::pod(json!({"containerStatuses": main(json!({"running": {"startedAt": "1970-01-01T00:01:43Z"}})), "podIP": "10.0.0.1"}))
}

#[test]
fn a_slow_start_is_told_with_two_writes_and_the_end_with_one() {
    let with_ip = || Case::pod(json!({"phase": "Pending", "podIP": "10.0.0.1", "conditions": [{"type": "Initialized", "status": "True"}]}));
    let unstarted = || {
        let mut case = creating();
        case.pod.as_mut().unwrap().status.as_mut().unwrap().start_time = None;
        case
    };
    let done = || Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")}));
    let life = vec![
        Case::default(),
        unbound(),
        unbound(),
        unstarted(),
        creating(),
        with_ip(),
        running(),
        running(),
        done(),
    ];
    assert_eq!(told(life), ["CREATING", "RUNNING", "COMPLETED"]);
    assert_eq!(told(vec![Case::default(), unbound(), running(), done()]), ["RUNNING", "COMPLETED"]);
    assert_eq!(told(vec![Case::default(), done()]), ["COMPLETED"]);
}

#[test]
fn a_start_that_is_over_soon_after_its_binding_is_told_with_running_only() {
    let bound = |second: &str| {
        let scheduled = json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": format!("1970-01-01T00:01:{second}Z")}]);
        Case::pod(json!({"phase": "Pending", "conditions": scheduled}))
    };
    // The looks are at 1:50, 1:51, …
    assert_eq!(told(vec![bound("50"), bound("50"), running()]), ["RUNNING"]);
    assert_eq!(told(vec![bound("50"), bound("50"), bound("50"), running()]), ["CREATING", "RUNNING"]);
    assert_eq!(bound("49").decide().wake, Some(at(111)), "it is looked at again when it is to be told");
    let pull = waiting("ErrImagePull", "a");
    let trouble = json!({"phase": "Pending", "containerStatuses": pull, "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:01:50Z"}]});
    assert_eq!(told(vec![Case::pod(trouble)]), ["CREATING"], "trouble is told at once");
}

#[test]
fn trouble_is_told_once_and_its_end_too() {
    let pull = |text: &str| Case::pod(json!({"phase": "Pending", "containerStatuses": waiting("ErrImagePull", text)}));
    let life = vec![creating(), pull("a"), pull("a"), pull("b"), creating(), running()];
    assert_eq!(told(life), ["CREATING", "CREATING", "CREATING", "CREATING", "RUNNING"]);
}

#[test]
fn while_it_runs_a_new_address_a_lowered_lifetime_and_a_seen_change_are_told() {
    let moved = || Case::pod(json!({"containerStatuses": main(json!({"running": {}})), "podIP": "10.0.0.2"}));
    let lowered = || Case {
        sandbox: sandbox(json!({"maxLifetimeSeconds": 50})),
        ..moved()
    };
    let mut seen = lowered();
    seen.sandbox.metadata.generation = Some(2);
    assert_eq!(told(vec![running(), moved(), moved(), lowered(), seen]), ["RUNNING"; 4]);
}
