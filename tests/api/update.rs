//! Which changes of an object are allowed.

use serde_json::{Value, json};

use crate::server::{Expected, Kind, Server, compare};

/// Name of the case, what is there, the change as a merge patch of the spec, and what is expected of it.
type Update = (&'static str, &'static str, Value, Expected<'static>);

/// Objects that are really there, for updates. None makes a pod that runs: the first wait for a session that there is
/// not, the last is stopped.
fn bases() -> Vec<(&'static str, Kind, Value)> {
    let full = json!({
        "sessionName": "none", "containerImage": "busybox", "command": ["true"], "env": [{"name": "A", "value": "1"}],
        "resources": {"limits": {"cpu": "1"}}, "network": {"egress": {"mode": "None"}}, "tags": ["a"],
        "files": [{"path": "/a", "content": "x"}], "ports": [{"name": "http", "port": 80}], "maxLifetimeSeconds": 600,
        "ttlSecondsAfterFinished": 60, "hostUsers": true,
    });
    vec![
        ("bare", Kind::Sandbox, json!({"nodeSelector": {"never": "matches"}})),
        ("full", Kind::Sandbox, full),
        (
            "stopped",
            Kind::Sandbox,
            json!({"sessionName": "none", "desiredState": "Stopped"}),
        ),
        (
            "open",
            Kind::Session,
            json!({"defaults": {"containerImage": "busybox"}, "maxLifetimeSeconds": 600}),
        ),
        ("plain", Kind::Session, json!({})),
        (
            "template",
            Kind::Template,
            json!({"containerImage": "busybox", "maxLifetimeSeconds": 600}),
        ),
        ("closed", Kind::Session, json!({"desiredState": "Closed"})),
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
        ("mounts added", "bare", json!({"mounts": []}), Err("spec.mounts: cannot be changed")),
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
        ("template changed", "template", json!({"containerImage": null, "command": ["true"], "maxLifetimeSeconds": 601}), Ok(())),
        ("bad template", "template", json!({"maxLifetimeSeconds": 0}), Err("spec.maxLifetimeSeconds")),
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

#[tokio::test]
#[ignore = "needs a cluster"]
async fn updates_are_accepted_and_refused() {
    let server = Server::new("update").await;
    let mut wrong = vec![];
    for (name, kind, spec) in bases() {
        let got = server
            .create(kind, &kind.object(json!({"name": name}), spec), false)
            .await;
        wrong.extend(compare(name, &got, Ok(())));
    }
    for (name, base, change, expected) in updates() {
        let kind = bases()
            .into_iter()
            .find(|(n, ..)| *n == base)
            .map(|(_, kind, _)| kind)
            .unwrap();
        let got = server.patch(kind, base, &change).await;
        wrong.extend(compare(&format!("{base}: {name}"), &got, expected));
    }
    // A default that took effect cannot be raised either.
    let effective = Ok(server
        .set_status(Kind::Sandbox, "bare", &json!({"maxLifetimeSeconds": 86_400}))
        .await);
    wrong.extend(compare("status", &effective, Ok(())));
    let raised = "spec.maxLifetimeSeconds: must not be above status.maxLifetimeSeconds";
    for (seconds, expected) in [(86_401, Err(raised)), (86_400, Ok(())), (10, Ok(()))] {
        let got = server
            .patch(Kind::Sandbox, "bare", &json!({"maxLifetimeSeconds": seconds}))
            .await;
        wrong.extend(compare(&format!("default lifetime set to {seconds}"), &got, expected));
    }
    let got = server.patch(Kind::Sandbox, "bare", &json!({"tags": ["c"]})).await;
    wrong.extend(compare("something else with a status", &got, Ok(())));
    server.gone().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
