//! Environment, resources, ports and sidecars.

use serde_json::{Value, json};

use crate::{Case, many};

fn port(name: &str, port: i64) -> Value {
    json!({"ports": [{"name": name, "port": port}]})
}

fn ports(second: Value) -> Value {
    json!({"ports": [{"name": "a", "port": 80}, second]})
}

fn sidecar(name: &str) -> Value {
    json!({"sidecars": [{"name": name, "image": "busybox"}]})
}

fn env(name: &str) -> Value {
    json!({"env": [{"name": name, "value": "x"}]})
}

fn limited(requests: Value, limits: Value) -> Value {
    json!({"resources": {"requests": requests, "limits": limits}})
}

fn cpu(quantity: Value) -> Value {
    json!({"resources": {"limits": {"cpu": quantity}}})
}

fn of_sidecar(fields: Value) -> Value {
    let mut sidecar = json!({"name": "proxy", "image": "busybox"});
    sidecar
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({"sidecars": [sidecar]})
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let (name, quantity) = ("spec.env[].name: must be printable", "spec.resources.limits: must be a quantity");
    let (above, taken) = ("spec.resources.requests: must not be above", "ports[]: port and protocol must not be");
    vec![
        ("env without a name", json!({"env": [{"value": "x"}]}), Err("spec.env[0].name")),
        ("env of a Secret", json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}), Ok(())),
        ("resources", json!({"resources": {"requests": {"cpu": "100m"}, "limits": {"nvidia.com/gpu": 1}}}), Ok(())),
        ("port", port("http", 8080), Ok(())),
        ("port 0", port("http", 0), Err("spec.ports[0].port")),
        ("port 1", port("http", 1), Ok(())),
        ("port 65535", port("http", 65_535), Ok(())),
        ("port 65536", port("http", 65_536), Err("spec.ports[0].port")),
        ("port name without a letter", port("80", 80), Err("spec.ports[0].name")),
        ("port name of 16", port("abcdefghijklmnop", 80), Err("spec.ports[0].name")),
        ("port name with two dashes", port("a--b", 80), Err("spec.ports[0].name")),
        ("port without a name", json!({"ports": [{"port": 80}]}), Err("spec.ports[0].name")),
        ("two ports of a name", json!({"ports": [{"name": "a", "port": 1}, {"name": "a", "port": 2}]}), Err("spec.ports[1]: Duplicate")),
        ("unknown protocol", json!({"ports": [{"name": "a", "port": 1, "protocol": "tcp"}]}), Err("spec.ports[0].protocol")),
        ("sidecar", sidecar("proxy"), Ok(())),
        ("sidecar named main", sidecar("main"), Err("sidecars[].name: main")),
        ("sidecar with our name", sidecar("sandbox-operator-agent"), Err("sidecars[].name: names that begin")),
        ("sidecar in capitals", sidecar("Proxy"), Err("spec.sidecars[0].name")),
        ("sidecar without an image", json!({"sidecars": [{"name": "a"}]}), Err("spec.sidecars[0].image")),
        ("sidecar with all",
            json!({"volumes": [{"name": "v", "scratch": {}}], "sidecars": [{
                "name": "a", "image": "b", "command": ["c"], "args": ["d"], "workingDir": "/w", "env": [{"name": "A", "value": "1"}],
                "envFrom": [{"secretRef": {"name": "s"}}], "resources": {"limits": {"cpu": 1}}, "securityProfile": "Restricted",
                "runAsUser": 1, "runAsGroup": 1, "readOnlyRootFilesystem": true, "files": [{"path": "a", "content": "x"}],
                "mounts": [{"name": "v", "mountPath": "/v", "subPath": "s", "readOnly": true}]}]}),
            Ok(()),
        ),
        ("sidecar with a file and no command", of_sidecar(json!({"files": [{"path": "/a", "content": "x"}]})), Ok(())),
        ("sidecar with a relative file and no command",
            of_sidecar(json!({"files": [{"path": "/a", "content": "x"}, {"path": "a", "content": "x"}]})),
            Err("spec.sidecars[].files[].path: a relative path needs spec.sidecars[].command"),
        ),
        ("sidecar with a relative file beside the image's entrypoint",
            json!({"entrypoint": "Image", "sidecars": [{"name": "a", "image": "b", "command": ["c"], "files": [{"path": "a", "content": "x"}]}]}),
            Ok(()),
        ),
        ("sidecar with a file up", of_sidecar(json!({"command": ["c"], "files": [{"path": "../a", "content": "x"}]})), Err("files[].path: must be")),
        ("sidecar with a file of nothing", of_sidecar(json!({"files": [{"path": "/a"}]})), Err("files[]: give exactly one")),
        ("sidecar with two files at a path",
            of_sidecar(json!({"files": [{"path": "/a", "content": "x"}, {"path": "/a", "content": "y"}]})),
            Err("spec.sidecars[0].files[1]: Duplicate"),
        ),
        ("sidecar with 64 files", of_sidecar(json!({"files": many(64, |i| json!({"path": format!("/{i}"), "content": ""}))})), Ok(())),
        ("sidecar with 65 files",
            of_sidecar(json!({"files": many(65, |i| json!({"path": format!("/{i}"), "content": ""}))})),
            Err("spec.sidecars[0].files: Too many"),
        ),
        ("sidecar in a relative workingDir", of_sidecar(json!({"workingDir": "w"})), Err("spec.sidecars[0].workingDir")),
        ("sidecar of an unknown profile", of_sidecar(json!({"securityProfile": "Privileged"})), Err("spec.sidecars[0].securityProfile: Unsupported value")),
        ("sidecar of user -1", of_sidecar(json!({"runAsUser": -1})), Err("spec.sidecars[0].runAsUser")),
        ("sidecar of group 4294967295", of_sidecar(json!({"runAsGroup": 4_294_967_295_i64})), Err("spec.sidecars[0].runAsGroup")),
        ("sidecar with ports", of_sidecar(json!({"ports": []})), Err("spec.sidecars[0].ports")),
        ("two sidecars of a name",
            json!({"sidecars": [{"name": "a", "image": "b"}, {"name": "a", "image": "c"}]}),
            Err("spec.sidecars[1]: Duplicate"),
        ),
        ("env with a dot and a space", env("a.b c"), Ok(())),
        ("env with '='", env("a=b"), Err(name)),
        ("env with a tab", env("a\tb"), Err(name)),
        ("env of letters beyond ASCII", env("größe"), Err(name)),
        ("env with no name", env(""), Err("spec.env[0].name")),
        ("env name of 257", json!({"env": [{"name": "A".repeat(257)}]}), Err("spec.env[0].name")),
        ("env value of 131072", json!({"env": [{"name": "A", "value": "x".repeat(131_072)}]}), Err("spec.env[0].value")),
        ("variable of 131072", json!({"env": [{"name": "AB", "value": "x".repeat(131_069)}]}), Err("env[]: name and value")),
        ("variable of 131071", json!({"env": [{"name": "AB", "value": "x".repeat(131_068)}]}), Ok(())),
        ("argument of 131072", json!({"command": ["a"], "args": ["b", "x".repeat(131_072)]}), Err("spec.args[1]")),
        ("argument of 131071", json!({"command": ["a"], "args": ["b", "x".repeat(131_071)]}), Ok(())),
        ("argument of 131071 escaped dollars", json!({"command": ["a"], "args": ["$$".repeat(131_071)]}), Ok(())),
        ("argument of 131072 escaped dollars", json!({"command": ["a"], "args": ["$$".repeat(131_072)]}), Err("spec.args[0]")),
        ("command of 131072", json!({"command": ["x".repeat(131_072)]}), Err("spec.command[0]")),
        ("two env of a name", json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}), Err("spec.env[1]: Duplicate")),
        ("env names that differ in case", json!({"env": [{"name": "A"}, {"name": "a"}]}), Ok(())),
        ("env of a sidecar with '='", of_sidecar(env("a=b")), Err("sidecars[].env[].name: must be printable")),
        ("two env of a name in a sidecar", of_sidecar(json!({"env": [{"name": "A"}, {"name": "A"}]})), Err("spec.sidecars[0].env[1]: Duplicate")),
        ("cpu as a number", cpu(json!(2)), Ok(())),
        ("cpu in thousandths", cpu(json!("1500m")), Ok(())),
        ("no cpu", cpu(json!(0)), Ok(())),
        ("cpu that no one can count", cpu(json!("1e999999999")), Err(quantity)),
        ("request that no one can count", json!({"resources": {"requests": {"memory": "1"}, "limits": {"memory": "1e-99999999"}}}), Err(quantity)),
        ("cpu of a large exponent", cpu(json!("1e-2")), Ok(())),
        ("cpu with an unknown unit", cpu(json!("2x")), Err(quantity)),
        ("cpu of nothing", cpu(json!("")), Err(quantity)),
        ("cpu below zero", cpu(json!(-1)), Err(quantity)),
        ("cpu below zero as text", cpu(json!("-1m")), Err(quantity)),
        ("cpu of 33 digits", cpu(json!("1".repeat(33))), Err("spec.resources.limits")),
        ("bad request", json!({"resources": {"requests": {"memory": "1 Gi"}}}), Err("spec.resources.requests: must be a quantity")),
        ("bad quantity of a sidecar", of_sidecar(cpu(json!("2x"))), Err("sidecars[].resources.limits: must be a quantity")),
        ("bad request of a sidecar", of_sidecar(json!({"resources": {"requests": {"cpu": "2x"}}})), Err("sidecars[].resources.requests: must be a quantity")),
        ("request of the limit", limited(json!({"cpu": "1000m", "memory": "1Gi"}), json!({"cpu": 1, "memory": "1024Mi"})), Ok(())),
        ("request below the limit", limited(json!({"cpu": "999m"}), json!({"cpu": 1, "memory": "1Ki"})), Ok(())),
        ("request above the limit", limited(json!({"cpu": "1001m"}), json!({"cpu": 1})), Err(above)),
        ("one request above the limit", limited(json!({"cpu": 1, "memory": "1025Mi"}), json!({"cpu": 1, "memory": "1Gi"})), Err(above)),
        ("request of a sidecar above the limit", of_sidecar(limited(json!({"cpu": 2}), json!({"cpu": 1}))), Err("sidecars[].resources.requests: must not be above")),
        ("33 limits", json!({"resources": {"limits": (0..33).map(|i| (format!("a.io/{i}"), json!(1))).collect::<serde_json::Map<_, _>>()}}), Err("spec.resources.limits: Too many")),
        ("resource claims", json!({"resources": {"claims": [{"name": "a"}]}}), Err("spec.resources.claims")),
        ("two ports of a number", ports(json!({"name": "b", "port": 80})), Err(taken)),
        ("two ports of a number, one by default TCP", ports(json!({"name": "b", "port": 80, "protocol": "TCP"})), Err(taken)),
        ("two protocols of a port", ports(json!({"name": "b", "port": 80, "protocol": "UDP"})), Ok(())),
    ]
}
