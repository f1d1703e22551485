//! What a sandbox's NetworkPolicy allows and denies, by an evaluator of policies: the rules of Kubernetes' documentation in a few lines.
#![allow(clippy::unwrap_used)]

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sandbox_operator::api::Sandbox;
use sandbox_operator::resources::{Effective, Settings, network_policy};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

const AGENT: i32 = 8971;
const OWN_NAMESPACE: &str = "team";

type Labels = BTreeMap<String, String>;

/// The other end of a connection: an address, and the pod behind it if it is one.
#[derive(Clone, Debug)]
struct Remote {
    ip: IpAddr,
    /// Labels of the pod; its namespace's name; its namespace's labels.
    pod: Option<(Labels, String, Labels)>,
}

fn ip(text: &str) -> Remote {
    Remote {
        ip: text.parse().unwrap(),
        pod: None,
    }
}

fn labels(text: &str) -> Labels {
    text.split_terminator(',')
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

/// A pod `k=v,k=v` in a namespace that has Kubernetes' name label and `namespace_labels`.
fn pod(pod_labels: &str, namespace: &str, namespace_labels: &str) -> Remote {
    let mut of_namespace = labels(namespace_labels);
    of_namespace.insert("kubernetes.io/metadata.name".into(), namespace.into());
    Remote {
        ip: "10.244.1.9".parse().unwrap(),
        pod: Some((labels(pod_labels), namespace.into(), of_namespace)),
    }
}

fn dns_pod() -> Remote {
    pod("k8s-app=kube-dns", "kube-system", "")
}

fn gateway() -> Remote {
    pod("app.kubernetes.io/part-of=sandbox-operator", "sandbox-operator", "")
}

fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let by_label = selector.match_labels.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let by_expression = selector.match_expressions.iter().flatten().all(|e| {
        let value = labels.get(&e.key);
        let listed = value.is_some_and(|v| e.values.iter().flatten().any(|x| x == v));
        match e.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("operator {other}"),
        }
    });
    by_label && by_expression
}

fn peer_matches(peer: &NetworkPolicyPeer, remote: &Remote) -> bool {
    if let Some(block) = &peer.ip_block {
        assert!(peer.pod_selector.is_none() && peer.namespace_selector.is_none(), "the API refuses both");
        let within = |cidr: &String| cidr.parse::<IpNet>().unwrap().contains(&remote.ip);
        return within(&block.cidr) && !block.except.iter().flatten().any(within);
    }
    assert!(
        peer.pod_selector.is_some() || peer.namespace_selector.is_some(),
        "the API refuses neither"
    );
    let Some((labels, namespace, namespace_labels)) = &remote.pod else {
        return false;
    };
    let right_namespace = match &peer.namespace_selector {
        Some(selector) => selects(selector, namespace_labels),
        None => namespace == OWN_NAMESPACE,
    };
    right_namespace && peer.pod_selector.as_ref().is_none_or(|s| selects(s, labels))
}

fn port_matches(rule: &NetworkPolicyPort, port: i32, protocol: &str) -> bool {
    let first = match rule.port {
        Some(IntOrString::Int(first)) => first,
        _ => panic!("a port without a number"),
    };
    rule.protocol.as_deref().unwrap_or("TCP") == protocol && (first..=rule.end_port.unwrap_or(first)).contains(&port)
}

/// An empty or missing list of peers or ports is all of them.
fn rule_matches(peers: Option<&Vec<NetworkPolicyPeer>>, ports: Option<&Vec<NetworkPolicyPort>>, to: &Remote, port: i32, protocol: &str) -> bool {
    let peer = peers.is_none_or(|p| p.is_empty() || p.iter().any(|p| peer_matches(p, to)));
    peer && ports.is_none_or(|p| p.is_empty() || p.iter().any(|p| port_matches(p, port, protocol)))
}

fn allows_out(policy: &NetworkPolicy, to: &Remote, port: i32, protocol: &str) -> bool {
    let spec = policy.spec.as_ref().unwrap();
    assert!(spec.policy_types.iter().flatten().any(|t| t == "Egress"));
    spec.egress
        .iter()
        .flatten()
        .any(|r| rule_matches(r.to.as_ref(), r.ports.as_ref(), to, port, protocol))
}

fn allows_in(policy: &NetworkPolicy, from: &Remote, port: i32, protocol: &str) -> bool {
    let spec = policy.spec.as_ref().unwrap();
    assert!(spec.policy_types.iter().flatten().any(|t| t == "Ingress"));
    spec.ingress
        .iter()
        .flatten()
        .any(|r| rule_matches(r.from.as_ref(), r.ports.as_ref(), from, port, protocol))
}

fn sandbox(network: Value) -> Sandbox {
    serde_json::from_value(json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox",
        "metadata": {"name": "train", "namespace": OWN_NAMESPACE, "uid": "1234abcd-0000-0000-0000-000000000000"},
        "spec": {"network": network},
    }))
    .unwrap()
}

fn build_with(network: Value, settings: &Settings) -> Result<NetworkPolicy, String> {
    let sandbox = sandbox(network);
    network_policy::build(&sandbox, &Effective::new(&sandbox, None, settings), settings)
}

fn build(network: Value) -> NetworkPolicy {
    build_with(network, &Settings::default()).unwrap()
}

fn rules(rules: Value) -> Value {
    json!({"egress": {"mode": "Rules", "rules": rules}})
}

fn settings(text: Value) -> Settings {
    serde_json::from_value(text).unwrap()
}

/// Asserts for outgoing connections on every protocol and a few ports.
fn check_out(name: &str, policy: &NetworkPolicy, allow: &[&str], deny: &[&str]) {
    for (addresses, expected) in [(allow, true), (deny, false)] {
        for address in addresses {
            for (port, protocol) in [(443, "TCP"), (53, "UDP"), (53, "TCP"), (1, "SCTP"), (65_535, "UDP")] {
                let got = allows_out(policy, &ip(address), port, protocol);
                assert_eq!(got, expected, "{name}: {address} {protocol}/{port}");
            }
        }
    }
}

const PUBLIC: [&str; 6] = ["8.8.8.8", "1.1.1.1", "9.255.255.255", "172.32.0.1", "2606:4700::1", "2a00:1450::1"];
const PRIVATE: [&str; 17] = [
    "10.0.0.1",
    "10.96.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "127.0.0.1",
    "0.0.0.0",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "fc00::1",
    "fd00::1",
    "ff02::1",
    "2002:0a00:0001::1",
    "64:ff9b::0a00:1",
];
const METADATA: [&str; 8] = [
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.100.100.200",
    "fe80::1",
    "fd00:ec2::254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
];

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
        assert!(!allows_out(&policy, &other, 5432, "TCP"), "{name}: a pod of the same namespace");
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
        let error = build_with(network.clone(), &Settings::default()).unwrap_err();
        assert!(error.starts_with(field), "{network}: {error}");
    }
}

#[test]
fn the_configuration_adds_to_both_lists() {
    let ours = settings(json!({"network": {"never": ["203.0.113.0/24", "198.51.100.7/32"], "notByDefault": ["8.8.0.0/16", "2606:4700::/32"]}}));
    let default = build_with(json!({}), &ours).unwrap();
    check_out(
        "default",
        &default,
        &["9.9.9.9", "2a00:1450::1"],
        &["203.0.113.1", "198.51.100.7", "8.8.8.8", "2606:4700::1", "10.0.0.1"],
    );
    let all = build_with(rules(json!([{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}])), &ours).unwrap();
    let open = ["8.8.8.8", "2606:4700::1", "198.51.100.8", "10.0.0.1"];
    check_out("rules", &all, &open, &[&METADATA[..], &["203.0.113.1", "198.51.100.7"]].concat());
    let error = build_with(rules(json!([{"cidr": "203.0.113.128/25"}])), &ours).unwrap_err();
    assert!(error.starts_with("spec.network.egress.rules[0].cidr: "), "{error}");
    // Bits after the prefix in the configuration do not widen or break anything.
    let sloppy = settings(json!({"network": {"never": ["203.0.113.9/24"]}}));
    check_out("sloppy", &build_with(json!({}), &sloppy).unwrap(), &["8.8.8.8"], &["203.0.113.1"]);
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
        for stranger in
            [ip("8.8.8.8"), pod("", "sandbox-operator", ""), pod(peer, OWN_NAMESPACE, ""), pod(peer, "other", "name=sandbox-operator"), dns_pod()]
        {
            assert!(!allows_in(&policy, &stranger, AGENT, "TCP"), "{stranger:?}");
            for port in [1, 80, AGENT - 1, AGENT + 1, 65_535] {
                assert_eq!(allows_in(&policy, &stranger, port, "TCP"), open, "{stranger:?} {port}");
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

#[test]
#[rustfmt::skip]
fn every_except_is_a_strict_part_of_its_range() {
    let busy = settings(json!({"network": {"never": ["8.0.0.0/7", "8.8.8.8/32", "2000::/4"], "notByDefault": ["0.0.0.0/2", "64.0.0.0/3"]}}));
    let mut blocks = 0;
    for settings in [&Settings::default(), &busy] {
        let mut networks = vec![json!({})];
        for bits in 0..=32 {
            for address in [0_u32, 0x0808_0808, 0x0A00_0001, 0xA9FE_A9FE, 0x6464_64C8, 0xFFFF_FFFF] {
                let cidr = IpNet::new(std::net::Ipv4Addr::from(address).into(), bits).unwrap().trunc();
                networks.push(rules(json!([{"cidr": cidr.to_string()}])));
                if let Some(half) = cidr.subnets(bits + 1).ok().and_then(|mut s| s.next()) {
                    networks.push(rules(json!([{"cidr": cidr.to_string(), "except": [half.to_string()]}])));
                }
            }
            for address in ["fe80::1", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "2000::1"] {
                let cidr = IpNet::new(address.parse().unwrap(), bits * 4).unwrap().trunc();
                networks.push(rules(json!([{"cidr": cidr.to_string()}])));
            }
        }
        for network in networks {
            let Ok(policy) = build_with(network.clone(), settings) else { continue };
            for block in policy.spec.iter().flat_map(|s| s.egress.iter().flatten()).flat_map(|r| r.to.iter().flatten()) {
                let Some(block) = &block.ip_block else { continue };
                let cidr: IpNet = block.cidr.parse().unwrap();
                let holes: Vec<IpNet> = block.except.iter().flatten().map(|e| e.parse().unwrap()).collect();
                for (i, hole) in holes.iter().enumerate() {
                    assert!(cidr.contains(hole) && *hole != cidr && hole.trunc() == *hole, "{hole} in {cidr}: {network}");
                    assert!(!holes[..i].iter().any(|h| h.contains(hole) || hole.contains(h)), "{hole} twice: {network}");
                }
                blocks += 1;
            }
            check_out(&network.to_string(), &policy, &[], &METADATA);
        }
    }
    assert!(blocks > 500, "{blocks} ranges checked");
}

#[test]
fn the_standing_policy_denies_everything_of_every_sandbox() {
    let policy = network_policy::deny_all(OWN_NAMESPACE);
    assert_eq!(policy.metadata.namespace.as_deref(), Some(OWN_NAMESPACE));
    check_out("deny", &policy, &[], &[&PUBLIC[..], &PRIVATE, &METADATA].concat());
    for remote in [dns_pod(), gateway(), ip("8.8.8.8")] {
        assert!(
            !allows_out(&policy, &remote, 53, "UDP") && !allows_in(&policy, &remote, AGENT, "TCP"),
            "{remote:?}"
        );
    }
    let own = build(json!({}));
    let pod = own.metadata.labels.clone().unwrap();
    for policy in [policy, own] {
        let selector = policy.spec.unwrap().pod_selector.unwrap();
        assert!(selects(&selector, &pod) && !selects(&selector, &labels("app=web")));
        let another = labels("sandbox-operator.dev/sandbox-uid=another");
        assert_eq!(selects(&selector, &another), selector.match_expressions.is_some());
    }
}

#[test]
fn the_default_policy_in_full() {
    insta::assert_yaml_snapshot!(build(json!({})), @r#"
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      finalizers:
        - foregroundDeletion
      labels:
        app.kubernetes.io/managed-by: sandbox-operator
        sandbox-operator.dev/sandbox: train
        sandbox-operator.dev/sandbox-uid: 1234abcd-0000-0000-0000-000000000000
      name: train-1234abcd
      namespace: team
      ownerReferences:
        - apiVersion: sandbox-operator.dev/v1alpha1
          blockOwnerDeletion: true
          controller: true
          kind: Sandbox
          name: train
          uid: 1234abcd-0000-0000-0000-000000000000
    spec:
      egress:
        - ports:
            - port: 53
              protocol: UDP
            - port: 53
              protocol: TCP
          to:
            - namespaceSelector:
                matchLabels:
                  kubernetes.io/metadata.name: kube-system
              podSelector:
                matchLabels:
                  k8s-app: kube-dns
        - to:
            - ipBlock:
                cidr: 0.0.0.0/0
                except:
                  - 0.0.0.0/8
                  - 10.0.0.0/8
                  - 100.64.0.0/10
                  - 127.0.0.0/8
                  - 168.63.129.16/32
                  - 169.254.0.0/16
                  - 172.16.0.0/12
                  - 192.0.0.0/24
                  - 192.0.2.0/24
                  - 192.168.0.0/16
                  - 198.18.0.0/15
                  - 198.51.100.0/24
                  - 203.0.113.0/24
                  - 224.0.0.0/3
            - ipBlock:
                cidr: "::/0"
                except:
                  - "::/127"
                  - "64:ff9b::/96"
                  - "64:ff9b:1::/48"
                  - "100::/64"
                  - "2001::/32"
                  - "2002::/16"
                  - "fc00::/7"
                  - "fe80::/9"
                  - "ff00::/8"
      ingress:
        - from:
            - namespaceSelector:
                matchLabels:
                  kubernetes.io/metadata.name: sandbox-operator
              podSelector:
                matchLabels:
                  app.kubernetes.io/part-of: sandbox-operator
          ports:
            - port: 8971
              protocol: TCP
      podSelector:
        matchLabels:
          sandbox-operator.dev/sandbox-uid: 1234abcd-0000-0000-0000-000000000000
      policyTypes:
        - Ingress
        - Egress
    "#);
}
