//! The result of the check, as a reconcile sees it: plain data.

use std::sync::Arc;

use crate::api::reason;
use crate::network_check::Enforcement;
use crate::resources::settings::EnforcementMode;

/// The configured mode, and the current result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetworkView {
    pub mode: EnforcementMode,
    /// The result, and what it means. None before the first check.
    pub known: Option<(Enforcement, Arc<str>)>,
}

impl NetworkView {
    pub(crate) fn new(mode: EnforcementMode) -> NetworkView {
        NetworkView { mode, known: None }
    }

    /// Why no pod may be created; `None` if one may.
    pub(crate) fn hold(&self) -> Option<String> {
        match (self.mode, &self.known) {
            (EnforcementMode::Warn | EnforcementMode::Ignore, _) | (_, Some((Enforcement::Enforced, _))) => None,
            (EnforcementMode::Require, None) => Some(
                "The operator is checking whether the cluster enforces NetworkPolicy, as sandboxes.network.enforcement: \
                 Require demands"
                    .into(),
            ),
            (EnforcementMode::Require, Some((_, message))) => Some(format!(
                "{message}. No sandbox starts before it is enforced, because the operator has \
                 sandboxes.network.enforcement: Require"
            )),
        }
    }

    /// Status, reason and message of the condition `NetworkEnforced`.
    pub(crate) fn condition(&self) -> Option<(&'static str, &'static str, &str)> {
        let (result, message) = self.known.as_ref()?;
        let message: &str = message;
        let (status, why) = match result {
            Enforcement::Enforced => ("True", reason::NETWORK_ENFORCED),
            Enforcement::NotEnforced => ("False", reason::NETWORK_NOT_ENFORCED),
            Enforcement::Unknown => ("Unknown", reason::NETWORK_ENFORCEMENT_UNKNOWN),
        };
        Some((status, why, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Enforcement::{Enforced, NotEnforced, Unknown};
    use EnforcementMode::{Ignore, Require, Warn};

    #[test]
    fn only_require_holds_sandboxes_and_only_until_enforcement_is_proven() {
        for (mode, known, held) in [
            (Require, None, Some("is checking")),
            (Require, Some(Unknown), Some("found. No sandbox starts")),
            (Require, Some(NotEnforced), Some("found. No sandbox starts")),
            (Require, Some(Enforced), None),
            (Warn, None, None),
            (Warn, Some(Unknown), None),
            (Warn, Some(NotEnforced), None),
            (Ignore, None, None),
        ] {
            let view = NetworkView {
                mode,
                known: known.map(|result| (result, "found".into())),
            };
            match (view.hold(), held) {
                (Some(message), Some(part)) => assert!(message.contains(part), "{mode:?} {known:?}: {message}"),
                (message, _) => assert_eq!(message.as_deref(), held, "{mode:?} {known:?}"),
            }
        }
    }
}
