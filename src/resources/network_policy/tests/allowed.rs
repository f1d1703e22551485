//! Which connections the rules of a sandbox allow.

use super::{
    AGENT, METADATA, OWN_NAMESPACE, PRIVATE, PUBLIC, allows_in, allows_out, build, build_with, check_out, dns_pod,
    gateway, ip, pod, rules, settings,
};
use crate::resources::Settings;
use serde_json::{Value, json};

#[test]
fn by_default_the_internet_is_reached_and_nothing_private_is() {
    for network in [
        json!({}),
        json!({"egress": {}}),
        json!({"egress": {"mode": "Internet"}, "dns": "Cluster"}),
        json!({"dns": "None"}),
    ] {
        let policy = build(network.clone());
        let name = network.to_string();
        check_out(&name, &policy, &PUBLIC, &PRIVATE);
        check_out(&name, &policy, &[], &METADATA);
        let other = pod("app=db", OWN_NAMESPACE, "");
        assert!(
            !allows_out(&policy, &other, 5432, "TCP"),
            "{name}: a pod of the same namespace"
        );
    }
}

#[test]
fn mode_none_reaches_nothing_not_even_dns() {
    let policy = build(json!({"egress": {"mode": "None"}}));
    check_out("None", &policy, &[], &[&PUBLIC[..], &PRIVATE, &METADATA].concat());
    assert!(!allows_out(&policy, &dns_pod(), 53, "UDP"));
    assert_eq!(policy.spec.unwrap().egress, None);
}

#[test]
#[rustfmt::skip]
fn dns_is_the_clusters_pods_on_53_and_nobody_elses() {
    let policy = build(json!({"egress": {"mode": "None"}, "dns": "Cluster"}));
    for (remote, port, protocol, expected) in [
        (dns_pod(), 53, "UDP", true),
        (dns_pod(), 53, "TCP", true),
        (dns_pod(), 9153, "TCP", false),
        (dns_pod(), 53, "SCTP", false),
        (pod("k8s-app=other", "kube-system", ""), 53, "UDP", false),
        (pod("k8s-app=kube-dns", OWN_NAMESPACE, ""), 53, "UDP", false),
        (pod("k8s-app=kube-dns", "evil", "name=kube-system"), 53, "UDP", false),
        (ip("8.8.8.8"), 53, "UDP", false),
        (ip("10.96.0.10"), 53, "UDP", false),
        (ip("169.254.169.254"), 53, "UDP", false),
    ] {
        assert_eq!(allows_out(&policy, &remote, port, protocol), expected, "{remote:?} {protocol}/{port}");
    }
    let without = build(json!({"dns": "None"}));
    assert!(!allows_out(&without, &dns_pod(), 53, "UDP"));
    let local_cache = settings(json!({"network": {"dns": {
        "namespace": "dns", "podLabels": {"app": "coredns"}, "addresses": ["169.254.20.10/32"], "ports": [53, 5353]}}}));
    let policy = build_with(json!({}), &local_cache).unwrap();
    assert!(allows_out(&policy, &ip("169.254.20.10"), 53, "UDP") && allows_out(&policy, &ip("169.254.20.10"), 5353, "TCP"));
    assert!(!allows_out(&policy, &ip("169.254.20.10"), 80, "TCP") && !allows_out(&policy, &ip("169.254.169.254"), 53, "UDP"));
    assert!(allows_out(&policy, &pod("app=coredns", "dns", ""), 5353, "UDP") && !allows_out(&policy, &dns_pod(), 53, "UDP"));
}

#[test]
#[rustfmt::skip]
fn rules_reach_what_they_name_minus_what_no_sandbox_may() {
    let metadata = &METADATA[..];
    let private_v4 = ["10.0.0.1", "192.168.1.1", "127.0.0.1"];
    type Case<'a> = (&'a str, Value, Vec<&'a str>, Vec<&'a str>);
    let cases: Vec<Case> = vec![
        ("no rules", json!([]), vec![], [&PUBLIC[..], &PRIVATE, metadata].concat()),
        ("everything", json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]), [&PUBLIC[..], &private_v4, &["fd00::1"]].concat(), metadata.to_vec()),
        ("the internet", json!([{"internet": true}]), PUBLIC.to_vec(), [&PRIVATE[..], metadata].concat()),
        (
            "the internet and a private range",
            json!([{"internet": true}, {"cidr": "10.0.0.0/8"}]),
            [&PUBLIC[..], &["10.0.0.1"]].concat(),
            [&["192.168.1.1", "fd00::1"], metadata].concat(),
        ),
        ("IPv4 only", json!([{"cidr": "0.0.0.0/0"}]), vec!["8.8.8.8", "10.0.0.1"], vec!["2606:4700::1", "169.254.169.254"]),
        ("private", json!([{"cidr": "10.0.0.0/8"}]), vec!["10.0.0.1", "10.255.255.255"], vec!["11.0.0.0", "8.8.8.8", "192.168.0.1"]),
        (
            "around Alibaba's",
            json!([{"cidr": "100.64.0.0/10"}]),
            vec!["100.64.0.1", "100.100.100.199", "100.100.100.201"],
            vec!["100.100.100.200", "100.128.0.0"],
        ),
        (
            "except",
            json!([{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.3.4/32", "10.1.2.0/24"]}]),
            vec!["10.0.0.1", "10.2.3.3", "10.2.3.5"],
            vec!["10.1.0.0", "10.1.2.3", "10.1.255.255", "10.2.3.4"],
        ),
        (
            "a hole is filled only by another rule",
            json!([{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, {"cidr": "10.1.2.0/24"}]),
            vec!["10.1.2.3", "10.0.0.1"],
            vec!["10.1.3.1"],
        ),
        ("link-local's neighbours", json!([{"cidr": "169.0.0.0/8"}]), vec!["169.253.255.255", "169.255.0.0"], vec!["169.254.0.0", "169.254.255.255"]),
        ("one IPv6 host", json!([{"cidr": "2001:4860:4860::8888/128"}]), vec!["2001:4860:4860::8888"], vec!["2001:4860:4860::8844"]),
    ];
    for (name, list, allow, deny) in cases {
        check_out(name, &build(rules(list)), &allow, &deny);
    }
}

#[test]
#[rustfmt::skip]
fn rules_keep_to_their_ports_and_selectors() {
    let policy = build(rules(json!([
        {"cidr": "203.0.113.0/24", "ports": [{"port": 443}, {"port": 8000, "endPort": 8002}, {"port": 500, "protocol": "UDP"}]},
        {"podSelector": {"matchLabels": {"app": "db"}}, "ports": [{"port": 5432}]},
        {"namespaceSelector": {"matchLabels": {"shared": "yes"}}, "ports": [{"port": 80}]},
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["cache"]}]},
         "namespaceSelector": {"matchLabels": {"shared": "yes"}}, "ports": [{"port": 6379}]},
        {"internet": true, "ports": [{"port": 22}]},
    ])));
    let (db, shared) = (pod("app=db", OWN_NAMESPACE, ""), pod("app=cache", "infra", "shared=yes"));
    for (remote, port, protocol, expected) in [
        (ip("203.0.113.7"), 443, "TCP", true),
        (ip("203.0.113.7"), 443, "UDP", false),
        (ip("203.0.113.7"), 7999, "TCP", false),
        (ip("203.0.113.7"), 8000, "TCP", true),
        (ip("203.0.113.7"), 8002, "TCP", true),
        (ip("203.0.113.7"), 8003, "TCP", false),
        (ip("203.0.113.7"), 500, "UDP", true),
        (ip("203.0.114.7"), 443, "TCP", false),
        (ip("8.8.8.8"), 22, "TCP", true),
        (ip("8.8.8.8"), 22, "UDP", false),
        (ip("8.8.8.8"), 443, "TCP", false),
        (ip("10.0.0.1"), 22, "TCP", false),
        (pod("app=web", OWN_NAMESPACE, ""), 22, "TCP", false),
        (db.clone(), 5432, "TCP", true),
        (db, 5433, "TCP", false),
        (pod("app=db", "infra", ""), 5432, "TCP", false),
        (pod("app=web", OWN_NAMESPACE, ""), 5432, "TCP", false),
        (shared.clone(), 80, "TCP", true),
        (shared, 6379, "TCP", true),
        (pod("app=web", "infra", "shared=yes"), 6379, "TCP", false),
        (pod("app=cache", "infra", "shared=no"), 6379, "TCP", false),
        (pod("app=cache", OWN_NAMESPACE, ""), 6379, "TCP", false),
    ] {
        assert_eq!(allows_out(&policy, &remote, port, protocol), expected, "{remote:?} {protocol}/{port}");
    }
}

#[test]
#[rustfmt::skip]
fn only_gateway_and_operator_reach_the_agent() {
    let everybody = json!([{"cidr": "0.0.0.0/0", "ports": [{"port": 1, "endPort": 65_535}]},
        {"namespaceSelector": {}, "ports": [{"port": AGENT - 1, "endPort": AGENT}, {"port": AGENT, "endPort": AGENT + 1}, {"port": AGENT}]},
        {"podSelector": {}, "ports": [{"port": AGENT, "protocol": "UDP"}]}]);
    for network in [json!({}), json!({"ingress": {"rules": []}}), json!({"ingress": {"rules": everybody}})] {
        let open = network["ingress"]["rules"].as_array().is_some_and(|r| !r.is_empty());
        let policy = build(network);
        assert!(allows_in(&policy, &gateway(), AGENT, "TCP"));
        let peer = "app.kubernetes.io/part-of=sandbox-operator";
        for other in
            [ip("8.8.8.8"), pod("", "sandbox-operator", ""), pod(peer, OWN_NAMESPACE, ""), pod(peer, "other", "name=sandbox-operator"), dns_pod()]
        {
            assert!(!allows_in(&policy, &other, AGENT, "TCP"), "{other:?}");
            for port in [1, 80, AGENT - 1, AGENT + 1, 65_535] {
                assert_eq!(allows_in(&policy, &other, port, "TCP"), open, "{other:?} {port}");
            }
        }
        assert_eq!(allows_in(&policy, &gateway(), 80, "TCP"), open);
        assert_eq!(allows_in(&policy, &pod("", OWN_NAMESPACE, ""), AGENT, "UDP"), open);
    }
}

#[test]
#[rustfmt::skip]
fn ingress_rules_keep_to_peers_and_ports() {
    let policy = build(json!({"ingress": {"rules": [
        {"podSelector": {"matchLabels": {"app": "web"}}, "ports": [{"port": 8080}]},
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"], "ports": [{"port": 9000, "endPort": 9001, "protocol": "UDP"}]}]}}));
    for (remote, port, protocol, expected) in [
        (pod("app=web", OWN_NAMESPACE, ""), 8080, "TCP", true),
        (pod("app=web", OWN_NAMESPACE, ""), 8081, "TCP", false),
        (pod("app=web", "other", ""), 8080, "TCP", false),
        (ip("10.2.0.1"), 9001, "UDP", true),
        (ip("10.2.0.1"), 9001, "TCP", false),
        (ip("10.1.0.1"), 9001, "UDP", false),
        (ip("11.0.0.1"), 9001, "UDP", false),
    ] {
        assert_eq!(allows_in(&policy, &remote, port, protocol), expected, "{remote:?} {protocol}/{port}");
    }
    // What may not be reached may still connect: a node, for instance.
    assert!(build_with(json!({"ingress": {"rules": [{"cidr": "169.254.0.0/16", "ports": [{"port": 80}]}]}}), &Settings::default()).is_ok());
}
