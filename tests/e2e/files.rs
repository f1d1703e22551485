//! Files and directories of containers whose user is not root.

use crate::support::{Case, TestNamespace, light, outcome, with};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

/// Defines `check PATH OWNER MODE`, which ends the script unless the file has these and the content `secret`.
const CHECK: &str = "check() { seen=$(stat -c '%u:%g %a' $1)-$(cat $1); [ \"$seen\" = \"$2 $3-secret\" ] || { echo $1: $seen; exit 1; }; };";

fn script(text: &str) -> Value {
    json!({"command": ["sh", "-c", format!("{CHECK} {text}")]})
}

fn file(path: &str, mode: u32) -> Value {
    json!({"path": path, "content": "secret", "mode": mode})
}

fn user(spec: Value) -> Value {
    light(with(json!({"runAsUser": 1000, "runAsGroup": 100}), spec))
}

fn completed(name: &'static str, spec: Value, text: &str) -> Case {
    (name, with(script(text), spec), ("COMPLETED", "Completed", Some(0)))
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn files_belong_to_the_user_of_their_container() {
    let ns = TestNamespace::new("files").await;
    let secret = json!({"metadata": {"name": "ssh"}, "stringData": {"key": "secret"}});
    ns.create::<Secret>(secret).await;
    let modes = [("a", 0o400), ("b", 0o600), ("c", 0o755), ("d", 0o644)];
    let absolute = modes.map(|(name, mode)| file(&format!("/home/me/.ssh/{name}"), mode));
    let relative = modes.map(|(name, mode)| file(&format!("sub/{name}"), mode));
    let checks = |directory: &str, owner: &str| {
        modes
            .map(|(name, mode)| format!("check {directory}/{name} {owner} {mode:o};"))
            .concat()
    };
    let work =
        |medium: &str| json!([{"name": "work", "mountPath": "/work", "scratch": {"medium": medium, "size": "16Mi"}}]);
    let by_key = json!({"path": "/home/me/key", "secretKeyRef": {"name": "ssh", "key": "key"}, "mode": 0o400});
    let sidecar = json!({"name": "side", "image": "python:3.11", "runAsUser": 2000, "files": [file("/etc/side/key", 0o400), file("rel", 0o400)],
        "mounts": [{"name": "work", "mountPath": "/work"}], "workingDir": "/work",
        "command": ["sh", "-c", format!("({CHECK} check /etc/side/key 2000:0 400; check rel 2000:0 400; echo fine) > /work/seen 2>&1; sleep 1000")]});
    let restricted = json!({"securityProfile": "Restricted", "readOnlyRootFilesystem": true});
    let wrong = ns
        .run_all([
            completed("absolute", user(json!({"files": absolute})), &checks("/home/me/.ssh", "1000:100")),
            completed(
                "relative",
                user(json!({"files": relative, "workingDir": "/work", "volumes": work("Disk")})),
                &checks("sub", "1000:100"),
            ),
            completed("secret", user(json!({"files": [by_key.clone()]})), "check /home/me/key 1000:100 400"),
            completed(
                "restricted",
                user(with(restricted, json!({"files": [by_key]}))),
                "check /home/me/key 1000:100 400",
            ),
            completed("root", light(json!({"files": absolute})), &checks("/home/me/.ssh", "0:0")),
            completed(
                "root-named",
                light(json!({"runAsUser": 0, "files": relative, "workingDir": "/work", "volumes": work("Memory")})),
                &checks("sub", "0:0"),
            ),
            completed(
                "sidecar",
                light(json!({"volumes": work("Disk"), "sidecars": [sidecar]})),
                "until grep -q . /work/seen; do sleep 0.1; done; cat /work/seen; grep -qx fine /work/seen",
            ),
            completed(
                "beside-a-file",
                user(json!({"files": [file("/work/conf/app/key", 0o400)], "volumes": work("Disk")})),
                "check /work/conf/app/key 1000:100 400; touch /work/conf/new /work/conf/app/new",
            ),
            completed(
                "beside-a-file-in-memory",
                user(json!({"files": [file("/work/conf/app/key", 0o400)], "volumes": work("Memory")})),
                "check /work/conf/app/key 1000:100 400; touch /work/conf/new /work/conf/app/new",
            ),
            completed(
                "sub-paths",
                user(json!({
                    "volumes": [{"name": "disk", "scratch": {}}, {"name": "memory", "scratch": {"medium": "Memory", "size": "1Mi"}}],
                    "mounts": [{"name": "disk", "mountPath": "/a", "subPath": "x/y"}, {"name": "memory", "mountPath": "/b", "subPath": "x/y"},
                        {"name": "disk", "mountPath": "/a/in/ner", "subPath": "z"}],
                })),
                "set -e; touch /a/new /b/new /a/in/new /a/in/ner/new",
            ),
        ])
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The working directory cannot be written by the user.
    let spec = user(with(
        script("true"),
        json!({"files": [file("rel", 0o400)], "workingDir": "/etc"}),
    ));
    ns.sandbox("not-writable", spec).await;
    let status = ns.ended("not-writable").await;
    assert_eq!(outcome(&status), ("FAILED", "Error", Some(126)));
    let message = status.message.unwrap_or_default();
    assert!(message.contains("./rel: Permission denied"), "{message}");
    ns.end().await;
}
