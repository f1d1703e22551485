//! Which objects are made: the tables of cases, numbers with bounds, lists with a greatest length, names.

use serde_json::{Value, json};

use crate::server::{Expected, Kind, Server, compare};
use crate::{Case, containers, many, network, storage};

/// Fields that shape a pod; the rest of the cases on them is by topic.
#[rustfmt::skip]
fn workload() -> Vec<Case> {
    let (args, command) = ("spec.args: needs spec.command", "spec.command: cannot be given");
    vec![
        ("empty", json!({}), Ok(())),
        ("to completion", json!({"containerImage": "python:3.11", "command": ["python", "-c", "1"], "args": ["x"]}), Ok(())),
        ("args alone", json!({"args": ["x"]}), Err(args)),
        ("args with entrypoint Command", json!({"args": ["x"], "entrypoint": "Command"}), Err(args)),
        ("args with the image's entrypoint", json!({"args": ["x"], "entrypoint": "Image"}), Ok(())),
        ("command and the image's entrypoint", json!({"command": ["x"], "entrypoint": "Image"}), Err(command)),
        ("the image's entrypoint", json!({"entrypoint": "Image"}), Ok(())),
        ("no words in command", json!({"command": []}), Err("spec.command")),
        ("unknown entrypoint", json!({"entrypoint": "Shell"}), Err("spec.entrypoint: Unsupported value")),
        ("unknown pull policy", json!({"imagePullPolicy": "Sometimes"}), Err("spec.imagePullPolicy: Unsupported value")),
        ("unknown profile", json!({"securityProfile": "Privileged"}), Err("spec.securityProfile: Unsupported value")),
        ("unknown field", json!({"privileged": true}), Err("spec.privileged")),
        ("unknown field deep down", json!({"network": {"egress": {"hosts": ["a"]}}}), Err("spec.network.egress.hosts")),
        ("number as text", json!({"maxLifetimeSeconds": "60"}), Err("spec.maxLifetimeSeconds")),
        ("fraction of a second", json!({"maxLifetimeSeconds": 1.5}), Err("spec.maxLifetimeSeconds")),
        ("empty image", json!({"containerImage": ""}), Err("spec.containerImage")),
        ("relative workingDir", json!({"workingDir": "data"}), Err("spec.workingDir")),
        ("empty tag", json!({"tags": [""]}), Err("spec.tags[0]")),
        ("tag of 257", json!({"tags": ["x".repeat(257)]}), Err("spec.tags[0]")),
        ("tag of 256", json!({"tags": ["x".repeat(256)]}), Ok(())),
        ("tags of 2048 in all", json!({"tags": (0..8).map(|i| format!("{i}{}", "x".repeat(255))).collect::<Vec<_>>()}), Ok(())),
        ("tags of 2049 in all", json!({"tags": (0..9).map(|i| format!("{i}{}", "x".repeat(227))).collect::<Vec<_>>()}), Err("tags: must have at most 2048 characters")),
        ("annotation of 255 KiB", json!({"podAnnotations": {"a": "x".repeat((255 << 10) - 1)}}), Ok(())),
        ("annotations above 255 KiB", json!({"podAnnotations": {"a": "x".repeat(200 << 10), "b": "x".repeat(56 << 10)}}), Err("podAnnotations: keys and values must have at most")),
        ("affinity of 65 terms", affinity(65), Err("nodeSelectorTerms: Too many")),
        ("affinity of 64 terms", affinity(64), Ok(())),
        ("65 labels in a selector", selector(65), Err("matchLabels: Too many")),
        ("64 labels in a selector", selector(64), Ok(())),
        ("long key of a toleration", json!({"tolerations": [{"key": "x".repeat(1025)}]}), Err("spec.tolerations[0].key: Too long")),
        ("command and the image's entrypoint, with args", json!({"command": ["x"], "args": ["x"], "entrypoint": "Image"}), Err(command)),
        ("label", json!({"podLabels": {"team": "a", "example.com/kubernetes.io": "b"}}), Ok(())),
        ("label of ours", json!({"podLabels": {"sandbox-operator.dev/sandbox-uid": "x"}}), Err("podLabels: keys under sandbox-operator.dev")),
        ("label of Kubernetes", json!({"podLabels": {"kubernetes.io/x": "x"}}), Err("podLabels: keys under")),
        ("label of Kubernetes' apps", json!({"podLabels": {"a": "b", "app.kubernetes.io/managed-by": "x"}}), Err("podLabels: keys under")),
        ("label that a webhook listens to", json!({"podLabels": {"azure.workload.identity/use": "true"}}), Err("podLabels: keys must match one of *, example.com/*")),
        ("annotation", json!({"podAnnotations": {"a": "b"}}), Ok(())),
        ("annotation that a webhook listens to", json!({"podAnnotations": {"vault.hashicorp.com/agent-inject": "true"}}), Err("podAnnotations: keys must match one of *")),
        ("annotation that unconfines", json!({"podAnnotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}}), Err("podAnnotations: keys under")),
        ("annotation of an autoscaler", json!({"podAnnotations": {"karpenter.sh/do-not-disrupt": "false"}}), Err("podAnnotations: keys under")),
    ]
}

fn affinity(terms: usize) -> Value {
    let term = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": vec![term; terms]}}}})
}

fn selector(labels: usize) -> Value {
    let labels: serde_json::Map<String, Value> = (0..labels).map(|i| (format!("l{i}"), json!("v"))).collect();
    json!({"network": {"egress": {"mode": "Rules", "rules": [{"podSelector": {"matchLabels": labels}}]}}})
}

/// What only a sandbox has.
#[rustfmt::skip]
fn sandboxes() -> Vec<Case> {
    vec![
        ("unknown state", json!({"desiredState": "Paused"}), Err("spec.desiredState: Unsupported value")),
        ("born stopped", json!({"desiredState": "Stopped", "stopGracePeriodSeconds": 0}), Ok(())),
        ("session name", json!({"sessionName": "team-1"}), Ok(())),
        ("session name in capitals", json!({"sessionName": "Team"}), Err("spec.sessionName")),
        ("session name of 64", json!({"sessionName": "s".repeat(64)}), Err("spec.sessionName")),
        ("its session's volumes", json!({"sessionName": "s", "sidecars": [mounting("data")]}), Ok(())),
        (
            "not its own volumes",
            json!({"sessionName": "s", "volumes": [], "sidecars": [mounting("data")]}),
            Err("spec.sidecars[].mounts[].name: must be the name"),
        ),
        ("no volumes", json!({"sidecars": [mounting("data")]}), Err("spec.sidecars[].mounts[].name: must be the name")),
        ("its session's volumes in the main container", json!({"sessionName": "s", "mounts": [mount("data")]}), Ok(())),
        ("no volumes in the main container", json!({"mounts": [mount("data")]}), Err("spec.mounts[].name: must be the name")),
    ]
}

/// What only a session has.
#[rustfmt::skip]
fn sessions() -> Vec<Case> {
    vec![
        ("empty session", json!({}), Ok(())),
        ("session defaults", json!({"defaults": {"containerImage": "busybox", "tags": ["a"]}, "maxSandboxes": 5}), Ok(())),
        ("closed session", json!({"desiredState": "Closed"}), Ok(())),
        ("unknown state of a session", json!({"desiredState": "Stopped"}), Err("spec.desiredState: Unsupported value")),
        ("session in defaults", json!({"defaults": {"sessionName": "x"}}), Err("spec.defaults.sessionName")),
        ("state in defaults", json!({"defaults": {"desiredState": "Stopped"}}), Err("spec.defaults.desiredState")),
        ("a sandbox's volumes", json!({"defaults": {"mounts": [mount("data")], "sidecars": [mounting("data")]}}), Ok(())),
    ]
}

/// What only a template has, and has not.
#[rustfmt::skip]
fn templates() -> Vec<Case> {
    vec![
        ("template", json!({"containerImage": "busybox", "files": [{"path": "a", "content": "x"}], "maxLifetimeSeconds": 5}), Ok(())),
        ("state in a template", json!({"desiredState": "Stopped"}), Err("spec.desiredState")),
        ("grace in a template", json!({"stopGracePeriodSeconds": 1}), Err("spec.stopGracePeriodSeconds")),
        ("session in a template", json!({"sessionName": "s"}), Err("spec.sessionName")),
        ("volumes of a sandbox from the template", json!({"mounts": [mount("data")], "sidecars": [mounting("data")]}), Ok(())),
        ("not a template's own volumes", json!({"volumes": [], "mounts": [mount("data")]}), Err("spec.mounts[].name: must be the name")),
        ("no spec", json!(null), Err("spec")),
    ]
}

fn mount(volume: &str) -> Value {
    json!({"name": volume, "mountPath": "/a"})
}

fn mounting(volume: &str) -> Value {
    json!({"name": "proxy", "image": "busybox", "mounts": [mount(volume)]})
}

/// Numbers that shape the pod: field, lowest, highest.
const BOUNDS: [(&str, i64, i64); 6] = [
    ("maxLifetimeSeconds", 1, 2_592_000),
    ("startTimeoutSeconds", 1, 86_400),
    ("terminationGracePeriodSeconds", 0, 3_600),
    ("ttlSecondsAfterFinished", 0, 2_592_000),
    ("runAsUser", 0, 4_294_967_294),
    ("runAsGroup", 0, 4_294_967_294),
];

/// Other numbers.
const OWN_BOUNDS: [(Kind, &str, i64, i64); 3] = [
    (Kind::Sandbox, "stopGracePeriodSeconds", 0, 3_600),
    (Kind::Session, "maxLifetimeSeconds", 1, 2_592_000),
    (Kind::Session, "maxSandboxes", 1, 100_000),
];

/// Lists with a greatest length: field, greatest length, and the item of an index.
type Counted = (&'static str, usize, fn(usize) -> Value);
const COUNTS: [Counted; 9] = [
    ("command", 256, |_| json!("true")),
    ("env", 512, |i| json!({"name": format!("A{i}"), "value": "x"})),
    ("envFrom", 32, |i| json!({"secretRef": {"name": format!("s{i}")}})),
    ("files", 128, |i| json!({"path": format!("/f/{i}"), "content": ""})),
    (
        "volumes",
        32,
        |i| json!({"name": format!("v{i}"), "mountPath": format!("/v/{i}"), "scratch": {}}),
    ),
    ("ports", 32, |i| json!({"name": format!("p{i}"), "port": 1000 + i})),
    ("sidecars", 16, |i| json!({"name": format!("s{i}"), "image": "busybox"})),
    ("tags", 64, |i| json!(format!("t{i}"))),
    ("imagePullSecrets", 16, |i| json!({"name": format!("s{i}")})),
];

/// Names that are accepted and refused.
#[rustfmt::skip]
fn names() -> Vec<(Kind, String, Expected<'static>)> {
    let (long, longer) = ("a".repeat(63), "a".repeat(64));
    vec![
        (Kind::Sandbox, "a".into(), Ok(())),
        (Kind::Sandbox, "train-7".into(), Ok(())),
        (Kind::Sandbox, long.clone(), Ok(())),
        (Kind::Sandbox, longer.clone(), Err("metadata.name: must be a DNS label")),
        (Kind::Sandbox, "7train".into(), Err("metadata.name: must be a DNS label")),
        (Kind::Sandbox, "a.b".into(), Err("metadata.name: must be a DNS label")),
        (Kind::Sandbox, "Train".into(), Err("metadata.name")),
        (Kind::Sandbox, "train-".into(), Err("metadata.name")),
        (Kind::Session, long, Ok(())),
        (Kind::Session, "7team".into(), Ok(())),
        (Kind::Session, longer, Err("metadata.name: must be a DNS label")),
        (Kind::Session, "a.b".into(), Err("metadata.name: must be a DNS label")),
    ]
}

/// The lowest and the highest number are accepted, those beside them refused.
fn around(low: i64, high: i64, refused: &str) -> [(i64, Expected<'_>); 4] {
    [
        (low, Ok(())),
        (high, Ok(())),
        (low - 1, Err(refused)),
        (high + 1, Err(refused)),
    ]
}

/// What is wrong with the answers to a sandbox, to a template, and to a session with such defaults: the same holds for
/// all.
async fn try_shape(server: &Server, name: &str, spec: &Value, expected: Expected<'_>) -> Vec<String> {
    let sandbox = server.try_spec(Kind::Sandbox, name, spec, expected).await;
    let template = server
        .try_spec(Kind::Template, &format!("template {name}"), spec, expected)
        .await;
    let part = expected.err().unwrap_or_default().replace("spec.", "spec.defaults.");
    let expected = expected.map_err(|_| part.as_str());
    let session = json!({"defaults": spec});
    let session = server
        .try_spec(Kind::Session, &format!("default {name}"), &session, expected)
        .await;
    sandbox.into_iter().chain(template).chain(session).collect()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_shapes_a_pod_is_accepted_and_refused() {
    let server = Server::new("shape").await;
    let mut wrong = vec![];
    for (name, spec, expected) in [workload(), containers::cases(), storage::cases(), network::cases()].concat() {
        wrong.extend(try_shape(&server, name, &spec, expected).await);
    }
    for (field, low, high) in BOUNDS {
        for (number, expected) in around(low, high, &format!("spec.{field}: Invalid value")) {
            wrong.extend(try_shape(&server, &format!("{field} {number}"), &json!({field: number}), expected).await);
        }
    }
    for (field, most, item) in COUNTS {
        let (all, more) = (json!({field: many(most, item)}), json!({field: many(most + 1, item)}));
        wrong.extend(try_shape(&server, &format!("{most} {field}"), &all, Ok(())).await);
        wrong.extend(
            try_shape(
                &server,
                &format!("too many {field}"),
                &more,
                Err(&format!("spec.{field}: Too many")),
            )
            .await,
        );
    }
    server.gone().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_only_one_kind_has_is_accepted_and_refused() {
    let server = Server::new("own").await;
    let mut wrong = vec![];
    for (kind, cases) in [
        (Kind::Sandbox, sandboxes()),
        (Kind::Session, sessions()),
        (Kind::Template, templates()),
    ] {
        for (name, spec, expected) in cases {
            wrong.extend(server.try_spec(kind, name, &spec, expected).await);
        }
    }
    for (kind, field, low, high) in OWN_BOUNDS {
        for (number, expected) in around(low, high, &format!("spec.{field}: Invalid value")) {
            let name = format!("{field} {number}");
            wrong.extend(server.try_spec(kind, &name, &json!({field: number}), expected).await);
        }
    }
    for (kind, name, expected) in names() {
        let got = server
            .create(kind, &kind.object(json!({"name": name}), json!({})), true)
            .await;
        wrong.extend(compare(&name, &got, expected));
    }
    server.gone().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn defaults_are_filled_in_and_a_status_from_a_user_is_dropped() {
    let server = Server::new("defaults").await;
    let mut object = Kind::Sandbox.object(
        json!({"name": "full"}),
        json!({"network": {"egress": {}}, "nodeSelector": {"never": "matches"}}),
    );
    object["status"] = json!({"state": "COMPLETED", "podName": "x"});
    let full = server.create(Kind::Sandbox, &object, false).await.unwrap();
    let [sandbox, session] = [Kind::Sandbox, Kind::Session].map(|kind| {
        let mut object = kind.object(json!({"name": "bare"}), json!(null));
        object.as_object_mut().unwrap().remove("spec");
        (kind, object)
    });
    let sandbox = server.create(sandbox.0, &sandbox.1, true).await.unwrap();
    let session = server.create(session.0, &session.1, true).await.unwrap();
    server.gone().await;
    assert_eq!(full["spec"]["network"], json!({"egress": {"mode": "Internet"}}));
    assert_eq!(
        (&full["spec"]["desiredState"], &full["status"]),
        (&json!("Running"), &json!({"state": "PENDING"}))
    );
    assert_eq!(
        (&sandbox["spec"], &session["spec"]),
        (&json!({"desiredState": "Running"}), &json!({"desiredState": "Open"}))
    );
}
