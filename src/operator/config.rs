//! The configuration file.

use serde::Deserialize;

use crate::resources::Settings;

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
}
