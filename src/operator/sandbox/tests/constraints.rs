//! Constraints of the cluster's administrator.

use serde_json::json;

use super::super::launch::constraint_violation;
use super::{Case, sandbox};
use crate::api::{SandboxSession, State};
use crate::resources::Settings;

#[test]
fn a_sandbox_that_violates_them_fails_whoever_set_the_field() {
    let session = |defaults: serde_json::Value| -> Option<SandboxSession> {
        let session = json!({"metadata": {"name": "s"}, "spec": {"defaults": defaults}});
        Some(serde_json::from_value(session).unwrap())
    };
    let settings: Settings =
        serde_json::from_value(json!({"constraints": {"runtimeClassNames": ["gvisor", ""]}})).unwrap();
    let verdict = |spec, session| {
        let case = Case {
            sandbox: sandbox(spec),
            session,
            ..Case::default()
        };
        constraint_violation(&case.observed(), &settings)
    };
    assert_eq!(verdict(json!({"runtimeClassName": "gvisor"}), None), None);
    let own = verdict(json!({"runtimeClassName": "runc"}), None).unwrap();
    assert_eq!((own.state, own.reason), (State::Failed, "ConstraintViolated"));
    assert!(
        own.message.starts_with("spec.runtimeClassName: must be one of gvisor"),
        "{}",
        own.message
    );
    let joined = json!({"sessionName": "s"});
    let of_session = verdict(joined.clone(), session(json!({"runtimeClassName": "runc"}))).unwrap();
    let start = "spec.defaults.runtimeClassName of SandboxSession s: must be";
    assert!(of_session.message.starts_with(start), "{}", of_session.message);
    assert_eq!(verdict(joined, session(json!({"runtimeClassName": "gvisor"}))), None);
}
