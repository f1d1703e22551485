//! Which reconciles end in a write of the status.

use serde_json::json;

use super::super::observed::ServiceAddress;
use super::super::status::{acknowledged, is_worth_writing, status};
use super::{Case, at, ended, main, sandbox, waiting};
use crate::api::{SandboxStatus, State};

/// Reconciles a sandbox in these conditions, one after the other: the states that were written.
fn written(cases: Vec<Case>) -> Vec<&'static str> {
    let (mut written, mut states) = (SandboxStatus::default(), vec![]);
    for (i, case) in (0..).zip(cases) {
        let case = Case {
            status: written.clone(),
            now: 110 + i,
            ..case
        };
        let (observed, now) = (case.observed(), at(case.now));
        let new = status(&observed, &case.verdict(), now);
        if is_worth_writing(&observed, &new, now) {
            states.push(new.state.as_str());
            written = new;
        }
    }
    states
}

fn unbound() -> Case {
    let mut case = Case::pod(json!({"phase": "Pending"}));
    case.pod_spec().node_name = None;
    case
}

fn creating() -> Case {
    Case::pod(json!({"phase": "Pending"}))
}

fn running() -> Case {
    Case::pod(
        json!({"containerStatuses": main(json!({"running": {"startedAt": "1970-01-01T00:01:43Z"}})), "podIP": "10.0.0.1"}),
    )
}

#[test]
fn a_slow_start_takes_two_writes_and_the_end_one() {
    let with_ip = || {
        Case::pod(
            json!({"phase": "Pending", "podIP": "10.0.0.1", "conditions": [{"type": "Initialized", "status": "True"}]}),
        )
    };
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
    assert_eq!(written(life), ["CREATING", "RUNNING", "COMPLETED"]);
    assert_eq!(
        written(vec![Case::default(), unbound(), running(), done()]),
        ["RUNNING", "COMPLETED"]
    );
    assert_eq!(written(vec![Case::default(), done()]), ["COMPLETED"]);
}

#[test]
fn the_service_is_written_with_running_and_its_urls_are_removed_at_the_end() {
    let address = ServiceAddress {
        name: "a".into(),
        urls: vec!["http://a.n.svc:80".into()],
    };
    let case = running();
    let mut observed = case.observed();
    let without = status(&observed, &case.verdict(), at(110));
    observed.service = Some(address.clone());
    let with = status(&observed, &case.verdict(), at(110));
    assert_eq!((with.service_name.as_deref(), &with.urls), (Some("a"), &address.urls));
    observed.status = without;
    assert!(
        is_worth_writing(&observed, &with, at(110)),
        "a sandbox that an older version started"
    );
    let mut observed = case.observed();
    observed.status = with.clone();
    let late = ["http://a.n.svc:80", "http://192.0.2.1:80"].map(String::from).to_vec();
    observed.service = Some(ServiceAddress {
        name: "a".into(),
        urls: late,
    });
    let with_balancer = status(&observed, &case.verdict(), at(110));
    assert!(
        is_worth_writing(&observed, &with_balancer, at(110)),
        "a load balancer got its address later"
    );
    let done = Case {
        status: with,
        ..Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")}))
    };
    let last = status(&done.observed(), &done.verdict(), at(120));
    assert_eq!(
        (last.state, last.service_name.as_deref(), last.urls),
        (State::Completed, Some("a"), vec![])
    );
}

#[test]
fn a_fast_start_takes_one_write() {
    let bound = |second: &str| {
        let scheduled = json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": format!("1970-01-01T00:01:{second}Z")}]);
        Case::pod(json!({"phase": "Pending", "conditions": scheduled}))
    };
    // The reconciles are at 1:50, 1:51, …
    assert_eq!(written(vec![bound("50"), bound("50"), running()]), ["RUNNING"]);
    assert_eq!(
        written(vec![bound("50"), bound("50"), bound("50"), running()]),
        ["CREATING", "RUNNING"]
    );
    assert_eq!(
        bound("49").decide().wake,
        Some(at(111)),
        "reconciled again when it is to be written"
    );
    let pull = waiting("ErrImagePull", "a");
    let problem = json!({"phase": "Pending", "containerStatuses": pull, "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:01:50Z"}]});
    assert_eq!(
        written(vec![Case::pod(problem)]),
        ["CREATING"],
        "a problem is written at once"
    );
}

#[test]
fn a_problem_is_written_once_and_so_is_its_end() {
    let pull = |text: &str| Case::pod(json!({"phase": "Pending", "containerStatuses": waiting("ErrImagePull", text)}));
    let life = vec![creating(), pull("a"), pull("a"), pull("b"), creating(), running()];
    assert_eq!(
        written(life),
        ["CREATING", "CREATING", "CREATING", "CREATING", "RUNNING"]
    );
}

#[test]
fn while_running_a_new_address_a_lowered_lifetime_and_a_new_generation_are_written() {
    let moved = || Case::pod(json!({"containerStatuses": main(json!({"running": {}})), "podIP": "10.0.0.2"}));
    let lowered = || Case {
        sandbox: sandbox(json!({"maxLifetimeSeconds": 50})),
        ..moved()
    };
    let mut seen = lowered();
    seen.sandbox.metadata.generation = Some(2);
    assert_eq!(
        written(vec![running(), moved(), moved(), lowered(), seen]),
        ["RUNNING"; 4]
    );
}

#[test]
fn a_change_of_a_final_sandbox_is_acknowledged_with_one_write_and_nothing_else_moves() {
    let mut case = Case::pod(json!({"phase": "Succeeded", "containerStatuses": ended(0, "Completed")})).after_write();
    assert_eq!(case.status.state, State::Completed);
    assert_eq!(acknowledged(&case.observed()), None);
    case.sandbox = sandbox(json!({"desiredState": "Stopped", "tags": ["b", "a"]}));
    case.sandbox.metadata.generation = Some(2);
    case.now = 500;
    let new = acknowledged(&case.observed()).unwrap();
    let wanted = SandboxStatus {
        observed_generation: Some(2),
        tags: Some(vec!["a".into(), "b".into()]),
        ..case.status.clone()
    };
    assert_eq!(new, wanted);
    case.status = new;
    assert_eq!(acknowledged(&case.observed()), None, "once");
    assert_eq!(case.decide().verdict, None);
}
