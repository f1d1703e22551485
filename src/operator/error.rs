//! Why a reconcile failed. Every error is retried with backoff.

use crate::kube::{Target, timed_out};

/// A failed reconcile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A call to the API server failed, or was not answered in time.
    #[error("{verb} {kind} {name}")]
    Api {
        verb: &'static str,
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    /// Others kept changing an object that we tried to write.
    #[error("{kind} {name}: others kept changing it")]
    Contended { kind: &'static str, name: String },
    /// A bug. Contained, so that it affects one object only.
    #[error("panic in reconcile: {0}")]
    Panic(String),
}

impl Error {
    pub(super) fn api(verb: &'static str, kind: &'static str, target: Target<'_>, source: kube::Error) -> Error {
        Error::Api {
            verb,
            kind,
            name: target.name.into(),
            source: Box::new(source),
        }
    }

    /// One of a few words, for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Error::Api { source, .. } if timed_out(source) => "Timeout",
            Error::Api { .. } => match self.status() {
                Some(s) if s.is_conflict() => "Conflict",
                Some(s) if s.is_forbidden() => "Forbidden",
                Some(s) if s.is_not_found() => "NotFound",
                Some(_) => "Api",
                None => "Transport",
            },
            Error::Contended { .. } => "Conflict",
            Error::Panic(_) => "Panic",
        }
    }

    /// Whether somebody else wrote the object after we read it.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.is_conflict())
    }

    /// The API server's answer, if there was one.
    pub(crate) fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Error::Contended { .. } | Error::Panic(_) => None,
        }
    }
}
