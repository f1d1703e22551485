//! What a sandbox's NetworkPolicy allows and denies, by an evaluator of policies: the rules of Kubernetes'
//! documentation in a few lines.
#![allow(clippy::unwrap_used)]

mod allowed;
mod refused;
mod shape;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::{FieldError, Sandbox};
use crate::resources::{Effective, Settings, network_policy};

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
    let by_label = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
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
        assert!(
            peer.pod_selector.is_none() && peer.namespace_selector.is_none(),
            "the API refuses both"
        );
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
fn rule_matches(
    peers: Option<&Vec<NetworkPolicyPeer>>,
    ports: Option<&Vec<NetworkPolicyPort>>,
    to: &Remote,
    port: i32,
    protocol: &str,
) -> bool {
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

fn build_with(network: Value, settings: &Settings) -> Result<NetworkPolicy, FieldError> {
    let sandbox = sandbox(network);
    network_policy::build(
        &sandbox,
        &Effective::new(&sandbox, None, settings),
        settings,
        &settings.lists(),
    )
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

const PUBLIC: [&str; 6] = [
    "8.8.8.8",
    "1.1.1.1",
    "9.255.255.255",
    "172.32.0.1",
    "2606:4700::1",
    "2a00:1450::1",
];
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
