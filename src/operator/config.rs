//! The configuration file.

use serde::Deserialize;

use crate::resources::Settings;
use crate::resources::probe::ProbeSettings;

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Namespaces that are watched; none named: all.
    pub watch_namespaces: Vec<String>,
    /// Reconciles at once.
    pub concurrency: Option<u16>,
    /// What shapes the sandboxes.
    pub sandboxes: Settings,
    /// The pods that check whether NetworkPolicy is enforced.
    pub probe: ProbeSettings,
}

impl Config {
    /// The probe's settings, with the operator's own image.
    pub(crate) fn probe_settings(&self) -> ProbeSettings {
        ProbeSettings {
            image: self.sandboxes.agent.image.clone(),
            image_pull_policy: self.sandboxes.agent.image_pull_policy.clone(),
            ..self.probe.clone()
        }
    }
}
