//! The state machine of a sandbox, case by case. Each outcome rule has the counter-example that breaks a simpler rule.
#![allow(clippy::unwrap_used)]

mod constraints;
mod ending;
mod lifecycle;
mod network;
mod outcomes;
mod scheduling;
mod writes;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

use super::context::LaunchFailure;
use super::decide::decide;
use super::decision::{Action, Decision, Verdict};
use super::identity::{CreatedPod, PodRecord};
use super::observed::{Observed, PolicyView, Session};
use super::pod::{PodView, StartProblem};
use super::status::status;
use crate::api::{Sandbox, SandboxSession, SandboxStatus, State};
use crate::operator::enforcement::NetworkView;
use crate::resources::settings::EnforcementMode;
use crate::resources::{Effective, Settings};

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

/// A pod on a node with this status.
fn pod(status: Value) -> Pod {
    let mut whole = json!({"phase": "Running", "startTime": "1970-01-01T00:01:42Z"});
    whole
        .as_object_mut()
        .unwrap()
        .extend(status.as_object().unwrap().clone());
    let owner =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "name": "a-1234abcd", "uid": "q"});
    let object = json!({"metadata": {"name": "a-1234abcd", "uid": "p", "ownerReferences": [owner]}, "spec": {"nodeName": "node", "containers": [], "activeDeadlineSeconds": 86400}, "status": whole});
    serde_json::from_value(object).unwrap()
}

fn policy() -> PolicyView {
    PolicyView {
        uid: "q".into(),
        is_unmodified: true,
        is_deleting: false,
    }
}

fn main(state: Value) -> Value {
    containers(&[("main", state)])
}

/// Statuses of ordinary containers, each with a state.
fn containers(states: &[(&str, Value)]) -> Value {
    let of = |(name, state): &(&str, Value)| json!({"name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
    states.iter().map(of).collect()
}

fn terminated(code: i32, reason: &str) -> Value {
    json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": "1970-01-01T00:01:43Z", "finishedAt": "1970-01-01T00:01:50Z"}})
}

fn ended(code: i32, reason: &str) -> Value {
    main(terminated(code, reason))
}

fn waiting(reason: &str, message: &str) -> Value {
    main(json!({"waiting": {"reason": reason, "message": message}}))
}

struct Case {
    sandbox: Sandbox,
    status: SandboxStatus,
    session: Option<SandboxSession>,
    /// Of a session that the sandbox has yet to join: whether it has room.
    has_room: Option<bool>,
    session_is_missing: bool,
    namespace_is_full: bool,
    /// Whether this process created a pod for it.
    has_record: bool,
    pod: Option<Pod>,
    policy: Option<PolicyView>,
    /// What the pod's events report.
    reported: Option<StartProblem>,
    poll_at: Option<Timestamp>,
    launch_failure: Option<LaunchFailure>,
    network: NetworkView,
    first_seen: i64,
    now: i64,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            sandbox: sandbox(json!({})),
            status: SandboxStatus::default(),
            session: None,
            has_room: None,
            session_is_missing: false,
            namespace_is_full: false,
            has_record: false,
            pod: None,
            policy: Some(policy()),
            reported: None,
            poll_at: None,
            launch_failure: None,
            network: NetworkView::new(EnforcementMode::Warn),
            first_seen: 100,
            now: 110,
        }
    }
}

impl Case {
    fn pod(status: Value) -> Case {
        Case {
            pod: Some(pod(status)),
            has_record: true,
            ..Case::default()
        }
    }

    fn pod_spec(&mut self) -> &mut PodSpec {
        self.pod.as_mut().and_then(|p| p.spec.as_mut()).unwrap()
    }

    fn observed(&self) -> Observed {
        let effective = Effective::new(&self.sandbox, self.session.as_ref(), &Settings::default());
        let session = match (self.session.clone().map(Arc::new), self.has_room) {
            _ if self.session_is_missing => Session::Missing,
            (Some(session), Some(has_room)) => Session::Joining { session, has_room },
            (session, _) => Session::Settled(session),
        };
        let mut pod = self.pod.as_ref().map(PodView::new);
        if let (Some(pod), Some(reported)) = (&mut pod, &self.reported) {
            pod.problem = Some(reported.clone());
        }
        let created = self.has_record.then(|| CreatedPod {
            uid: "p".into(),
            at: Instant::now(),
        });
        Observed {
            sandbox: Arc::new(self.sandbox.clone()),
            status: self.status.clone(),
            effective,
            session,
            pod_record: PodRecord::find(&self.sandbox, &self.status, created.as_ref()),
            first_seen: at(self.first_seen),
            pod,
            poll_at: self.poll_at,
            policy: self.policy.clone(),
            service: None,
            namespace_is_full: self.namespace_is_full,
            launch_failure: self.launch_failure.clone(),
            network: self.network.clone(),
            agent_image: "agent:1".into(),
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.observed(), at(self.now))
    }

    fn action(&self) -> Action {
        self.decide().action
    }

    fn verdict(&self) -> Verdict {
        self.decide().verdict.unwrap()
    }

    fn outcome(&self) -> (State, &'static str, Option<i32>) {
        let verdict = self.verdict();
        (verdict.state, verdict.reason, verdict.exit.and_then(|e| e.code))
    }

    /// The same sandbox after its decision was written.
    fn after_write(self) -> Case {
        let status = status(&self.observed(), &self.verdict(), at(self.now));
        Case { status, ..self }
    }
}
