//! What can go wrong in a reconcile, by what is done next.

use std::time::Duration;

/// An error that is tried again, with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not understand a call.
    #[error("{verb} {kind} {name}")]
    Api {
        /// The call's verb.
        verb: &'static str,
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The API server did not answer.
    #[error("{verb} {kind} {name}: no answer within {} s", after.as_secs())]
    Timeout {
        /// The call's verb.
        verb: &'static str,
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// How long we waited.
        after: Duration,
    },
    /// Others write the same object again and again.
    #[error("{kind} {name}: others kept changing it")]
    Contended {
        /// The object's kind.
        kind: &'static str,
        /// The object's name.
        name: String,
    },
    /// A defect of ours; contained, so that it hurts one object only.
    #[error("panic in reconcile: {0}")]
    Panic(String),
}

impl Error {
    /// The same in one word, for metrics: few values, no names.
    pub fn reason(&self) -> &'static str {
        match self {
            Error::Api { source, .. } => match status(source) {
                Some(s) if s.is_conflict() => "Conflict",
                Some(s) if s.is_forbidden() => "Forbidden",
                Some(s) if s.is_not_found() => "NotFound",
                Some(_) => "Api",
                None => "Transport",
            },
            Error::Timeout { .. } => "Timeout",
            Error::Contended { .. } => "Conflict",
            Error::Panic(_) => "Panic",
        }
    }

    /// The API server's answer, if it gave one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Api { source, .. } => status(source),
            Error::Timeout { .. } | Error::Contended { .. } | Error::Panic(_) => None,
        }
    }
}

fn status(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}
