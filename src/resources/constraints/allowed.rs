//! Whether an entry of an allow-list admits a value.

use k8s_openapi::api::core::v1::Toleration;

/// `registry.example.com/team/`: all repositories below it. `registry.example.com/team/app`: this repository, with any
/// tag and digest. `registry.example.com/team/app:1`: this tag, with any digest.
pub(super) fn image_is_below(entry: &str, image: &str) -> bool {
    let Some(rest) = image.strip_prefix(entry) else {
        return false;
    };
    let last_part = entry.rsplit('/').next().unwrap_or_default();
    if last_part.is_empty() {
        return !rest.is_empty() && !entry.is_empty();
    }
    // A port is not a tag: `registry.example.com:5000/app` is not a tag of `registry.example.com`.
    let is_end = |starts: &[char]| rest.is_empty() || (rest.starts_with(starts) && !rest.contains('/'));
    match (last_part.contains('@'), last_part.contains(':')) {
        (true, _) => rest.is_empty(),
        (false, true) => is_end(&['@']),
        (false, false) => is_end(&[':', '@']),
    }
}

/// Whether `entry` tolerates all taints that `toleration` tolerates.
pub(super) fn covers(entry: &Toleration, toleration: &Toleration) -> bool {
    let exists = |t: &Toleration| t.operator.as_deref() == Some("Exists");
    let equals = |t: &Toleration| t.operator.as_deref().is_none_or(|o| o == "Equal");
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let any_key = text(&entry.key).is_empty() && exists(entry);
    let key = any_key || (!text(&entry.key).is_empty() && entry.key == toleration.key);
    let value = exists(entry) || (equals(entry) && equals(toleration) && text(&entry.value) == text(&toleration.value));
    let effect = text(&entry.effect).is_empty() || entry.effect == toleration.effect;
    key && value && effect
}

/// `*`: all keys without a prefix and without a dot. `example.com/*`: all keys with this prefix. `*/*`: all keys.
/// Anything else is one key.
pub(super) fn key_matches(entry: &str, key: &str) -> bool {
    match (entry, entry.strip_suffix("/*")) {
        ("*/*", _) => true,
        ("*", _) => !key.contains(['/', '.']),
        (_, Some(prefix)) => key.split_once('/').is_some_and(|(p, _)| p == prefix),
        (one, None) => one == key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_is_below_a_registry_or_repository() {
        for (entry, image, below) in [
            ("registry.example/team/", "registry.example/team/app:1", true),
            ("registry.example/team/", "registry.example/team/a/b@sha256:0", true),
            ("registry.example/team/", "registry.example/team-evil/app", false),
            ("registry.example/team/", "registry.example/team/", false),
            ("registry.example/team", "registry.example/team", true),
            ("registry.example/team", "registry.example/team:1", true),
            ("registry.example/team", "registry.example/team:1@sha256:0", true),
            ("registry.example/team", "registry.example/team-evil", false),
            ("registry.example/team", "registry.example/team/app", false),
            ("registry.example", "registry.example:5000/evil", false),
            ("registry.example/", "registry.example.evil/app", false),
            ("registry.example/", "registry.example:5000/app", false),
            ("registry.example:5000/", "registry.example:5000/app", true),
            ("python", "python:3.11", true),
            ("python", "python/evil:1", false),
            ("python", "pythonic", false),
            ("python:3.11", "python:3.11", true),
            ("python:3.11", "python:3.11@sha256:0", true),
            ("python:3.11", "python:3.11-evil", false),
            ("python:3.11", "python", false),
            ("python@sha256:0", "python@sha256:0", true),
            ("python@sha256:0", "python@sha256:01", false),
            ("registry.example/", "python", false),
            ("", "python", false),
        ] {
            assert_eq!(image_is_below(entry, image), below, "{image} of {entry}");
        }
    }

    #[test]
    fn an_entry_covers_tolerations_that_tolerate_no_more() {
        for (entry, toleration, covered) in [
            (
                json!({"key": "gpu", "operator": "Exists"}),
                json!({"key": "gpu", "operator": "Exists"}),
                true,
            ),
            (
                json!({"key": "gpu", "operator": "Exists"}),
                json!({"key": "gpu", "value": "a", "effect": "NoExecute"}),
                true,
            ),
            (
                json!({"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}),
                json!({"key": "gpu", "operator": "Exists"}),
                false,
            ),
            (
                json!({"key": "gpu", "operator": "Exists"}),
                json!({"operator": "Exists"}),
                false,
            ),
            (
                json!({"key": "gpu", "operator": "Exists"}),
                json!({"key": "gpus", "operator": "Exists"}),
                false,
            ),
            (
                json!({"key": "gpu", "value": "a"}),
                json!({"key": "gpu", "operator": "Equal", "value": "a"}),
                true,
            ),
            (
                json!({"key": "gpu", "value": "a"}),
                json!({"key": "gpu", "value": "b"}),
                false,
            ),
            (
                json!({"key": "gpu", "value": "a"}),
                json!({"key": "gpu", "operator": "Exists"}),
                false,
            ),
            (
                json!({"key": "gpu", "value": "1"}),
                json!({"key": "gpu", "operator": "Gt", "value": "1"}),
                false,
            ),
            (json!({"operator": "Exists"}), json!({"operator": "Exists"}), true),
            (json!({"operator": "Exists"}), json!({"key": "any", "value": "b"}), true),
            (json!({}), json!({"key": "any", "operator": "Exists"}), false),
        ] {
            let parse = |v: &serde_json::Value| serde_json::from_value(v.clone()).unwrap();
            assert_eq!(
                covers(&parse(&entry), &parse(&toleration)),
                covered,
                "{toleration} of {entry}"
            );
        }
    }

    #[test]
    fn a_prefix_is_matched_as_a_whole() {
        for (entry, key, matches) in [
            ("*", "team", true),
            ("*", "example.com/team", false),
            ("*", "io.kubernetes.cri-o.userns-mode", false),
            ("*", "azure.workload.identity/use", false),
            ("example.com/*", "example.com/team", true),
            ("example.com/*", "sub.example.com/team", false),
            ("example.com/*", "example.com.evil/team", false),
            ("example.com/*", "team", false),
            ("example.com/a", "example.com/a", true),
            ("example.com/a", "example.com/ab", false),
            ("*/*", "vault.hashicorp.com/agent-inject", true),
            ("*/*", "team", true),
        ] {
            assert_eq!(key_matches(entry, key), matches, "{key} of {entry}");
        }
    }
}
