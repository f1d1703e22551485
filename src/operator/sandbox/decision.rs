//! What is decided about a sandbox: its state, and what to do.

use jiff::Timestamp;

use super::pod::{Exit, MainState, PodView};
use crate::api::State;
use crate::api::limits::MAX_MESSAGE;
use crate::text::short;

/// What to do next, and what to write into the status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    /// Taken after the status is written.
    pub action: Action,
    /// None once the state is final.
    pub verdict: Option<Verdict>,
    /// When to reconcile again even if nothing changes.
    pub wake: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    None,
    /// Make the session an owner of the sandbox.
    Join,
    /// Create the children: policies, then the pod.
    Launch,
    /// Restore the network policy, which somebody deleted or edited.
    RestorePolicy,
    /// Make the policy of this UID an owner of the pod, in place of the one that the pod was created with.
    SetPolicyOwner(String),
    /// Lower the pod's `activeDeadlineSeconds`. Lowered to 1, it ends the pod but keeps it, with exit code and logs.
    SetDeadline(PodView, i64),
    /// Ask the agent to end the main command, with these seconds between SIGTERM and SIGKILL.
    StopAgent(PodView, i64),
    /// Delete a pod that has nothing worth keeping.
    DeletePod(PodView),
    /// Delete a pod whose processes run, with these seconds between SIGTERM and SIGKILL. Its logs are lost.
    KillPod(PodView, i64),
    /// Delete the record.
    Delete,
}

impl Decision {
    /// Nothing to do: write this, and reconcile again at `wake`.
    pub(super) fn wait(verdict: Verdict, wake: Option<Timestamp>) -> Decision {
        Decision {
            action: Action::None,
            verdict: Some(verdict),
            wake,
        }
    }

    /// A final state. The next reconcile follows at once, to clean up.
    pub(super) fn end(verdict: Verdict, now: Timestamp) -> Decision {
        Decision::wait(verdict, Some(now))
    }

    pub(super) fn is_end(&self) -> bool {
        self.verdict.as_ref().is_some_and(|v| v.state.is_final())
    }
}

/// A state, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub state: State,
    /// One of our reasons.
    pub reason: &'static str,
    pub message: String,
    /// How the main container ended, if that is known.
    pub exit: Option<Exit>,
}

impl Verdict {
    pub(crate) fn new(state: State, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict {
            state,
            reason,
            message: short(&message.into(), MAX_MESSAGE),
            exit: None,
        }
    }

    pub(super) fn with_exit(self, main: &MainState) -> Verdict {
        let exit = match main {
            MainState::Terminated(exit) => Some(exit.clone()),
            MainState::Waiting | MainState::Running(_) => None,
        };
        Verdict { exit, ..self }
    }
}
