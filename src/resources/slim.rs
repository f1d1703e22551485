//! Bounds what caches keep of Sandboxes and SandboxSessions. Users control their size, up to etcd's 1.5 MiB each. Code
//! that needs more than the cached part reads the object from the API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

use crate::api::{
    ANNOTATION_DISPLAY_NAME, ANNOTATION_HOLD, ANNOTATION_MAIN_NAME, ANNOTATION_REQUEST, ANNOTATION_REQUEST_METADATA,
    ANNOTATION_TEMPLATE, ANNOTATION_TEMPLATE_REVISION, PodShape, Sandbox, SandboxSession, Volume, Workload,
};

/// Objects above this weight are stripped.
const MAX_WEIGHT: usize = 24 << 10;
/// Memory that a struct, a string or a list takes in addition to its text: a rough upper estimate.
const OBJECT: usize = 256;
const ITEM: usize = 32;
/// Maximum size of an annotation that a stripped object keeps, in bytes. The gateway's own are usually smaller.
const MAX_ANNOTATION: usize = 2 << 10;
/// Maximum number of owners that a stripped object keeps.
const MAX_OWNERS: usize = 16;
/// Annotation of cached copies only: the object was stripped.
const STRIPPED: &str = "sandbox-operator.dev/stripped";
/// The annotations that a stripped object keeps.
const KEPT: [&str; 7] = [
    ANNOTATION_HOLD,
    ANNOTATION_REQUEST,
    ANNOTATION_REQUEST_METADATA,
    ANNOTATION_MAIN_NAME,
    ANNOTATION_DISPLAY_NAME,
    ANNOTATION_TEMPLATE,
    ANNOTATION_TEMPLATE_REVISION,
];

/// Approximate size of an object in memory, in bytes.
pub(crate) fn weight(object: &impl Serialize) -> usize {
    serde_json::to_value(object).as_ref().map_or(usize::MAX, weigh)
}

fn weigh(value: &Value) -> usize {
    match value {
        Value::String(text) => ITEM + text.len(),
        Value::Array(items) => ITEM + items.iter().map(weigh).sum::<usize>(),
        Value::Object(fields) => OBJECT + fields.iter().map(|(key, v)| ITEM + key.len() + weigh(v)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Whether a cached copy lacks parts of the object.
pub(crate) fn is_stripped(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.contains_key(STRIPPED))
}

/// Strips a heavy Sandbox of everything that only its pod needs. Returns the weight of the whole Sandbox.
pub(crate) fn sandbox(sandbox: &mut Sandbox) -> usize {
    let weight = limit_metadata(&mut sandbox.metadata, weight(&sandbox.spec));
    if is_stripped(&sandbox.metadata) {
        strip(&mut sandbox.spec.workload);
    }
    weight
}

/// Strips a heavy SandboxSession, as [`sandbox`] does.
pub(crate) fn session(session: &mut SandboxSession) {
    limit_metadata(&mut session.metadata, weight(&session.spec));
    if let Some(defaults) = session
        .spec
        .defaults
        .as_mut()
        .filter(|_| is_stripped(&session.metadata))
    {
        strip(defaults);
    }
}

/// `of_spec`: the weight of the object without its metadata. Returns the weight of the whole object.
fn limit_metadata(meta: &mut ObjectMeta, of_spec: usize) -> usize {
    if let Some(annotations) = meta.annotations.as_mut() {
        annotations.remove(STRIPPED);
    }
    let weight = of_spec.saturating_add(weight(meta));
    if weight > MAX_WEIGHT {
        (meta.labels, meta.finalizers) = (None, None);
        if let Some(owners) = meta.owner_references.as_mut() {
            owners.truncate(MAX_OWNERS);
        }
        let annotations = meta.annotations.get_or_insert_default();
        annotations.retain(|key, value| KEPT.contains(&key.as_str()) && value.len() <= MAX_ANNOTATION);
        annotations.insert(STRIPPED.into(), String::new());
    }
    weight
}

/// Keeps the fields that decide the state, and the claims that volumes name.
fn strip(w: &mut Workload) {
    let volumes = w.pod.volumes.take().into_iter().flatten();
    let claims: Vec<Volume> = volumes
        .filter(|v| v.persistent_volume_claim.is_some())
        .map(|v| Volume {
            name: v.name,
            persistent_volume_claim: v.persistent_volume_claim,
            ..Volume::default()
        })
        .collect();
    *w = Workload {
        container_image: w.container_image.take(),
        entrypoint: w.entrypoint,
        ports: w.ports.take(),
        lifecycle: std::mem::take(&mut w.lifecycle),
        tags: w.tags.take(),
        pod: PodShape {
            volumes: Some(claims).filter(|v| !v.is_empty()),
            ..PodShape::default()
        },
        ..Workload::default()
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(metadata: Value, spec: Value) -> Sandbox {
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn an_ordinary_sandbox_is_kept_whole() {
        let env: Vec<_> = (0..30)
            .map(|i| json!({"name": format!("VARIABLE_{i}"), "value": "x".repeat(40)}))
            .collect();
        let whole = parse(
            json!({"name": "a", "namespace": "n", "annotations": {"sandbox-operator.dev/stripped": "", "team": "a"}}),
            json!({"command": ["python3", "-c", "x".repeat(2000)], "env": env, "podAnnotations": {"a": "b"}}),
        );
        let mut cached = whole.clone();
        sandbox(&mut cached);
        assert_eq!(cached.spec, whole.spec);
        assert!(!is_stripped(&cached.metadata), "a user cannot mark it");
    }

    #[test]
    fn a_heavy_sandbox_keeps_what_decides_about_its_state() {
        let small = json!({
            "containerImage": "i", "sessionName": "s", "tags": ["t"], "maxLifetimeSeconds": 7, "ports": [{"name": "a", "port": 80}],
            "desiredState": "Stopped",
        });
        let heavy = [
            json!({"args": ["x".repeat(100_000)], "command": ["x"]}),
            json!({"env": (0..512).map(|i| json!({"name": format!("{i}")})).collect::<Vec<_>>()}),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": vec![json!({}); 200]}}}}),
            json!({"network": {"ingress": {"rules": vec![json!({"podSelector": {}, "ports": [{"port": 1}]}); 64]}}}),
            json!({"podAnnotations": {"a": "x".repeat(100_000)}}),
            json!({"sidecars": (0..16).map(|i| json!({"name": format!("s{i}"), "image": "x".repeat(1024), "workingDir": format!("/{}", "x".repeat(2000))})).collect::<Vec<_>>()}),
        ];
        for more in heavy {
            let mut spec = small.clone();
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut cached = parse(json!({"name": "a"}), spec);
            let before = sandbox(&mut cached);
            assert!(before > MAX_WEIGHT && is_stripped(&cached.metadata), "{more}");
            assert_eq!(cached.spec, parse(json!({}), small.clone()).spec);
            assert!(weight(&cached.spec) < 4 << 10);
        }
    }

    #[test]
    fn heavy_metadata_is_stripped_too() {
        let owners: Vec<_> = (0..5_000)
            .map(|i| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("{i}"), "uid": format!("{i}")}))
            .collect();
        for metadata in [
            json!({"name": "a", "ownerReferences": owners}),
            json!({"name": "a", "annotations": {"a": "x".repeat(200_000), "sandbox-operator.dev/hold": "files"}}),
            json!({"name": "a", "annotations": {"sandbox-operator.dev/hold": "x".repeat(200_000)}}),
            json!({"name": "a", "finalizers": (0..5_000).map(|i| format!("example.com/{i}")).collect::<Vec<_>>()}),
        ] {
            let mut cached = parse(metadata.clone(), json!({}));
            sandbox(&mut cached);
            assert!(is_stripped(&cached.metadata) && weight(&cached.metadata) < MAX_WEIGHT);
            let short = metadata["annotations"]["sandbox-operator.dev/hold"] == "files";
            let hold = cached.metadata.annotations.unwrap_or_default();
            assert_eq!(hold.contains_key("sandbox-operator.dev/hold"), short);
        }
    }

    #[test]
    fn the_claims_of_a_heavy_sandbox_stay_known() {
        let mut cached = parse(
            json!({"name": "a"}),
            json!({"volumes": [{"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "w", "scratch": {}}], "args": ["x".repeat(100_000)]}),
        );
        sandbox(&mut cached);
        let volumes = cached.spec.workload.pod.volumes.unwrap();
        assert_eq!(
            (
                volumes.len(),
                volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name.as_str()
            ),
            (1, "c")
        );
    }

    #[test]
    fn the_defaults_of_a_heavy_session_are_stripped() {
        let object = json!({"metadata": {"name": "s"}, "spec": {"maxSandboxes": 3, "defaults": {"maxLifetimeSeconds": 7, "args": ["x".repeat(100_000)]}}});
        let mut cached: SandboxSession = serde_json::from_value(object).unwrap();
        session(&mut cached);
        let defaults = cached.spec.defaults.unwrap();
        assert_eq!(
            (defaults.lifecycle.max_lifetime_seconds, defaults.container.args),
            (Some(7), None)
        );
        assert_eq!(
            (cached.spec.max_sandboxes, is_stripped(&cached.metadata)),
            (Some(3), true)
        );
    }
}
