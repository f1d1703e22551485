//! What configuration and rules cannot open.

use super::{AGENT, METADATA, build_with, check_out, rules, settings};
use crate::resources::Settings;
use serde_json::{Value, json};

#[test]
#[rustfmt::skip]
fn a_rule_that_cannot_hold_is_an_error_that_names_its_field() {
    let good = json!({"cidr": "8.8.8.0/24"});
    let ingress = |rule: Value| json!({"ingress": {"rules": [{"cidr": "8.8.8.0/24", "ports": [{"port": 80}]}, rule]}});
    for (network, field) in [
        (rules(json!([{"cidr": "169.254.169.254/32"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([good, {"cidr": "169.254.0.0/16"}])), "spec.network.egress.rules[1].cidr: "),
        (rules(json!([good, good, {"cidr": "fe80::/64"}])), "spec.network.egress.rules[2].cidr: "),
        (rules(json!([{"cidr": "fd00:ec2::254/128"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([{"cidr": "64:ff9b::a9fe:a900/120"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([{"cidr": "::ffff:10.0.0.0/104"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([{"cidr": "::ffff:169.254.169.254/128"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([{"cidr": "example.com"}])), "spec.network.egress.rules[0].cidr: "),
        (rules(json!([{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}])), "spec.network.egress.rules[0].except[0]: "),
        (rules(json!([{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.0.0.0/8"]}])), "spec.network.egress.rules[0].except[1]: "),
        (rules(json!([{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/7"]}])), "spec.network.egress.rules[0].except[0]: "),
        (rules(json!([{"cidr": "10.0.0.0/8", "except": ["fe80::/64"]}])), "spec.network.egress.rules[0].except[0]: "),
        (rules(json!([{"cidr": "::/0", "except": ["::ffff:0.0.0.0/96"]}])), "spec.network.egress.rules[0].except[0]: "),
        (rules(json!([{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/9", "10.128.0.0/9"]}])), "spec.network.egress.rules[0].cidr: "),
        (ingress(json!({"cidr": "0.0.0.0/0", "ports": [{"port": AGENT}]})), "spec.network.ingress.rules[1].ports: "),
        (ingress(json!({"cidr": "nowhere", "ports": [{"port": 80}]})), "spec.network.ingress.rules[1].cidr: "),
        (ingress(json!({"cidr": "10.0.0.0/8", "except": ["9.0.0.0/8"], "ports": [{"port": 80}]})), "spec.network.ingress.rules[1].except[0]: "),
    ] {
        let error = build_with(network.clone(), &Settings::default()).unwrap_err().to_string();
        assert!(error.starts_with(field), "{network}: {error}");
    }
}

#[test]
fn the_configuration_adds_to_both_lists() {
    let ours = settings(
        json!({"network": {"never": ["203.0.113.0/24", "198.51.100.7/32"], "notByDefault": ["8.8.0.0/16", "2606:4700::/32"]}}),
    );
    let default = build_with(json!({}), &ours).unwrap();
    check_out(
        "default",
        &default,
        &["9.9.9.9", "2a00:1450::1"],
        &["203.0.113.1", "198.51.100.7", "8.8.8.8", "2606:4700::1", "10.0.0.1"],
    );
    let all = build_with(rules(json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}])), &ours).unwrap();
    let open = ["8.8.8.8", "2606:4700::1", "198.51.100.8", "10.0.0.1"];
    check_out(
        "rules",
        &all,
        &open,
        &[&METADATA[..], &["203.0.113.1", "198.51.100.7"]].concat(),
    );
    let error = build_with(rules(json!([{"cidr": "203.0.113.128/25"}])), &ours)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("spec.network.egress.rules[0].cidr: "), "{error}");
    // Bits after the prefix in the configuration do not widen or break anything.
    let sloppy = settings(json!({"network": {"never": ["203.0.113.9/24"]}}));
    check_out(
        "sloppy",
        &build_with(json!({}), &sloppy).unwrap(),
        &["8.8.8.8"],
        &["203.0.113.1"],
    );
}
