//! Each constraint with specs that it allows and refuses. `tests/api/constraints.rs` has objects for which the
//! generated admission policies must give the same result.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn violations(defaults: Value, constraints: Value, spec: Value) -> Vec<String> {
    let settings: Settings = serde_json::from_value(json!({"defaults": defaults, "constraints": constraints})).unwrap();
    let sandbox: Sandbox = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
    let effective = Effective::new(&sandbox, None, &settings);
    check(&effective, &settings)
        .into_iter()
        .map(|v| v.field.to_string())
        .collect()
}

#[test]
#[rustfmt::skip]
fn each_constraint_names_the_field_that_violates_it() {
    let sidecar = |fields: Value| {
        let mut all = json!({"name": "s", "image": "registry.example/team/s:1"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"containerImage": "registry.example/team/app", "sidecars": [all]})
    };
    let rules = |rule: Value| json!({"network": {"egress": {"mode": "Rules", "rules": [rule]}}});
    let runtime = json!({"runtimeClassNames": ["gvisor"]});
    let priority = json!({"priorityClassNames": ["", "low"]});
    let account = json!({"serviceAccountNames": ["default", "builder"]});
    let images = json!({"images": ["registry.example/team/"]});
    let nodes = json!({"nodeSelector": {"pool": "sandboxes"}});
    let tolerations = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
    let restricted = json!({"securityProfiles": ["Restricted"]});
    let most = json!({"maxResources": {"cpu": "3", "nvidia.com/gpu": "0"}});
    let modes = json!({"egress": {"modes": ["None", "Rules"]}});
    let cidrs = json!({"egress": {"cidrs": ["10.1.0.0/16", "2001:db8::/32"]}});
    let own_pods = json!({"egress": {"pods": "SameNamespace"}});
    let no_pods = json!({"egress": {"pods": "None"}});
    let keys = json!({"podLabelKeys": ["example.com/*", "team"], "podAnnotationKeys": []});
    for (constraints, spec, violated) in [
        (&json!({}), json!({"runtimeClassName": "x", "hostUsers": true, "tolerations": [{"operator": "Exists"}]}), vec![]),
        (&runtime, json!({"runtimeClassName": "gvisor"}), vec![]),
        (&runtime, json!({"runtimeClassName": "runc"}), vec!["runtimeClassName"]),
        (&runtime, json!({}), vec!["runtimeClassName"]),
        (&priority, json!({}), vec![]),
        (&priority, json!({"priorityClassName": "low"}), vec![]),
        (&priority, json!({"priorityClassName": "system-node-critical"}), vec!["priorityClassName"]),
        (&account, json!({}), vec![]),
        (&account, json!({"serviceAccountName": "builder"}), vec![]),
        (&account, json!({"serviceAccountName": "admin"}), vec!["serviceAccountName"]),
        (&images, json!({"containerImage": "registry.example/team/app:1"}), vec![]),
        (&images, json!({"containerImage": "registry.example/team-evil/app:1"}), vec!["containerImage"]),
        (&images, json!({}), vec!["containerImage"]),
        (&images, sidecar(json!({})), vec![]),
        (&images, sidecar(json!({"image": "evil"})), vec!["sidecars[0].image"]),
        (&nodes, json!({"nodeSelector": {"pool": "sandboxes", "zone": "a"}}), vec![]),
        (&nodes, json!({"nodeSelector": {"pool": "control-plane"}}), vec![r#"nodeSelector["pool"]"#]),
        (&nodes, json!({}), vec![r#"nodeSelector["pool"]"#]),
        (&tolerations, json!({"tolerations": [{"key": "gpu", "value": "a"}]}), vec![]),
        (&tolerations, json!({"tolerations": [{"key": "gpu", "value": "a"}, {"operator": "Exists"}]}), vec!["tolerations[1]"]),
        (&json!({"tolerations": []}), json!({"tolerations": [{"key": "gpu", "value": "a"}]}), vec!["tolerations[0]"]),
        (&json!({"hostUsers": false}), json!({}), vec![]),
        (&json!({"hostUsers": false}), json!({"hostUsers": true}), vec!["hostUsers"]),
        (&restricted, json!({"securityProfile": "Restricted"}), vec![]),
        (&restricted, json!({}), vec!["securityProfile"]),
        (&restricted, json!({"securityProfile": "Restricted", "sidecars": [{"name": "s", "image": "s", "securityProfile": "Baseline"}]}), vec!["sidecars[0].securityProfile"]),
        (&restricted, json!({"securityProfile": "Restricted", "sidecars": [{"name": "s", "image": "s"}]}), vec![]),
        (&most, json!({}), vec![]),
        (&most, json!({"resources": {"limits": {"cpu": "3001m"}}}), vec![r#"resources.limits["cpu"]"#]),
        (&most, json!({"resources": {"requests": {"cpu": "4"}}}), vec![r#"resources.limits["cpu"]"#]),
        (&most, json!({"sidecars": [{"name": "s", "image": "s"}]}), vec![r#"resources.limits["cpu"]"#]),
        (&most, json!({"resources": {"limits": {"cpu": "1"}}, "sidecars": [{"name": "s", "image": "s"}]}), vec![]),
        (&most, json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}}), vec![r#"resources.limits["nvidia.com/gpu"]"#]),
        (&json!({"maxLifetimeSeconds": 3600}), json!({"maxLifetimeSeconds": 3600}), vec![]),
        (&json!({"maxLifetimeSeconds": 3600}), json!({"maxLifetimeSeconds": 3601}), vec!["maxLifetimeSeconds"]),
        (&json!({"maxLifetimeSeconds": 3600}), json!({}), vec!["maxLifetimeSeconds"]),
        (&modes, json!({"network": {"egress": {"mode": "None"}}}), vec![]),
        (&modes, json!({}), vec!["network.egress.mode"]),
        (&modes, json!({"network": {"ingress": {"rules": []}}}), vec!["network.egress.mode"]),
        (&modes, rules(json!({"internet": true})), vec!["network.egress.rules[0].internet"]),
        (&cidrs, rules(json!({"cidr": "10.1.2.0/24"})), vec![]),
        (&cidrs, rules(json!({"cidr": "2001:db8:1::/48"})), vec![]),
        (&cidrs, rules(json!({"cidr": "10.0.0.0/8"})), vec!["network.egress.rules[0].cidr"]),
        (&cidrs, rules(json!({"cidr": "::ffff:10.1.2.0/120"})), vec!["network.egress.rules[0].cidr"]),
        (&cidrs, json!({}), vec!["network.egress.mode"]),
        (&cidrs, json!({"network": {"egress": {"mode": "None"}}}), vec![]),
        (&own_pods, rules(json!({"podSelector": {}})), vec![]),
        (&own_pods, rules(json!({"podSelector": {}, "namespaceSelector": {}})), vec!["network.egress.rules[0].namespaceSelector"]),
        (&no_pods, rules(json!({"podSelector": {}})), vec!["network.egress.rules[0].podSelector"]),
        (&no_pods, rules(json!({"namespaceSelector": {}})), vec!["network.egress.rules[0].namespaceSelector"]),
        (&keys, json!({"podLabels": {"example.com/a": "b", "team": "x"}}), vec![]),
        (&keys, json!({"podLabels": {"app": "x"}, "podAnnotations": {"team": "x"}}), vec![r#"podLabels["app"]"#, r#"podAnnotations["team"]"#]),
    ] {
        assert_eq!(violations(json!({}), constraints.clone(), spec.clone()), violated, "{spec} under {constraints}");
    }
}

#[test]
fn without_configuration_keys_that_webhooks_listen_to_are_refused() {
    for key in [
        "azure.workload.identity/use",
        "eks.amazonaws.com/role-arn",
        "vault.hashicorp.com/agent-inject",
        "dapr.io/enabled",
        "sidecar.istio.io/inject",
    ] {
        let (labels, annotations) = (json!({"podLabels": {key: "x"}}), json!({"podAnnotations": {key: "x"}}));
        assert_eq!(violations(json!({}), json!({}), labels).len(), 1, "{key}");
        assert_eq!(violations(json!({}), json!({}), annotations).len(), 1, "{key}");
    }
    let own = json!({"podLabels": {"team": "x"}, "podAnnotations": {"team": "x"}});
    assert!(violations(json!({}), json!({}), own).is_empty());
}

#[test]
fn the_operators_defaults_satisfy_what_is_required() {
    let defaults = json!({
        "runtimeClassName": "gvisor", "priorityClassName": "low", "serviceAccountName": "builder",
        "nodeSelector": {"pool": "sandboxes"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "securityProfile": "Restricted", "egressMode": "None", "containerImage": "registry.example/app",
        "maxLifetimeSeconds": 60,
    });
    let constraints = json!({
        "runtimeClassNames": ["gvisor"], "priorityClassNames": ["low"], "serviceAccountNames": ["builder"],
        "nodeSelector": {"pool": "sandboxes"}, "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "securityProfiles": ["Restricted"], "egress": {"modes": ["None"]}, "images": ["registry.example/"],
        "maxLifetimeSeconds": 60, "hostUsers": false, "maxResources": {"cpu": "2"},
    });
    let empty = |spec: Value| violations(defaults.clone(), constraints.clone(), spec);
    assert_eq!(empty(json!({})), Vec::<String>::new());
    // A sandbox's own ingress rules do not change the default of its egress.
    let with_ingress = json!({"network": {"ingress": {"rules": []}}, "nodeSelector": {"zone": "a"}});
    assert_eq!(empty(with_ingress), Vec::<String>::new());
    assert_eq!(violations(json!({}), constraints.clone(), json!({})).len(), 8);
}

#[test]
fn a_message_names_the_document_the_rule_and_the_constraint() {
    let settings: Settings =
        serde_json::from_value(json!({"constraints": {"runtimeClassNames": ["gvisor", ""]}})).unwrap();
    let message = |own: Value, defaults: Value| {
        let sandbox: Sandbox = serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": own})).unwrap();
        let session: SandboxSession =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"defaults": defaults}})).unwrap();
        let effective = Effective::new(&sandbox, Some(&session), &settings);
        let found = check(&effective, &settings);
        found
            .into_iter()
            .map(|v| v.of(&sandbox, Some(&session)).to_string())
            .collect::<String>()
    };
    let rule = "must be one of gvisor, (not set), and \"runc\" is not; \
                the cluster's administrator set it in sandboxes.constraints.runtimeClassNames";
    let own = json!({"sessionName": "s", "runtimeClassName": "runc"});
    assert_eq!(message(own, json!({})), format!("spec.runtimeClassName: {rule}"));
    let from_session = message(json!({"sessionName": "s"}), json!({"runtimeClassName": "runc"}));
    assert_eq!(
        from_session,
        format!("spec.defaults.runtimeClassName of SandboxSession s: {rule}")
    );
}

#[test]
fn an_unknown_constraint_is_an_error() {
    let read: Result<Settings, _> = serde_json::from_value(json!({"constraints": {"runtimeClasses": ["gvisor"]}}));
    assert!(read.is_err());
}
