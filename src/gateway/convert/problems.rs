//! Collects everything that is wrong with a request, so that the caller gets all of it in one answer.

use tonic::{Code, Status};

use crate::api::FieldPath;
use crate::gateway::error::{self, Violation, reason};

/// Everything that is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    violations: Vec<Violation>,
    refusals: Vec<Status>,
}

impl Problems {
    /// The value of a field is invalid.
    #[track_caller]
    pub(crate) fn invalid(&mut self, field: &FieldPath, description: impl Into<String>) {
        #[cfg(test)]
        super::tests::refusals::record(field, std::panic::Location::caller());
        self.violations.push(Violation::new(field.to_string(), description));
    }

    /// The value of a field is invalid if there is an error.
    #[track_caller]
    pub(crate) fn check(&mut self, field: &FieldPath, error: Option<impl Into<String>>) {
        if let Some(error) = error {
            self.invalid(field, error);
        }
    }

    /// A list or map may have at most `most` items.
    #[track_caller]
    pub(crate) fn at_most(&mut self, field: &FieldPath, count: usize, most: usize) {
        if count > most {
            self.invalid(field, format!("must have at most {most} items, not {count}"));
        }
    }

    /// A field that this product does not support is set.
    #[track_caller]
    pub(crate) fn unsupported(&mut self, field: &FieldPath, is_set: bool) {
        if is_set {
            self.invalid(field, "is not supported; leave it out");
        }
    }

    /// A field is valid, but this cluster cannot honour it. `reason` decides what the SDK does.
    #[track_caller]
    pub(crate) fn refuse(&mut self, code: Code, reason: &str, field: &FieldPath, description: &str) {
        #[cfg(test)]
        super::tests::refusals::record(field, std::panic::Location::caller());
        self.refusals
            .push(error::status(code, reason, format!("{field}: {description}")));
    }

    /// No node can take the sandbox.
    #[track_caller]
    pub(crate) fn no_suitable_runner(&mut self, field: &FieldPath, description: &str) {
        self.refuse(Code::FailedPrecondition, reason::NO_SUITABLE_RUNNER, field, description);
    }

    /// A feature of the hosted service that this product does not have.
    #[track_caller]
    pub(crate) fn not_implemented(&mut self, field: &FieldPath, description: &str) {
        self.refuse(Code::Unimplemented, reason::NOT_IMPLEMENTED, field, description);
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.violations.is_empty() && self.refusals.is_empty()
    }

    /// `Ok` if nothing is wrong. Invalid fields come before refusals, since the caller can correct them.
    ///
    /// # Errors
    /// All invalid fields in one INVALID_ARGUMENT, else the first refusal.
    pub(crate) fn into_result(self) -> Result<(), Status> {
        if !self.violations.is_empty() {
            return Err(error::invalid(self.violations));
        }
        match self.refusals.into_iter().next() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}
