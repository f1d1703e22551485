//! A cluster that does not enforce NetworkPolicy.

use super::*;
use crate::api::conditions::NETWORK_ENFORCED;
use crate::network_check::Enforcement;

fn network(mode: EnforcementMode, known: Option<Enforcement>) -> NetworkView {
    NetworkView {
        mode,
        known: known.map(|result| (result, "what was found".into())),
    }
}

#[test]
fn no_pod_is_created_before_required_enforcement_is_proven() {
    use Enforcement::{Enforced, NotEnforced, Unknown};
    use EnforcementMode::{Ignore, Require, Warn};
    for (mode, known, action, reason) in [
        (Require, None, Action::None, "NetworkNotEnforced"),
        (Require, Some(Unknown), Action::None, "NetworkNotEnforced"),
        (Require, Some(NotEnforced), Action::None, "NetworkNotEnforced"),
        (Require, Some(Enforced), Action::Launch, "Pending"),
        (Warn, None, Action::Launch, "Pending"),
        (Warn, Some(NotEnforced), Action::Launch, "Pending"),
        (Ignore, None, Action::Launch, "Pending"),
    ] {
        let case = Case {
            network: network(mode, known),
            ..Case::default()
        };
        let decision = case.decide();
        let verdict = decision.verdict.unwrap();
        assert_eq!(
            (decision.action, verdict.state, verdict.reason),
            (action, State::Pending, reason),
            "{mode:?} {known:?}"
        );
    }
}

#[test]
fn the_start_timeout_runs_while_a_sandbox_waits_for_enforcement() {
    let case = Case {
        network: network(EnforcementMode::Require, Some(Enforcement::NotEnforced)),
        now: 400,
        ..Case::default()
    };
    assert_eq!(case.outcome(), (State::Failed, "NetworkNotEnforced", None));
    let message = case.verdict().message;
    assert!(
        message.contains("what was found") && message.contains("startTimeoutSeconds"),
        "{message}"
    );
}

#[test]
fn a_sandbox_that_has_a_pod_is_left_alone() {
    let case = Case {
        network: network(EnforcementMode::Require, Some(Enforcement::NotEnforced)),
        ..Case::pod(json!({"containerStatuses": main(json!({"running": {}}))}))
    };
    assert_eq!(case.verdict().state, State::Running);
}

/// The condition is written with whatever else is news, and never by itself.
#[test]
fn the_condition_tells_that_the_network_is_not_enforced() {
    use Enforcement::{Enforced, NotEnforced, Unknown};
    let running = |known, status| Case {
        network: network(EnforcementMode::Warn, known),
        status,
        ..Case::pod(json!({"containerStatuses": main(json!({"running": {}}))}))
    };
    let condition = |status: &SandboxStatus| {
        let found = status.conditions.iter().find(|c| c.type_ == NETWORK_ENFORCED);
        found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    let written = |known, old| running(known, old).after_write().status;
    let of = |status: &str, reason: &str| Some((status.to_owned(), reason.to_owned(), "what was found".to_owned()));
    for (known, expected) in [
        (None, None),
        (Some(Enforced), None),
        (Some(NotEnforced), of("False", "NetworkNotEnforced")),
        (Some(Unknown), of("Unknown", "NetworkEnforcementUnknown")),
    ] {
        assert_eq!(
            condition(&written(known, SandboxStatus::default())),
            expected,
            "{known:?}"
        );
    }
    let before = written(Some(NotEnforced), SandboxStatus::default());
    let after = running(Some(Enforced), before.clone());
    let new = status(&after.observed(), &after.verdict(), at(after.now));
    assert_eq!(condition(&new), of("True", "NetworkEnforced"));
    assert!(
        !super::super::status::is_worth_writing(&after.observed(), &new, at(after.now)),
        "no write of its own"
    );
}
