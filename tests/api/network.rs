//! Network rules.

use serde_json::{Value, json};

use crate::{Case, many};

fn egress(rule: Value) -> Value {
    json!({"network": {"egress": {"mode": "Rules", "rules": [rule]}}})
}

fn ingress(rule: Value) -> Value {
    json!({"network": {"ingress": {"rules": [rule]}}})
}

#[rustfmt::skip]
pub fn cases() -> Vec<Case> {
    let (one, cidr) = ("network.egress.rules[]: give one of", "network.egress.rules[].cidr: must be");
    let (except, ports) = ("network.egress.rules[].except", json!([{"port": 80}]));
    let selector = json!({"matchLabels": {"a": "b"}});
    let rule_in = |more: Value| {
        let mut rule = more.as_object().unwrap().clone();
        rule.entry("ports").or_insert(ports.clone());
        ingress(Value::Object(rule))
    };
    vec![
        ("no network", json!({"network": {"egress": {"mode": "None"}, "dns": "None"}}), Ok(())),
        ("unknown mode", json!({"network": {"egress": {"mode": "All"}}}), Err("spec.network.egress.mode: Unsupported value")),
        ("unknown dns", json!({"network": {"dns": "Google"}}), Err("spec.network.dns: Unsupported value")),
        ("rules without the mode",
            json!({"network": {"egress": {"rules": [{"cidr": "8.8.8.8/32"}]}}}),
            Err("network.egress.rules: need mode Rules"),
        ),
        ("no rules", json!({"network": {"egress": {"mode": "Rules"}}}), Ok(())),
        ("range", egress(json!({"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"], "ports": ports})), Ok(())),
        ("IPv6 range", egress(json!({"cidr": "2001:db8::/32"})), Ok(())),
        ("selectors", egress(json!({"podSelector": selector, "namespaceSelector": selector})), Ok(())),
        ("public addresses", egress(json!({"internet": true})), Ok(())),
        ("public addresses on a port", egress(json!({"internet": true, "ports": ports})), Ok(())),
        ("public addresses, denied", egress(json!({"internet": false})), Err("network.egress.rules[].internet: is true")),
        ("public addresses and a range", egress(json!({"internet": true, "cidr": "10.0.0.0/8"})), Err(one)),
        ("public addresses and selectors", egress(json!({"internet": true, "podSelector": selector, "namespaceSelector": selector})), Err(one)),
        ("public addresses but some", egress(json!({"internet": true, "except": ["8.8.8.0/24"]})), Err(except)),
        ("every namespace", egress(json!({"namespaceSelector": {}})), Ok(())),
        ("range and selector", egress(json!({"cidr": "10.0.0.0/8", "podSelector": selector})), Err(one)),
        ("neither range nor selector", egress(json!({"ports": ports})), Err(one)),
        ("address that is no range", egress(json!({"cidr": "10.0.0.1"})), Err(cidr)),
        ("host bits", egress(json!({"cidr": "10.0.0.1/8"})), Err(cidr)),
        ("name as range", egress(json!({"cidr": "example.com"})), Err(cidr)),
        ("prefix of 33", egress(json!({"cidr": "10.0.0.0/33"})), Err(cidr)),
        ("IPv4 in IPv6 form", egress(json!({"cidr": "::ffff:10.0.0.0/104"})), Err(cidr)),
        ("octet with a zero", egress(json!({"cidr": "010.0.0.0/8"})), Err(cidr)),
        ("except without range", egress(json!({"podSelector": selector, "except": ["10.0.0.0/9"]})), Err(except)),
        ("except with host bits", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.1/9"]})), Err(except)),
        ("except that is all of the range", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]})), Err(except)),
        ("except wider than the range", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/7"]})), Err(except)),
        ("except outside the range", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/16"]})), Err(except)),
        ("except of the other family", egress(json!({"cidr": "0.0.0.0/0", "except": ["2001:db8::/32"]})), Err(except)),
        ("IPv6 except", egress(json!({"cidr": "2001:db8::/32", "except": ["2001:db8:0:1::/64"]})), Ok(())),
        ("IPv6 except that is all of the range", egress(json!({"cidr": "2001:db8::/32", "except": ["2001:0db8::/32"]})), Err(except)),
        ("except that is no range", egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.1"]})), Err(except)),
        ("range of ports", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 80}]})), Ok(())),
        ("range of ports backwards", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 79}]})), Err("ports[].endPort")),
        ("endPort too high", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 80, "endPort": 65_536}]})), Err("ports[0].endPort")),
        ("port 0 in a rule", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 0}]})), Err("rules[0].ports[0].port")),
        ("port by name", egress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": "http"}]})), Err("rules[0].ports[0].port")),
        ("65 rules",
            json!({"network": {"egress": {"mode": "Rules", "rules": many(65, |_| json!({"cidr": "8.8.8.8/32"}))}}}),
            Err("spec.network.egress.rules: Too many"),
        ),
        ("64 rules",
            json!({"network": {"egress": {"mode": "Rules", "rules": many(64, |_| json!({"cidr": "8.8.8.8/32", "ports": [{"port": 1}]}))}}}),
            Ok(()),
        ),
        ("ingress", rule_in(json!({"cidr": "0.0.0.0/0"})), Ok(())),
        ("ingress of pods", rule_in(json!({"podSelector": {}})), Ok(())),
        ("ingress without rules", json!({"network": {"ingress": {}}}), Err("spec.network.ingress.rules: Required")),
        ("ingress without ports", ingress(json!({"cidr": "0.0.0.0/0"})), Err("spec.network.ingress.rules[0].ports: Required")),
        ("ingress with no ports", ingress(json!({"cidr": "0.0.0.0/0", "ports": []})), Err("spec.network.ingress.rules[0].ports")),
        ("ingress of nobody", rule_in(json!({})), Err("network.ingress.rules[]: give either")),
        ("ingress of public addresses", rule_in(json!({"internet": true})), Err("spec.network.ingress.rules[0].internet")),
        ("ingress of both", rule_in(json!({"cidr": "0.0.0.0/0", "podSelector": {}})), Err("network.ingress.rules[]: give either")),
        ("ingress of a bad range", rule_in(json!({"cidr": "10.0.0.1/8"})), Err("network.ingress.rules[].cidr: must be")),
        ("ingress except", rule_in(json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]})), Ok(())),
        ("ingress except with host bits", rule_in(json!({"cidr": "0.0.0.0/0", "except": ["10.0.0.1/8"]})), Err("network.ingress.rules[].except[]: must be address")),
        ("ingress ports backwards", rule_in(json!({"cidr": "0.0.0.0/0", "ports": [{"port": 80, "endPort": 79}]})), Err("ports[].endPort")),
        ("ingress except outside the range", rule_in(json!({"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]})), Err("network.ingress.rules[].except")),
        ("ingress except alone", rule_in(json!({"podSelector": {}, "except": ["10.0.0.0/8"]})), Err("network.ingress.rules[].except")),
    ]
}
