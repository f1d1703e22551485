//! The RuntimeClass of a sandbox.

use super::problems::Problems;
use super::text::quoted;
use crate::api::{FieldPath, Workload};
use crate::resources::names;

/// The runtime class by which a request asks for the node's default.
const NODE_DEFAULT: &str = "<node-default>";

/// Sets the runtime class of a request; an empty one leaves that of the template.
pub(crate) fn apply(w: &mut Workload, path: &FieldPath, runtime_class: String, problems: &mut Problems) {
    match runtime_class.as_str() {
        "" => {}
        NODE_DEFAULT => w.pod.runtime_class_name = None,
        name => {
            if !names::is_name(name) {
                let text = format!(
                    "must be the name of a RuntimeClass or {NODE_DEFAULT}; {} is neither",
                    quoted(name)
                );
                problems.invalid(path, text);
            }
            w.pod.runtime_class_name = Some(runtime_class);
        }
    }
}

/// The runtime class in effect.
pub(crate) fn effective(w: &Workload) -> String {
    w.pod.runtime_class_name.clone().unwrap_or_else(|| NODE_DEFAULT.into())
}
