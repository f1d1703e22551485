//! The operator's share of the requests that the API server has counted. Pure.

use std::collections::BTreeMap;

use crate::metrics::series;

/// Write requests by `resource VERB`. They are limited to resources and subresources that only the operator writes
/// while sandboxes start. (The kubelet writes the status of pods, the scheduler their binding.)
pub type Writes = BTreeMap<String, f64>;

const OPERATORS: [(&str, &str); 6] = [
    ("networkpolicies", ""),
    ("pods", ""),
    ("sandboxes", ""),
    ("sandboxes", "status"),
    ("secrets", ""),
    ("services", ""),
];
/// Without deletions: the garbage collector may still delete objects of earlier runs.
const VERBS: [&str; 4] = ["POST", "PUT", "PATCH", "APPLY"];

/// Reads `apiserver_request_total` from the API server's metrics.
pub fn writes(metrics: &str) -> Writes {
    let mut sums = Writes::new();
    for (labels, value) in series(metrics, "apiserver_request_total") {
        let (resource, subresource, verb) = (
            label(labels, "resource"),
            label(labels, "subresource"),
            label(labels, "verb"),
        );
        if OPERATORS.contains(&(resource, subresource)) && VERBS.contains(&verb) {
            let part = if subresource.is_empty() {
                resource.to_string()
            } else {
                format!("{resource}/{subresource}")
            };
            *sums.entry(format!("{part} {verb}")).or_default() += value;
        }
    }
    sums
}

/// Requests between two readings, without the benchmark's own creates.
pub fn between(before: &Writes, after: &Writes, created: usize) -> Writes {
    let mut new: Writes = after
        .iter()
        .map(|(key, value)| (key.clone(), value - before.get(key).unwrap_or(&0.0)))
        .collect();
    if let Some(own) = new.get_mut("sandboxes POST") {
        *own -= created as f64;
    }
    new.retain(|_, value| *value != 0.0);
    new
}

/// The value of a label. The values used here contain neither commas nor quotes.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let found = labels
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name);
    found.map_or("", |(_, value)| value.trim_matches('"'))
}
