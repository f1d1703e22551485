//! The state machine of a sandbox, case by case. Each outcome rule has the counter-example that breaks a simpler one.
#![allow(clippy::unwrap_used)]

mod life;
mod outcomes;
mod telling;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sandbox_operator::api::{Sandbox, SandboxSession, SandboxStatus, State};
use sandbox_operator::operator::sandbox::decide::{Decision, decide};
use sandbox_operator::operator::sandbox::observed::{Observed, PodView, PolicyView, Session, Trouble};
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
    let owner = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "a-1234abcd", "uid": "q"});
    let object = json!({"metadata": {"name": "a-1234abcd", "uid": "p", "ownerReferences": [owner]}, "spec": {"nodeName": "node", "containers": [], "activeDeadlineSeconds": 86400}, "status": whole});
    serde_json::from_value(object).unwrap()
}

fn policy() -> PolicyView {
    PolicyView {
        uid: "q".into(),
        as_made: true,
        deleting: false,
    }
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
    policy: Option<PolicyView>,
    told: Option<Trouble>,
    look_again: Option<Timestamp>,
    seen: i64,
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
            policy: Some(policy()),
            told: None,
            look_again: None,
            seen: 100,
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
        let mut pod = self.pod.as_ref().map(PodView::new);
        if let (Some(pod), Some(told)) = (&mut pod, &self.told) {
            pod.trouble = Some(told.clone());
        }
        look(&Observed {
            sandbox: &self.sandbox,
            status: &self.status,
            effective: &effective,
            session,
            launched: self.launched,
            seen: at(self.seen),
            pod,
            look_again: self.look_again,
            policy: self.policy.clone(),
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
