//! What a conversion needs besides the request.

use std::collections::BTreeMap;

use super::volumes::RegisteredVolume;
use crate::api::FieldPath;
use crate::api::Workload;
use crate::gateway::config::Config;
use crate::gateway::convert::runners::RunnerSet;

/// What a conversion needs besides the request.
pub(crate) struct ConvertContext<'a> {
    pub(crate) config: &'a Config,
    pub(crate) runners: &'a RunnerSet,
    /// The registered volumes that the request names, by id.
    pub(crate) volumes: &'a BTreeMap<String, RegisteredVolume>,
    /// The template that the request names. A field that the request leaves out comes from it.
    pub(crate) template: Option<&'a Workload>,
}

impl ConvertContext<'_> {
    /// Where the spec is in the request.
    pub(crate) fn spec_path(&self) -> FieldPath {
        match self.template {
            None => FieldPath::root("sandbox").field("spec"),
            Some(_) => FieldPath::root("overrides"),
        }
    }
}
