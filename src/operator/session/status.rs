//! The status of a session.

use jiff::{SignedDuration, Timestamp};

use super::index::Counts;
use crate::api::conditions::{self, READY};
use crate::api::{SandboxSession, SandboxSessionStatus, SessionDesiredState, SessionState, State, reason};

impl SandboxSession {
    /// The end of its lifetime.
    pub(crate) fn expiry(&self) -> Option<Timestamp> {
        let created = self.metadata.creation_timestamp.as_ref()?.0;
        self.spec
            .max_lifetime_seconds
            .map(|s| created + SignedDuration::from_secs(s))
    }

    /// Whether it is closed: on request, or at the end of its lifetime.
    pub(crate) fn is_closed(&self, now: Timestamp) -> bool {
        self.spec.desired_state == SessionDesiredState::Closed || self.expiry().is_some_and(|at| now >= at)
    }
}

pub(super) fn status(
    session: &SandboxSession,
    old: &SandboxSessionStatus,
    counts: &Counts,
    now: Timestamp,
) -> SandboxSessionStatus {
    let of = |state: State| counts.by_state.get(&state).copied().unwrap_or_default();
    let state = match (session.is_closed(now), counts.unfinished) {
        (false, _) => SessionState::Open,
        (true, 0) => SessionState::Closed,
        (true, _) => SessionState::Closing,
    };
    let mut new = SandboxSessionStatus {
        state,
        active: counts.active,
        pending: of(State::Pending),
        creating: of(State::Creating),
        running: of(State::Running),
        terminating: of(State::Terminating),
        completed: of(State::Completed),
        failed: of(State::Failed),
        terminated: of(State::Terminated),
        observed_generation: session.metadata.generation,
        conditions: old.conditions.clone(),
    };
    let is_open = state == SessionState::Open;
    let why = if is_open { reason::OPEN } else { reason::CLOSED };
    conditions::set(
        &mut new.conditions,
        READY,
        is_open,
        why,
        "",
        session.metadata.generation,
        now,
    );
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::SandboxSessionSpec;

    #[test]
    fn a_closed_session_is_closing_until_all_its_sandboxes_have_ended() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let mut session = SandboxSession::new("x", SandboxSessionSpec::default());
        let of = |session: &SandboxSession, active, unfinished| {
            let by_state = [
                (State::Running, active),
                (State::Pending, unfinished - active),
                (State::Failed, 1),
            ]
            .into();
            let counts = Counts {
                by_state,
                active,
                unfinished,
            };
            status(session, &SandboxSessionStatus::default(), &counts, now)
        };
        let open = of(&session, 2, 5);
        assert_eq!(
            (open.state, open.active, open.pending, open.running, open.failed),
            (SessionState::Open, 2, 3, 2, 1)
        );
        session.spec.desired_state = SessionDesiredState::Closed;
        assert_eq!(
            of(&session, 0, 1).state,
            SessionState::Closing,
            "one that waits has yet to be ended"
        );
        assert_eq!(of(&session, 0, 0).state, SessionState::Closed);
    }

    #[test]
    fn a_session_closes_at_the_end_of_its_lifetime() {
        let created = Timestamp::from_second(1_790_000_000).unwrap();
        let mut session = SandboxSession::new("x", SandboxSessionSpec::default());
        session.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
        session.spec.max_lifetime_seconds = Some(60);
        let after = |seconds| session.is_closed(created + SignedDuration::from_secs(seconds));
        assert_eq!((after(59), after(60)), (false, true));
    }
}
