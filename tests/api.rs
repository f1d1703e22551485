//! What the API server accepts and refuses, by the generated definitions: a table of objects and one of updates. Needs a cluster. Nothing
//! but the definitions, if there are none, and a few objects in a namespace of its own is written; all else is a dry run.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Client};
use sandbox_operator::api::crds;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Kind, name of the case, spec, and what the message of a refusal has in it.
type Case = (Kind, &'static str, Value, Result<(), &'static str>);
/// Name of the case, what is there, the change as a merge patch of the spec, and what the message of a refusal has in it.
type Update = (&'static str, &'static str, Value, Result<(), &'static str>);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Sandbox,
    Session,
    Template,
}

use Kind::{Sandbox, Session, Template};

impl Kind {
    fn word(self) -> (&'static str, &'static str) {
        match self {
            Sandbox => ("Sandbox", "sandboxes"),
            Session => ("SandboxSession", "sandboxsessions"),
            Template => ("SandboxTemplate", "sandboxtemplates"),
        }
    }

    fn object(self, metadata: Value, spec: Value) -> Value {
        json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": self.word().0, "metadata": metadata, "spec": spec})
    }
}

struct Server {
    client: Client,
    namespace: String,
}

impl Server {
    async fn new(name: &str) -> Server {
        definitions().await;
        let client = Client::try_default().await.unwrap();
        let namespace = format!("api-test-{name}-{}", std::process::id());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        Server { client, namespace }
    }

    async fn gone(self) {
        let namespaces = Api::<Namespace>::all(self.client);
        namespaces.delete(&self.namespace, &DeleteParams::background()).await.unwrap();
    }

    fn url(&self, kind: Kind) -> Request {
        Request::new(format!(
            "/apis/sandbox-operator.dev/v1alpha1/namespaces/{}/{}",
            self.namespace,
            kind.word().1
        ))
    }

    /// Creates under strict field validation: an unknown field is an error, as with `kubectl`.
    async fn create(&self, kind: Kind, object: &Value, dry_run: bool) -> Result<Value, String> {
        let params = PostParams {
            dry_run,
            field_manager: Some("api-test".into()),
        };
        let mut request = self.url(kind).create(&params, object.to_string().into_bytes()).unwrap();
        *request.uri_mut() = format!("{}&fieldValidation=Strict", request.uri()).parse().unwrap();
        self.client.request(request).await.map_err(message)
    }

    async fn patch(&self, kind: Kind, name: &str, change: &Value) -> Result<Value, String> {
        let params = PatchParams {
            dry_run: true,
            field_manager: Some("api-test".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": change}));
        let request = self.url(kind).patch(name, &params, &patch).unwrap();
        self.client.request(request).await.map_err(message)
    }
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => panic!("{other}"),
    }
}

/// What does not hold, in a line; nothing if the answer is the expected one. A refusal is one by validation, not by accident.
fn compare(name: &str, got: &Result<Value, String>, expected: Result<(), &str>) -> Option<String> {
    match (got, expected) {
        (Ok(_), Ok(())) => None,
        (Err(text), Err(part)) if text.contains(part) && (text.starts_with("422 ") || text.starts_with("400 ")) => None,
        (Ok(_), Err(part)) => Some(format!("{name}: accepted, expected: {part}")),
        (Err(text), expected) => Some(format!("{name}: refused with {text:?}, expected: {expected:?}")),
    }
}

fn many<T: serde::Serialize>(count: usize, item: impl Fn(usize) -> T) -> Value {
    json!((0..count).map(item).collect::<Vec<_>>())
}

fn egress(rule: Value) -> Value {
    json!({"network": {"egress": {"mode": "Rules", "rules": [rule]}}})
}

fn ingress(rule: Value) -> Value {
    json!({"network": {"ingress": {"rules": [rule]}}})
}

fn file(file: Value) -> Value {
    json!({"files": [file]})
}

fn volume(volume: Value) -> Value {
    json!({"volumes": [volume]})
}

fn at(path: &str) -> Value {
    volume(json!({"name": "data", "mountPath": path, "scratch": {}}))
}

fn sidecar(name: &str) -> Value {
    json!({"sidecars": [{"name": name, "image": "busybox"}]})
}

fn port(name: &str, port: i64) -> Value {
    json!({"ports": [{"name": name, "port": port}]})
}

/// Numbers with bounds: field, lowest, highest.
const BOUNDS: [(Kind, &str, i64, i64); 10] = [
    (Sandbox, "maxLifetimeSeconds", 1, 2_592_000),
    (Sandbox, "startTimeoutSeconds", 1, 86_400),
    (Sandbox, "terminationGracePeriodSeconds", 0, 3_600),
    (Sandbox, "stopGracePeriodSeconds", 0, 3_600),
    (Sandbox, "ttlSecondsAfterFinished", 0, 2_592_000),
    (Sandbox, "runAsUser", 0, 4_294_967_294),
    (Sandbox, "runAsGroup", 0, 4_294_967_294),
    (Session, "maxLifetimeSeconds", 1, 2_592_000),
    (Session, "maxSandboxes", 1, 100_000),
    (Session, "defaults.maxLifetimeSeconds", 1, 2_592_000),
];

/// Lists with a greatest length: field, greatest length, and the item of an index.
type Counted = (&'static str, usize, fn(usize) -> Value);
const COUNTS: [Counted; 8] = [
    ("command", 256, |_| json!("true")),
    ("env", 512, |i| json!({"name": format!("A{i}"), "value": "x"})),
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

#[rustfmt::skip]
fn workload() -> Vec<Case> {
    let args = "spec.args: needs spec.command";
    vec![
        (Sandbox, "empty", json!({}), Ok(())),
        (Sandbox, "to completion", json!({"containerImage": "python:3.11", "command": ["python", "-c", "1"], "args": ["x"]}), Ok(())),
        (Sandbox, "args alone", json!({"args": ["x"]}), Err(args)),
        (Sandbox, "args with entrypoint Command", json!({"args": ["x"], "entrypoint": "Command"}), Err(args)),
        (Sandbox, "args with the image's entrypoint", json!({"args": ["x"], "entrypoint": "Image"}), Ok(())),
        (Sandbox, "command and the image's entrypoint", json!({"command": ["x"], "entrypoint": "Image"}), Err("spec.command: cannot be given")),
        (Sandbox, "the image's entrypoint", json!({"entrypoint": "Image"}), Ok(())),
        (Sandbox, "no words in command", json!({"command": []}), Err("spec.command")),
        (Sandbox, "unknown entrypoint", json!({"entrypoint": "Shell"}), Err("spec.entrypoint: Unsupported value")),
        (Sandbox, "unknown pull policy", json!({"imagePullPolicy": "Sometimes"}), Err("spec.imagePullPolicy: Unsupported value")),
        (Sandbox, "unknown profile", json!({"securityProfile": "Privileged"}), Err("spec.securityProfile: Unsupported value")),
        (Sandbox, "unknown state", json!({"desiredState": "Paused"}), Err("spec.desiredState: Unsupported value")),
        (Sandbox, "born stopped", json!({"desiredState": "Stopped", "stopGracePeriodSeconds": 0}), Ok(())),
        (Sandbox, "unknown field", json!({"privileged": true}), Err("spec.privileged")),
        (Sandbox, "unknown field deep down", json!({"network": {"egress": {"hosts": ["a"]}}}), Err("spec.network.egress.hosts")),
        (Sandbox, "number as text", json!({"maxLifetimeSeconds": "60"}), Err("spec.maxLifetimeSeconds")),
        (Sandbox, "fraction of a second", json!({"maxLifetimeSeconds": 1.5}), Err("spec.maxLifetimeSeconds")),
        (Sandbox, "empty image", json!({"containerImage": ""}), Err("spec.containerImage")),
        (Sandbox, "relative workingDir", json!({"workingDir": "data"}), Err("spec.workingDir")),
        (Sandbox, "session name", json!({"sessionName": "team-1"}), Ok(())),
        (Sandbox, "session name in capitals", json!({"sessionName": "Team"}), Err("spec.sessionName")),
        (Sandbox, "session name of 64", json!({"sessionName": "s".repeat(64)}), Err("spec.sessionName")),
        (Sandbox, "empty tag", json!({"tags": [""]}), Err("spec.tags[0]")),
        (Sandbox, "tag of 257", json!({"tags": ["x".repeat(257)]}), Err("spec.tags[0]")),
        (Sandbox, "tag of 256", json!({"tags": ["x".repeat(256)]}), Ok(())),
        (Sandbox, "env without a name", json!({"env": [{"value": "x"}]}), Err("spec.env[0].name")),
        (Sandbox, "env of a Secret", json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}), Ok(())),
        (Sandbox, "resources", json!({"resources": {"requests": {"cpu": "100m"}, "limits": {"nvidia.com/gpu": 1}}}), Ok(())),
        (Sandbox, "port", port("http", 8080), Ok(())),
        (Sandbox, "port 0", port("http", 0), Err("spec.ports[0].port")),
        (Sandbox, "port 1", port("http", 1), Ok(())),
        (Sandbox, "port 65535", port("http", 65_535), Ok(())),
        (Sandbox, "port 65536", port("http", 65_536), Err("spec.ports[0].port")),
        (Sandbox, "port name without a letter", port("80", 80), Err("spec.ports[0].name")),
        (Sandbox, "port name of 16", port("abcdefghijklmnop", 80), Err("spec.ports[0].name")),
        (Sandbox, "port name with two dashes", port("a--b", 80), Err("spec.ports[0].name")),
        (Sandbox, "port without a name", json!({"ports": [{"port": 80}]}), Err("spec.ports[0].name")),
        (Sandbox, "two ports of a name", json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}), Err("spec.ports[1]: Duplicate")),
        (Sandbox, "unknown protocol", json!({"ports": [{"name": "a", "port": 1, "protocol": "tcp"}]}), Err("spec.ports[0].protocol")),
        (Sandbox, "sidecar", sidecar("proxy"), Ok(())),
        (Sandbox, "sidecar named main", sidecar("main"), Err("sidecars[].name: main")),
        (Sandbox, "sidecar with our name", sidecar("sandbox-operator-agent"), Err("sidecars[].name: main")),
        (Sandbox, "sidecar in capitals", sidecar("Proxy"), Err("spec.sidecars[0].name")),
        (Sandbox, "sidecar without an image", json!({"sidecars": [{"name": "a"}]}), Err("spec.sidecars[0].image")),
        (
            Sandbox,
            "sidecar with all",
            json!({"sidecars": [{"name": "a", "image": "b", "command": ["c"], "workingDir": "/w", "envFrom": [{"secretRef": {"name": "s"}}],
                "securityProfile": "Restricted", "runAsUser": 1, "runAsGroup": 1, "readOnlyRootFilesystem": true,
                "files": [{"path": "a", "content": "x"}], "mounts": [{"name": "v", "mountPath": "/v"}]}]}),
            Ok(()),
        ),
        (
            Sandbox,
            "sidecar with a relative file and no command",
            json!({"sidecars": [{"name": "a", "image": "b", "files": [{"path": "a", "content": "x"}]}]}),
            Err("sidecars[].files[].path: a relative path needs"),
        ),
        (
            Sandbox,
            "two sidecars of a name",
            json!({"sidecars": [{"name": "a", "image": "b"}, {"name": "a", "image": "c"}]}),
            Err("spec.sidecars[1]: Duplicate"),
        ),
        (Session, "empty session", json!({}), Ok(())),
        (Session, "session defaults", json!({"defaults": {"containerImage": "busybox", "tags": ["a"]}, "maxSandboxes": 5}), Ok(())),
        (Session, "closed session", json!({"desiredState": "Closed"}), Ok(())),
        (Session, "unknown state of a session", json!({"desiredState": "Stopped"}), Err("spec.desiredState: Unsupported value")),
        (Session, "session in defaults", json!({"defaults": {"sessionName": "x"}}), Err("spec.defaults.sessionName")),
        (Session, "state in defaults", json!({"defaults": {"desiredState": "Stopped"}}), Err("spec.defaults.desiredState")),
        (Template, "template", json!({"containerImage": "busybox", "files": [{"path": "a", "content": "x"}], "maxLifetimeSeconds": 5}), Ok(())),
        (Template, "state in a template", json!({"desiredState": "Stopped"}), Err("spec.desiredState")),
        (Template, "rules in a template", egress(json!({"cidr": "10.0.0.1/8"})), Err("network.egress.rules[].cidr: must be")),
        (Session, "rules in defaults", json!({"defaults": egress(json!({"cidr": "10.0.0.1/8"}))}), Err("network.egress.rules[].cidr: must be")),
    ]
}

#[rustfmt::skip]
fn storage() -> Vec<Case> {
    let (source, path) = ("files[]: give exactly one", "files[].path: must be");
    let (volume_source, mount_path) = ("volumes[]: give exactly one", "volumes[].mountPath: must be");
    let secret = json!({"name": "s", "key": "k"});
    vec![
        (Sandbox, "file as text", file(json!({"path": "/a", "content": "x", "mode": 511})), Ok(())),
        (Sandbox, "empty file", file(json!({"path": "/a", "content": ""})), Ok(())),
        (Sandbox, "file in base64", file(json!({"path": "/a/b", "contentBase64": "eHg="})), Ok(())),
        (Sandbox, "file of a Secret", file(json!({"path": "/a/b", "secretKeyRef": secret})), Ok(())),
        (Sandbox, "file of a ConfigMap", file(json!({"path": "/a/b", "configMapKeyRef": secret})), Ok(())),
        (Sandbox, "file without content", file(json!({"path": "/a"})), Err(source)),
        (Sandbox, "file with two contents", file(json!({"path": "/a", "content": "x", "contentBase64": "eA=="})), Err(source)),
        (Sandbox, "file with text and Secret", file(json!({"path": "/a", "content": "x", "secretKeyRef": secret})), Err(source)),
        (Sandbox, "file with bad base64", file(json!({"path": "/a", "contentBase64": "?"})), Err("spec.files[0].contentBase64")),
        (Sandbox, "relative file", file(json!({"path": "a/b", "content": "x"})), Ok(())),
        (Sandbox, "relative file up", file(json!({"path": "../a", "content": "x"})), Err(path)),
        (Sandbox, "file ..", file(json!({"path": "..", "content": "x"})), Err(path)),
        (Sandbox, "file without a path", file(json!({"path": "", "content": "x"})), Err("spec.files[0].path")),
        (
            Sandbox,
            "relative file with the image's entrypoint",
            json!({"entrypoint": "Image", "files": [{"path": "a", "content": "x"}]}),
            Err("spec.files[].path: must be absolute"),
        ),
        (Sandbox, "file /", file(json!({"path": "/", "content": "x"})), Err(path)),
        (Sandbox, "file that is a folder", file(json!({"path": "/a/", "content": "x"})), Err(path)),
        (Sandbox, "file through ..", file(json!({"path": "/a/../b", "content": "x"})), Err(path)),
        (Sandbox, "file that ends in ..", file(json!({"path": "/a/..", "content": "x"})), Err(path)),
        (Sandbox, "file with a colon", file(json!({"path": "/a:b", "content": "x"})), Err(path)),
        (Sandbox, "file with dots", file(json!({"path": "/a/..b/.c", "content": "x"})), Ok(())),
        (Sandbox, "mode of 512", file(json!({"path": "/a", "content": "x", "mode": 512})), Err("spec.files[0].mode")),
        (Sandbox, "mode of -1", file(json!({"path": "/a", "content": "x", "mode": -1})), Err("spec.files[0].mode")),
        (Sandbox, "Secret without a key", file(json!({"path": "/a", "secretKeyRef": {"name": "s"}})), Err("spec.files[0].secretKeyRef.key")),
        (
            Sandbox,
            "two files at a path",
            json!({"files": [{"path": "/a", "content": "x"}, {"path": "/a", "content": "y"}]}),
            Err("spec.files[1]: Duplicate"),
        ),
        (Sandbox, "large file", file(json!({"path": "/a", "content": "x".repeat(262_144)})), Ok(())),
        (Sandbox, "too large a file", file(json!({"path": "/a", "content": "x".repeat(262_145)})), Err("spec.files[0].content")),
        (Sandbox, "scratch", at("/data"), Ok(())),
        (Sandbox, "claim", volume(json!({"name": "a", "mountPath": "/a", "persistentVolumeClaim": {"claimName": "c"}})), Ok(())),
        (Sandbox, "volume that only mounts mount", json!({"volumes": [{"name": "a", "scratch": {}}], "mounts": [{"name": "a", "mountPath": "/a"}]}), Ok(())),
        (Sandbox, "mount at /", json!({"mounts": [{"name": "a", "mountPath": "/"}]}), Err("spec.mounts[0].mountPath")),
        (Sandbox, "mount over the agent", json!({"mounts": [{"name": "a", "mountPath": "/.sandbox-operator"}]}), Err("mounts[].mountPath: must be")),
        (Sandbox, "mount up", json!({"mounts": [{"name": "a", "mountPath": "/a", "subPath": "b/.."}]}), Err("mounts[].subPath: must be")),
        (Sandbox, "volume of nothing", volume(json!({"name": "a", "mountPath": "/a"})), Err(volume_source)),
        (
            Sandbox,
            "volume of two",
            volume(json!({"name": "a", "mountPath": "/a", "scratch": {}, "persistentVolumeClaim": {"claimName": "c"}})),
            Err(volume_source),
        ),
        (Sandbox, "volume at /", at("/"), Err("spec.volumes[0].mountPath")),
        (Sandbox, "volume at a relative path", at("data"), Err("spec.volumes[0].mountPath")),
        (Sandbox, "volume over the agent", at("/.sandbox-operator"), Err(mount_path)),
        (Sandbox, "volume inside the agent's folder", at("/.sandbox-operator/x"), Err(mount_path)),
        (Sandbox, "volume with a colon", at("/a:b"), Err(mount_path)),
        (Sandbox, "volume of our name", volume(json!({"name": "sandbox-operator-agent", "mountPath": "/a", "scratch": {}})), Err("volumes[].name")),
        (Sandbox, "volume name in capitals", volume(json!({"name": "A", "mountPath": "/a", "scratch": {}})), Err("spec.volumes[0].name")),
        (Sandbox, "memory with size", volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Memory", "size": "1Gi"}})), Ok(())),
        (
            Sandbox,
            "memory without size",
            volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Memory"}})),
            Err("volumes[].scratch.size: is required"),
        ),
        (Sandbox, "unknown medium", volume(json!({"name": "a", "mountPath": "/a", "scratch": {"medium": "Tape"}})), Err("scratch.medium")),
        (Sandbox, "sub path", volume(json!({"name": "a", "mountPath": "/a", "subPath": "b/..c", "scratch": {}})), Ok(())),
        (Sandbox, "sub path up", volume(json!({"name": "a", "mountPath": "/a", "subPath": "b/..", "scratch": {}})), Err("volumes[].subPath")),
        (Sandbox, "absolute sub path", volume(json!({"name": "a", "mountPath": "/a", "subPath": "/b", "scratch": {}})), Err("volumes[].subPath")),
        (
            Sandbox,
            "two volumes of a name",
            json!({"volumes": [{"name": "a", "mountPath": "/a", "scratch": {}}, {"name": "a", "mountPath": "/b", "scratch": {}}]}),
            Err("spec.volumes[1]: Duplicate"),
        ),
    ]
}

#[rustfmt::skip]
fn network() -> Vec<Case> {
    let (one, cidr) = ("network.egress.rules[]: give one of", "network.egress.rules[].cidr: must be");
    let (except, ports) = ("network.egress.rules[].except", json!([{"port": 80}]));
    let selector = json!({"matchLabels": {"a": "b"}});
    let rule_in = |more: Value| {
        let mut rule = more.as_object().unwrap().clone();
        rule.entry("ports").or_insert(ports.clone());
        ingress(Value::Object(rule))
    };
    vec![
        (Sandbox, "no network", json!({"network": {"egress": {"mode": "None"}, "dns": "None"}}), Ok(())),
        (Sandbox, "unknown mode", json!({"network": {"egress": {"mode": "All"}}}), Err("spec.network.egress.mode: Unsupported value")),
        (Sandbox, "unknown dns", json!({"network": {"dns": "Google"}}), Err("spec.network.dns: Unsupported value")),
        (
            Sandbox,
            "rules without the mode",
            json!({"network": {"egress": {"rules": [{"cidr": "8.8.8.8/32"}]}}}),
            Err("network.egress.rules: need mode Rules"),
        ),
        (Sandbox, "no rules", json!({"network": {"egress": {"mode": "Rules"}}}), Ok(())),
        (Sandbox, "range", egress(json!({"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"], "ports": ports})), Ok(())),
        (Sandbox, "IPv6 range", egress(json!({"cidr": "2001:db8::/32"})), Ok(())),
        (Sandbox, "selectors", egress(json!({"podSelector": selector, "namespaceSelector": selector})), Ok(())),
        (Sandbox, "public addresses on a port", egress(json!({"internet": true, "ports": ports})), Ok(())),
        (Sandbox, "public addresses, denied", egress(json!({"internet": false})), Err("rules[].internet: is true")),
        (Sandbox, "public addresses and a range", egress(json!({"internet": true, "cidr": "10.0.0.0/8"})), Err(one)),
        (Sandbox, "every namespace", egress(json!({"namespaceSelector": {}})), Ok(())),
        (Sandbox, "range and selector", egress(json!({"cidr": "10.0.0.0/8", "podSelector": selector})), Err(one)),
        (Sandbox, "neither range nor selector", egress(json!({"ports": ports})), Err(one)),
        (Sandbox, "address that is no range", egress(json!({"cidr": "10.0.0.1"})), Err(cidr)),
        (Sandbox, "host bits", egress(json!({"cidr": "10.0.0.1/8"})), Err(cidr)),
        (Sandbox, "name as range", egress(json!({"cidr": "example.com"})), Err(cidr)),
        (Sandbox, "prefix of 33", egress(json!({"cidr": "10.0.0.0/33"})), Err(cidr)),
        (Sandbox, "IPv4 in IPv6 form", egress(json!({"cidr": "::ffff:10.0.0.0/104"})), Err(cidr)),
        (Sandbox, "octet with a zero", egress(json!({"cidr": "010.0.0.0/8"})), Err(cidr)),
        (Sandbox, "except without range", egress(json!({"podSelector": selector, "except": ["10.0.0.0/9"]})), Err(except)),
        (Sandbox, "except with host bits", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.1/9"]})), Err(except)),
        (Sandbox, "except that is no range", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.1"]})), Err(except)),
        (Sandbox, "range of ports", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 80}]})), Ok(())),
        (Sandbox, "range of ports backwards", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 79}]})), Err("ports[].endPort")),
        (Sandbox, "endPort too high", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 65_536}]})), Err("ports[0].endPort")),
        (Sandbox, "port 0 in a rule", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 0}]})), Err("rules[0].ports[0].port")),
        (Sandbox, "port by name", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": "http"}]})), Err("rules[0].ports[0].port")),
        (
            Sandbox,
            "65 rules",
            json!({"network": {"egress": {"mode": "Rules", "rules": many(65, |_| json!({"cidr": "8.8.8.8/32"}))}}}),
            Err("spec.network.egress.rules: Too many"),
        ),
        (
            Sandbox,
            "64 rules",
            json!({"network": {"egress": {"mode": "Rules", "rules": many(64, |_| json!({"cidr": "8.8.8.8/32", "ports": [{"port": 1}]}))}}}),
            Ok(()),
        ),
        (Sandbox, "ingress", rule_in(json!({"cidr": "0.0.0.0/0"})), Ok(())),
        (Sandbox, "ingress of pods", rule_in(json!({"podSelector": {}})), Ok(())),
        (Sandbox, "ingress without rules", json!({"network": {"ingress": {}}}), Err("spec.network.ingress.rules: Required")),
        (Sandbox, "ingress without ports", ingress(json!({"cidr": "0.0.0.0/0"})), Err("spec.network.ingress.rules[0].ports: Required")),
        (Sandbox, "ingress with no ports", ingress(json!({"cidr": "0.0.0.0/0", "ports": []})), Err("spec.network.ingress.rules[0].ports")),
        (Sandbox, "ingress of nobody", rule_in(json!({})), Err("network.ingress.rules[]: give either")),
        (Sandbox, "ingress of both", rule_in(json!({"cidr": "0.0.0.0/0", "podSelector": {}})), Err("network.ingress.rules[]: give either")),
        (Sandbox, "ingress of a bad range", rule_in(json!({"cidr": "10.0.0.1/8"})), Err("network.ingress.rules[].cidr: must be")),
        (Sandbox, "ingress except alone", rule_in(json!({"podSelector": {}, "except": ["10.0.0.0/8"]})), Err("network.ingress.rules[].except")),
    ]
}

/// Names that are accepted and refused.
#[rustfmt::skip]
fn names() -> Vec<(Kind, String, Result<(), &'static str>)> {
    let (long, longer) = ("a".repeat(63), "a".repeat(64));
    vec![
        (Sandbox, "a".into(), Ok(())),
        (Sandbox, "train-7".into(), Ok(())),
        (Sandbox, long.clone(), Ok(())),
        (Sandbox, longer.clone(), Err("metadata.name: must be a DNS label")),
        (Sandbox, "7train".into(), Err("metadata.name: must be a DNS label")),
        (Sandbox, "a.b".into(), Err("metadata.name: must be a DNS label")),
        (Sandbox, "Train".into(), Err("metadata.name")),
        (Sandbox, "train-".into(), Err("metadata.name")),
        (Session, long, Ok(())),
        (Session, "7team".into(), Ok(())),
        (Session, longer, Err("metadata.name: must be a DNS label")),
        (Session, "a.b".into(), Err("metadata.name: must be a DNS label")),
    ]
}

/// Objects that are really there, for updates. None makes a pod that runs: the first wait for a session that there is not, the last is stopped.
fn bases() -> Vec<(&'static str, Kind, Value)> {
    let full = json!({
        "sessionName": "none", "containerImage": "busybox", "command": ["true"], "env": [{"name": "A", "value": "1"}],
        "resources": {"limits": {"cpu": "1"}}, "network": {"egress": {"mode": "None"}}, "tags": ["a"],
        "files": [{"path": "/a", "content": "x"}], "ports": [{"name": "http", "port": 80}], "maxLifetimeSeconds": 600,
        "ttlSecondsAfterFinished": 60, "hostUsers": true,
    });
    vec![
        ("bare", Sandbox, json!({"nodeSelector": {"never": "matches"}})),
        ("full", Sandbox, full),
        ("stopped", Sandbox, json!({"sessionName": "none", "desiredState": "Stopped"})),
        (
            "open",
            Session,
            json!({"defaults": {"containerImage": "busybox"}, "maxLifetimeSeconds": 600}),
        ),
        ("plain", Session, json!({})),
        ("closed", Session, json!({"desiredState": "Closed"})),
    ]
}

#[rustfmt::skip]
fn updates() -> Vec<Update> {
    let lifetime = "spec.maxLifetimeSeconds: may be lowered, not raised or removed";
    vec![
        ("image changed", "full", json!({"containerImage": "alpine"}), Err("spec.containerImage: cannot be changed")),
        ("image removed", "full", json!({"containerImage": null}), Err("spec.containerImage: cannot be changed")),
        ("image added", "bare", json!({"containerImage": "alpine"}), Err("spec.containerImage: cannot be changed")),
        ("same image", "full", json!({"containerImage": "busybox"}), Ok(())),
        ("command changed", "full", json!({"command": ["false"]}), Err("spec.command: cannot be changed")),
        ("command added", "bare", json!({"command": ["false"]}), Err("spec.command: cannot be changed")),
        ("session added", "bare", json!({"sessionName": "none"}), Err("spec.sessionName: cannot be changed")),
        ("session changed", "full", json!({"sessionName": "other"}), Err("spec.sessionName: cannot be changed")),
        ("session removed", "full", json!({"sessionName": null}), Err("spec.sessionName: cannot be changed")),
        ("env changed", "full", json!({"env": [{"name": "A", "value": "2"}]}), Err("spec.env: cannot be changed")),
        ("resources changed", "full", json!({"resources": {"limits": {"cpu": "2"}}}), Err("spec.resources: cannot be changed")),
        ("network opened", "full", json!({"network": {"egress": {"mode": "Internet"}}}), Err("spec.network: cannot be changed")),
        ("network removed", "full", json!({"network": null}), Err("spec.network: cannot be changed")),
        ("network added", "bare", json!({"network": {"egress": {"mode": "None"}}}), Err("spec.network: cannot be changed")),
        ("file changed", "full", json!({"files": [{"path": "/a", "content": "y"}]}), Err("spec.files: cannot be changed")),
        ("ports removed", "full", json!({"ports": null}), Err("spec.ports: cannot be changed")),
        ("host users", "full", json!({"hostUsers": false}), Err("spec.hostUsers: cannot be changed")),
        ("host users added", "bare", json!({"hostUsers": true}), Err("spec.hostUsers: cannot be changed")),
        ("ttl changed", "full", json!({"ttlSecondsAfterFinished": 61}), Err("spec.ttlSecondsAfterFinished: cannot be changed")),
        ("node selector removed", "bare", json!({"nodeSelector": null}), Err("spec.nodeSelector: cannot be changed")),
        ("tags changed", "full", json!({"tags": ["b", "c"]}), Ok(())),
        ("tags removed", "full", json!({"tags": null}), Ok(())),
        ("tags added", "bare", json!({"tags": ["b"]}), Ok(())),
        ("bad tag", "bare", json!({"tags": [""]}), Err("spec.tags[0]")),
        ("lifetime lowered", "full", json!({"maxLifetimeSeconds": 599}), Ok(())),
        ("lifetime raised", "full", json!({"maxLifetimeSeconds": 601}), Err(lifetime)),
        ("lifetime removed", "full", json!({"maxLifetimeSeconds": null}), Err(lifetime)),
        ("lifetime lowered to nothing", "full", json!({"maxLifetimeSeconds": 0}), Err("spec.maxLifetimeSeconds")),
        ("lifetime added", "bare", json!({"maxLifetimeSeconds": 10}), Ok(())),
        ("stopped", "full", json!({"desiredState": "Stopped"}), Ok(())),
        ("stopped with grace", "full", json!({"desiredState": "Stopped", "stopGracePeriodSeconds": 5}), Ok(())),
        ("started again", "stopped", json!({"desiredState": "Running"}), Err("spec.desiredState: Stopped is final")),
        ("started again by default", "stopped", json!({"desiredState": null}), Err("spec.desiredState: Stopped is final")),
        ("stopped faster", "stopped", json!({"stopGracePeriodSeconds": 0}), Ok(())),
        ("stopped twice", "stopped", json!({"desiredState": "Stopped", "tags": ["x"]}), Ok(())),
        ("session defaults changed", "open", json!({"defaults": {"containerImage": "alpine", "tags": ["a"]}}), Ok(())),
        ("session defaults removed", "open", json!({"defaults": null}), Ok(())),
        ("bad session defaults", "open", json!({"defaults": {"maxLifetimeSeconds": 0}}), Err("spec.defaults.maxLifetimeSeconds")),
        ("limit added", "open", json!({"maxSandboxes": 3}), Ok(())),
        ("session lifetime lowered", "open", json!({"maxLifetimeSeconds": 1}), Ok(())),
        ("session lifetime raised", "open", json!({"maxLifetimeSeconds": 601}), Err(lifetime)),
        ("session lifetime removed", "open", json!({"maxLifetimeSeconds": null}), Err(lifetime)),
        ("session lifetime added", "plain", json!({"maxLifetimeSeconds": 601}), Ok(())),
        ("session closed", "open", json!({"desiredState": "Closed"}), Ok(())),
        ("session opened again", "closed", json!({"desiredState": "Open"}), Err("spec.desiredState: Closed is final")),
        ("session opened again by default", "closed", json!({"desiredState": null}), Err("spec.desiredState: Closed is final")),
    ]
}

/// A cluster without the definitions gets them, such that the chart can adopt them. Those of a cluster that has them must be the generated ones.
async fn definitions() {
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(|| async {
        let api: Api<CustomResourceDefinition> = Api::all(Client::try_default().await.unwrap());
        for (file, mut definition) in crds::all() {
            let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
            let old = api.get_opt(&name).await.unwrap();
            definition["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "Helm"});
            for key in ["name", "namespace"] {
                definition["metadata"]["annotations"][format!("meta.helm.sh/release-{key}")] = json!("sandbox-operator");
            }
            let params = PatchParams {
                dry_run: old.is_some(),
                ..PatchParams::apply("helm").force().validation_strict()
            };
            let new = api
                .patch(&name, &params, &Patch::Apply(&definition))
                .await
                .unwrap_or_else(|e| panic!("{file}: {e}"));
            let same = old.is_none_or(|old| old.metadata.generation == new.metadata.generation);
            assert!(same, "{name} of the cluster is not the generated one: `make install` first");
            for _ in 0..60 {
                if established(&api, &name).await {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            assert!(established(&api, &name).await, "{name}");
        }
    })
    .await;
}

async fn established(api: &Api<CustomResourceDefinition>, name: &str) -> bool {
    let status = api.get(name).await.unwrap().status;
    let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    assert!(!is("NonStructuralSchema"), "{name}: {conditions:?}");
    let client = api.clone().into_client();
    let resources = client.list_api_group_resources("sandbox-operator.dev/v1alpha1").await;
    let served = resources.is_ok_and(|r| r.resources.iter().any(|r| name.starts_with(&format!("{}.", r.name))));
    is("Established") && is("NamesAccepted") && served
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn objects_are_accepted_and_refused() {
    let server = Server::new("create").await;
    let mut wrong = vec![];
    for (kind, name, spec, expected) in workload().into_iter().chain(storage()).chain(network()) {
        let got = server.create(kind, &kind.object(json!({"name": "case"}), spec), true).await;
        wrong.extend(compare(name, &got, expected));
    }
    for (kind, field, low, high) in BOUNDS {
        for (number, expected) in [(low, true), (high, true), (low - 1, false), (high + 1, false)] {
            let spec = match field.split_once('.') {
                Some((outer, inner)) => json!({outer: {inner: number}}),
                None => json!({field: number}),
            };
            let got = server.create(kind, &kind.object(json!({"name": "case"}), spec), true).await;
            let path = format!("spec.{field}: Invalid value");
            wrong.extend(compare(&format!("{field} {number}"), &got, if expected { Ok(()) } else { Err(&path) }));
        }
    }
    for (field, most, item) in COUNTS {
        for count in [most, most + 1] {
            let got = server
                .create(Sandbox, &Sandbox.object(json!({"name": "case"}), json!({field: many(count, item)})), true)
                .await;
            let path = format!("spec.{field}: Too many");
            wrong.extend(compare(
                &format!("{count} {field}"),
                &got,
                if count == most { Ok(()) } else { Err(&path) },
            ));
        }
    }
    for (kind, name, expected) in names() {
        let got = server.create(kind, &kind.object(json!({"name": name}), json!({})), true).await;
        wrong.extend(compare(&name, &got, expected));
    }
    server.gone().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn defaults_are_filled_in_and_a_status_from_a_user_is_dropped() {
    let server = Server::new("defaults").await;
    let mut object = Sandbox.object(json!({"name": "case"}), json!({"network": {"egress": {}}}));
    object["status"] = json!({"state": "COMPLETED"});
    let made = server.create(Sandbox, &object, true).await.unwrap();
    let session = server
        .create(Session, &Session.object(json!({"name": "case"}), json!({})), true)
        .await
        .unwrap();
    server.gone().await;
    assert_eq!(
        made["spec"],
        json!({"desiredState": "Running", "network": {"egress": {"mode": "Internet"}}})
    );
    assert_eq!(session["spec"], json!({"desiredState": "Open"}));
    assert_eq!((&made["status"], &session["status"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn updates_are_accepted_and_refused() {
    let server = Server::new("update").await;
    let mut wrong = vec![];
    for (name, kind, spec) in bases() {
        let got = server.create(kind, &kind.object(json!({"name": name}), spec), false).await;
        wrong.extend(compare(name, &got, Ok(())));
    }
    for (name, base, change, expected) in updates() {
        let kind = bases().into_iter().find(|(n, ..)| *n == base).map(|(_, kind, _)| kind).unwrap();
        let got = server.patch(kind, base, &change).await;
        wrong.extend(compare(&format!("{base}: {name}"), &got, expected));
    }
    server.gone().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
