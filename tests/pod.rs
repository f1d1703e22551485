//! The pod of a sandbox, in full: `tests/snapshots`. Made anew by `INSTA_UPDATE=always cargo test --test pod`.
#![allow(clippy::unwrap_used)]
#![recursion_limit = "256"]

use k8s_openapi::api::core::v1::Pod;
use sandbox_operator::api::{ANNOTATION_AGENT_KEY, Sandbox, Sidecar, Workload};
use sandbox_operator::resources::pod::{AgentDelivery, build};
use sandbox_operator::resources::{AgentInjection, AgentKey, Effective, Settings, names};
use serde_json::{Value, json};

fn pod(spec: &Value, agent: AgentDelivery) -> Pod {
    let object = json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox",
        "metadata": {"name": "train", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"},
        "spec": spec,
    });
    let sandbox: Sandbox = serde_json::from_value(object).unwrap();
    let settings = Settings::default();
    let agent = AgentInjection {
        by: agent,
        key: AgentKey {
            id: "k001790000000".into(),
            public_key: "cHVibGljIGtleQ==".into(),
        },
    };
    let mut pod = build(&sandbox, &Effective::new(&sandbox, None, &settings), &settings, &agent).unwrap();
    names::set_policy_owner(&mut pod.metadata, "5678ef00-0000-0000-0000-000000000000");
    pod
}

/// Every field of a sandbox that is about its pod.
fn full() -> Value {
    json!({
        "containerImage": "registry.example.com/train:1", "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "registry"}],
        "entrypoint": "Command", "command": ["python3", "train.py"], "args": ["--fast"], "workingDir": "/work",
        "env": [{"name": "A", "value": "1"}, {"name": "CW_SANDBOX_ID", "value": "forged"}], "envFrom": [{"secretRef": {"name": "keys"}}],
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}},
        "runtimeClassName": "gvisor", "nodeSelector": {"pool": "gpu"}, "priorityClassName": "low", "serviceAccountName": "runner",
        "tolerations": [{"key": "gpu", "operator": "Exists"}, {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}},
        "securityProfile": "Restricted", "runAsUser": 1000, "runAsGroup": 1000, "readOnlyRootFilesystem": true, "hostUsers": true,
        "files": [{"path": "/work/train.py", "content": "print(1)", "mode": 493}, {"path": "/etc/token", "secretKeyRef": {"name": "t", "key": "k"}},
            {"path": "conf/a.json", "content": "{}", "mode": 384}],
        "volumes": [
            {"name": "scratch", "mountPath": "/scratch", "scratch": {"size": "1Gi", "medium": "Memory"}},
            {"name": "data", "mountPath": "/data", "subPath": "a", "readOnly": true, "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "cache", "scratch": {}},
        ],
        "mounts": [{"name": "cache", "mountPath": "/cache", "subPath": "m", "readOnly": true}, {"name": "data", "mountPath": "/more"}],
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        "network": {"dns": "None"},
        "sidecars": [{
            "name": "proxy", "image": "proxy:1", "command": ["proxy"], "args": ["-v"], "workingDir": "/srv",
            "env": [{"name": "B", "value": "2"}], "envFrom": [{"configMapRef": {"name": "proxy"}}], "resources": {"limits": {"cpu": "500m"}},
            "securityProfile": "Baseline", "runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true,
            "files": [{"path": "/etc/proxy.conf", "configMapKeyRef": {"name": "c", "key": "k"}}, {"path": "b.txt", "contentBase64": "eA=="}],
            "mounts": [{"name": "data", "mountPath": "/d", "subPath": "b", "readOnly": true}, {"name": "cache", "mountPath": "/c"}],
        }],
        "podAnnotations": {"example.com/a": "1", "karpenter.sh/do-not-disrupt": "false"}, "podLabels": {"team": "a"},
        "maxLifetimeSeconds": 3600, "terminationGracePeriodSeconds": 30,
        "tags": ["a"], "startTimeoutSeconds": 60, "ttlSecondsAfterFinished": 60,
    })
}

#[test]
fn full_is_every_field() {
    let missing = |schema: schemars::Schema, full: &Value| -> Vec<String> {
        let fields = schema.get("properties").unwrap().as_object().unwrap().keys();
        fields.filter(|field| full[*field].is_null()).cloned().collect()
    };
    let (full, none): (Value, Vec<String>) = (full(), vec![]);
    assert_eq!(missing(schemars::schema_for!(Workload), &full), none);
    assert_eq!(missing(schemars::schema_for!(Sidecar), &full["sidecars"][0]), none);
}

#[test]
fn the_default_pod() {
    insta::assert_yaml_snapshot!("default", pod(&json!({}), AgentDelivery::ImageVolume));
}

#[test]
fn the_full_pod() {
    insta::assert_yaml_snapshot!("full", pod(&full(), AgentDelivery::ImageVolume));
}

#[test]
fn where_nodes_cannot_mount_images_the_agent_is_copied() {
    let (mounted, copied) = (pod(&json!({}), AgentDelivery::ImageVolume), pod(&json!({}), AgentDelivery::InitContainer));
    let (mounted, copied) = (mounted.spec.unwrap(), copied.spec.unwrap());
    insta::assert_yaml_snapshot!(
        "agent-copied",
        json!({"initContainers": copied.init_containers, "volume": copied.volumes.unwrap()[0]})
    );
    assert_eq!(
        (mounted.init_containers, mounted.containers),
        (None, copied.containers),
        "the rest is the same"
    );
}

#[test]
fn the_images_own_entrypoint_runs_without_the_agent_which_is_there_to_be_started_for_calls() {
    let pod = pod(&json!({"entrypoint": "Image", "args": ["serve"]}), AgentDelivery::ImageVolume);
    let spec = pod.spec.unwrap();
    let (main, agent) = (&spec.containers[0], "sandbox-operator-agent");
    assert_eq!((&main.command, main.args.as_deref()), (&None, Some(&["serve".to_owned()][..])));
    assert!(main.volume_mounts.iter().flatten().any(|m| m.name == agent && m.read_only == Some(true)));
    assert!(!pod.metadata.annotations.unwrap().contains_key(ANNOTATION_AGENT_KEY), "nobody listens");
}

#[test]
fn shared_memory_of_the_users_own_takes_the_place_of_ours_in_that_container_only() {
    let at = |path: &str| json!({"name": "data", "mountPath": path});
    let sidecar = json!({"name": "helper", "image": "b:1", "mounts": [at("/dev/shm")]});
    let spec = json!({"volumes": [{"name": "data", "mountPath": "/data"}], "sidecars": [sidecar]});
    let spec = pod(&spec, AgentDelivery::ImageVolume).spec.unwrap();
    let shared = |c: &k8s_openapi::api::core::v1::Container| {
        let mounts = c.volume_mounts.iter().flatten().filter(|m| m.mount_path == "/dev/shm");
        mounts.map(|m| m.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shared(&spec.containers[0]), ["sandbox-operator-shm"]);
    assert_eq!(shared(&spec.init_containers.unwrap()[0]), ["data"]);
}
