//! The definitions are the manual: `kubectl explain` says of every field what it is.

use sandbox_operator::api::crds;
use serde_json::Value;
use std::process::Command;

/// Resource, and the schema of its objects.
fn schemas() -> Vec<(String, Value)> {
    let schema = |crd: &Value| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    let all = crds::all().into_iter();
    all.map(|(_, crd)| (crd["metadata"]["name"].as_str().unwrap().to_owned(), schema(&crd)))
        .collect()
}

/// Every field below a schema, with its path.
fn fields(path: &str, schema: &Value) -> Vec<(String, Value)> {
    let own = schema["properties"].as_object().into_iter().flatten();
    let own = own.flat_map(|(name, field)| {
        let path = format!("{path}.{name}");
        let below = fields(&path, field);
        std::iter::once((path, field.clone())).chain(below)
    });
    let items = [&schema["items"], &schema["additionalProperties"]];
    let items = items.into_iter().filter(|item| item.is_object());
    own.chain(items.flat_map(|item| fields(path, item))).collect()
}

#[test]
fn every_field_is_described_and_so_is_every_choice() {
    for (resource, schema) in schemas() {
        let fields = fields(&resource, &schema);
        assert!(fields.len() > 20, "{resource}: {}", fields.len());
        for (path, field) in fields {
            let text = field["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{path}: {text:?}");
            for choice in field["enum"].as_array().into_iter().flatten() {
                assert!(
                    text.contains(choice.as_str().unwrap()),
                    "{path} does not explain {choice}: {text:?}"
                );
            }
        }
    }
}

/// Every field of a spec is stored in etcd, and for some time in memory.
#[test]
fn every_string_list_and_map_of_a_spec_is_bounded() {
    for (resource, schema) in schemas() {
        let spec = &schema["properties"]["spec"];
        for (path, field) in fields(&resource, spec) {
            let bounds: &[&str] = match field["type"].as_str() {
                Some("string") => &["maxLength", "enum", "format"],
                Some("array") => &["maxItems"],
                Some("object") if field["additionalProperties"].is_object() => &["maxProperties"],
                _ => continue,
            };
            assert!(
                bounds.iter().any(|bound| field.get(*bound).is_some()),
                "{path} has none of {bounds:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs a cluster"]
fn kubectl_explains_every_field() {
    for (resource, schema) in schemas() {
        let parts = ["spec", "status"].into_iter();
        for part in parts.filter(|part| schema["properties"][*part].is_object()) {
            let run = Command::new("kubectl")
                .args(["explain", "--recursive", &format!("{resource}.{part}")])
                .output()
                .unwrap();
            let text = String::from_utf8(run.stdout).unwrap();
            assert!(
                run.status.success(),
                "{resource}: {}",
                String::from_utf8_lossy(&run.stderr)
            );
            let listed: Vec<_> = text.lines().filter_map(|line| line.trim().split('\t').next()).collect();
            for (path, _) in fields(part, &schema["properties"][part]) {
                let name = path.rsplit('.').next().unwrap();
                assert!(listed.contains(&name), "{resource} {path} is not in:\n{text}");
            }
        }
    }
}
