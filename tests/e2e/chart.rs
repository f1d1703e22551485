//! `tests/charts/full-values.yaml`, which `hack/chart.sh` checks the chart with, sets every option.

use sandbox_operator::gateway::config::Config;
use sandbox_operator::resources::Settings;
use serde_json::Value;

fn values(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The options of `defaults` that `full` does not set, or sets to the default. Switches that are on by default may stay
/// on.
fn unchanged(defaults: &Value, full: &Value, path: &str) -> Vec<String> {
    match (defaults, full) {
        (Value::Object(defaults), Value::Object(full)) if !defaults.is_empty() => defaults
            .iter()
            .flat_map(|(key, value)| unchanged(value, full.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}")))
            .collect(),
        (Value::Bool(true), Value::Bool(true)) => vec![],
        _ if defaults == full || full.is_null() => vec![path.into()],
        _ => vec![],
    }
}

#[test]
fn full_values_set_every_option_and_the_programs_accept_them() {
    let full = values("tests/charts/full-values.yaml");
    assert_eq!(
        unchanged(&values("charts/sandbox-operator/values.yaml"), &full, ""),
        Vec::<String>::new()
    );
    let read: Result<Settings, _> = serde_json::from_value(full["sandboxes"].clone());
    assert!(read.is_ok(), "{read:?}");
    let read: Result<Config, _> = serde_json::from_value(full["gateway"]["config"].clone());
    assert_eq!(read.unwrap().check(), Ok(()));
}
