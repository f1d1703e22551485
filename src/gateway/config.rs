//! The gateway's configuration file.

use serde::Deserialize;

/// The gateway's configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    /// Lifetime in seconds of a sandbox whose creator names none.
    pub default_lifetime_seconds: i64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            default_lifetime_seconds: 600,
        }
    }
}
