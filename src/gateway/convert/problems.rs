//! What is wrong with a request: all of it is found before anything is said.

use tonic::{Code, Status};

use crate::gateway::error::{self, Violation, reason};

/// What is wrong with a request.
#[derive(Debug, Default)]
pub struct Problems {
    violations: Vec<Violation>,
    refusals: Vec<Status>,
}

impl Problems {
    /// A field is wrong.
    pub fn wrong(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.violations.push(Violation::new(field, description));
    }

    /// A field is wrong if `problem` says how.
    pub fn check(&mut self, field: impl Into<String>, problem: Option<impl Into<String>>) {
        if let Some(problem) = problem {
            self.wrong(field, problem);
        }
    }

    /// A field that nothing here can honour was given.
    pub fn unsupported(&mut self, field: impl Into<String>, given: bool) {
        if given {
            self.wrong(field, "not supported");
        }
    }

    /// A request that is well formed, but cannot be had here; `reason` decides what the SDK does about it.
    pub fn refuse(&mut self, code: Code, reason: &str, field: &str, description: &str) {
        self.refusals.push(error::status(code, reason, format!("{field}: {description}")));
    }

    /// No node can take it.
    pub fn no_runner(&mut self, field: &str, description: &str) {
        self.refuse(Code::FailedPrecondition, reason::NO_SUITABLE_RUNNER, field, description);
    }

    /// Part of the hosted service, and not there.
    pub fn not_implemented(&mut self, field: &str, description: &str) {
        self.refuse(Code::Unimplemented, reason::NOT_IMPLEMENTED, field, description);
    }

    /// `Ok` without any. Wrong fields come before refusals, since those are the caller's to mend.
    ///
    /// # Errors
    /// All wrong fields in one INVALID_ARGUMENT, else the first refusal.
    pub fn result(self) -> Result<(), Status> {
        if !self.violations.is_empty() {
            return Err(error::invalid(self.violations));
        }
        match self.refusals.into_iter().next() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}
