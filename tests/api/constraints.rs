//! The chart's admission policies of `sandboxes.constraints` and the check in operator and gateway agree.

use sandbox_operator::api::Sandbox;
use sandbox_operator::resources::{Effective, Settings, constraints};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::server::{Kind, Server, eventually};

/// Every constraint. The defaults satisfy all of them, so that only the object's own fields decide.
fn settings() -> Value {
    json!({
        "defaults": {"nodeSelector": {"pool": "sandboxes"}, "containerImage": "registry.example/team/app", "egressMode": "None",
            "maxLifetimeSeconds": 600, "limits": {"cpu": "100m"}, "requests": {"cpu": "100m"}},
        "constraints": {
            "runtimeClassNames": ["", "gvisor"], "priorityClassNames": ["", "low"], "serviceAccountNames": ["default", "builder"],
            "images": ["registry.example/team/", "registry.example/base", "registry.example:5000/node:22"],
            "nodeSelector": {"pool": "sandboxes"},
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}, {"key": "team", "value": "a"}],
            "hostUsers": false, "securityProfiles": ["Baseline"], "maxResources": {"cpu": "2", "example.com/gpu": "0"},
            "maxLifetimeSeconds": 3600,
            "egress": {"modes": ["None", "Rules"], "cidrs": ["10.1.0.0/16", "2001:db8::/32"], "pods": "SameNamespace"},
            "podLabelKeys": ["team", "example.com/*"], "podAnnotationKeys": ["*"],
        },
    })
}

/// Fields, and whether they are allowed.
#[rustfmt::skip]
fn cases() -> Vec<(Value, bool)> {
    let sidecar = |image: &str| json!({"name": "s", "image": image});
    let image = |image: &str| json!({"containerImage": image});
    let cpu = |kind: &str, main: Value, sidecar: &str| json!({
        "resources": {kind: {"cpu": main}},
        "sidecars": [{"name": "s", "image": "registry.example/base", "resources": {"limits": {"cpu": sidecar}}}],
    });
    let rule = |rule: Value| json!({"network": {"egress": {"mode": "Rules", "rules": [rule]}}});
    vec![
        (json!({}), true),
        (json!({"runtimeClassName": "gvisor"}), true),
        (json!({"runtimeClassName": "runc"}), false),
        (json!({"priorityClassName": "low"}), true),
        (json!({"priorityClassName": "system-node-critical"}), false),
        (json!({"serviceAccountName": "builder"}), true),
        (json!({"serviceAccountName": "admin"}), false),
        (image("registry.example/team/a/b:1"), true),
        (image("registry.example/team-evil/a"), false),
        (image("registry.example/teams"), false),
        (image("registry-example/team/a"), false),
        (image("registry.example/base:1@sha256:0"), true),
        (image("registry.example/base/evil"), false),
        (image("registry.example/base:5000/evil"), false),
        (image("registry.example:5000/node:22"), true),
        (image("registry.example:5000/node:22@sha256:0"), true),
        (image("registry.example:5000/node:22-evil"), false),
        (json!({"sidecars": [sidecar("registry.example/base")]}), true),
        (json!({"sidecars": [sidecar("registry.example/base"), {"name": "t", "image": "evil"}]}), false),
        (json!({"nodeSelector": {"pool": "sandboxes", "zone": "a"}}), true),
        (json!({"nodeSelector": {"zone": "a"}}), true),
        (json!({"nodeSelector": {"pool": "control-plane"}}), false),
        (json!({"tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]}), true),
        (json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}), false),
        (json!({"tolerations": [{"operator": "Exists"}]}), false),
        (json!({"tolerations": [{"key": "team", "value": "a"}, {"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}]}), true),
        (json!({"tolerations": [{"key": "team", "value": "b"}]}), false),
        (json!({"tolerations": [{"key": "team", "operator": "Exists"}]}), false),
        (json!({"hostUsers": false}), true),
        (json!({"hostUsers": true}), false),
        (json!({"securityProfile": "Baseline"}), true),
        (json!({"securityProfile": "Restricted"}), false),
        (json!({"sidecars": [{"name": "s", "image": "registry.example/base", "securityProfile": "Restricted"}]}), false),
        (cpu("limits", json!("1500m"), "0.5"), true),
        (cpu("limits", json!("1500m"), "600m"), false),
        (cpu("requests", json!(1), "900m"), true),
        (cpu("requests", json!(2), "900m"), false),
        (json!({"resources": {"limits": {"example.com/gpu": 1}}}), false),
        (json!({"maxLifetimeSeconds": 3600}), true),
        (json!({"maxLifetimeSeconds": 3601}), false),
        (json!({"network": {"egress": {"mode": "None"}}}), true),
        (json!({"network": {"egress": {}}}), false),
        (json!({"network": {"egress": {"mode": "Internet"}}}), false),
        (json!({"network": {"ingress": {"rules": []}}}), true),
        (rule(json!({"cidr": "10.1.2.0/24", "except": ["10.1.2.128/25"]})), true),
        (rule(json!({"cidr": "2001:db8:1::/48"})), true),
        (rule(json!({"cidr": "10.0.0.0/8"})), false),
        (rule(json!({"cidr": "0.0.0.0/0"})), false),
        (rule(json!({"internet": true})), false),
        (rule(json!({"podSelector": {}})), true),
        (rule(json!({"podSelector": {}, "namespaceSelector": {}})), false),
        (json!({"podLabels": {"team": "a", "example.com/a": "b"}}), true),
        (json!({"podLabels": {"teams": "a"}}), false),
        (json!({"podLabels": {"sub.example.com/a": "b"}}), false),
        (json!({"podAnnotations": {"team": "a"}}), true),
        (json!({"podAnnotations": {"eks.amazonaws.com/role-arn": "a"}}), false),
    ]
}

/// Runs a command with this input, and returns its output.
fn run(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn policies_and_programs_agree_on_what_is_allowed() {
    let settings = settings();
    let admin = Server::new("constraints").await;
    let session =
        |name: &str, defaults: Value| Kind::Session.object(json!({"name": name}), json!({"defaults": defaults}));
    admin
        .create(
            Kind::Session,
            &session("old", json!({"runtimeClassName": "runc"})),
            false,
        )
        .await
        .unwrap();

    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sandbox-operator");
    let mut values = json!({"sandboxes": settings, "watchNamespaces": [admin.namespace()]});
    // The chart requires it with watchNamespaces.
    values["sandboxes"]["network"]["apiServer"] = json!(["192.0.2.1/32"]);
    let mut helm = Command::new("helm");
    helm.args([
        "template",
        admin.namespace(),
        chart,
        "--values",
        "-",
        "--show-only",
        "templates/constraints.yaml",
    ]);
    let policies = run(&mut helm, &values.to_string());
    run(Command::new("kubectl").args(["apply", "--filename", "-"]), &policies);

    let tenant = admin.as_tenant().await;
    let wrong = check(&tenant, &settings).await;
    // Closing a session from before the policy does not change the fields that violate it.
    let closed = tenant
        .patch(Kind::Session, "old", &json!({"desiredState": "Closed"}))
        .await;
    let changed = tenant
        .patch(Kind::Session, "old", &json!({"defaults": {"runtimeClassName": "kata"}}))
        .await;
    run(Command::new("kubectl").args(["delete", "--filename", "-"]), &policies);
    admin.gone().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(closed.is_ok(), "{closed:?}");
    assert!(
        changed
            .unwrap_err()
            .contains("spec.defaults.runtimeClassName: must be one of gvisor")
    );
}

/// Runs all cases for all kinds, and returns the unexpected results.
async fn check(tenant: &Server, settings: &Value) -> Vec<String> {
    let kinds = [
        (Kind::Sandbox, "sandboxes", "spec"),
        (Kind::Session, "sandboxsessions", "spec.defaults"),
        (Kind::Template, "sandboxtemplates", "spec"),
    ];
    let create = async |kind: Kind, fields: &Value| {
        let spec = if matches!(kind, Kind::Session) {
            json!({"defaults": fields})
        } else {
            fields.clone()
        };
        tenant
            .create(kind, &kind.object(json!({"name": "case"}), spec), true)
            .await
    };
    let parsed: Settings = serde_json::from_value(settings.clone()).unwrap();
    let mut wrong = vec![];
    for (kind, resource, path) in kinds {
        // The API server learns of new policies a moment later.
        eventually(async || match create(kind, &json!({"hostUsers": true})).await {
            Ok(_) => Err(format!("the policy of {resource} is not in effect")),
            Err(_) => Ok(()),
        })
        .await;
        for (fields, allowed) in cases() {
            let answer = create(kind, &fields).await;
            let as_expected = match &answer {
                Ok(_) => allowed,
                Err(text) => {
                    !allowed
                        && text.contains(&format!("{resource}.constraints"))
                        && text.contains(&format!("denied request: {path}."))
                }
            };
            if !as_expected {
                wrong.push(format!("{resource}: {fields}: {answer:?}"));
            }
        }
    }
    for (fields, allowed) in cases() {
        let sandbox: Sandbox = serde_json::from_value(json!({"metadata": {"name": "case"}, "spec": fields})).unwrap();
        let violations = constraints::check(&Effective::new(&sandbox, None, &parsed), &parsed);
        if violations.is_empty() != allowed {
            wrong.push(format!("check: {fields}: {violations:?}"));
        }
    }
    wrong
}
