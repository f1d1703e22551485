//! The standing deny-all policy and each sandbox's own. Policies only add: what none of them allows is denied.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

use super::addresses::{Lists, subtract};
use super::{Effective, Settings, labels, names};
use crate::api::network::Dns;
use crate::api::{EgressMode, EgressRule, IngressRule, NetworkPort, Sandbox};

/// The policy of a namespace that denies all traffic of our pods. No API says when a policy is enforced, so this one is there before the
/// namespace's first sandbox, and a sandbox's own policy only adds to it.
pub fn deny_all(namespace: &str) -> NetworkPolicy {
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(names::DENY_ALL.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels::managed()),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::all_sandboxes()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            // The API server drops empty lists; leaving them out keeps ours equal to what it returns.
            ..NetworkPolicySpec::default()
        }),
    }
}

/// The sandbox's own policy. An error names the field of a rule that can never hold.
pub fn build(sandbox: &Sandbox, effective: &Effective, settings: &Settings) -> Result<NetworkPolicy, String> {
    let mut metadata = names::child_meta(sandbox);
    // With it the garbage collector keeps the policy until the pod, which names it as an owner, is gone.
    metadata.finalizers = Some(vec![names::FOREGROUND_DELETION.into()]);
    let egress = egress(effective, settings)?;
    Ok(NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels::selector(sandbox)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress(effective, settings)?),
            egress: (!egress.is_empty()).then_some(egress),
        }),
    })
}

/// Whether the sandbox may ask the cluster's DNS.
pub fn dns(effective: &Effective) -> Dns {
    let network = effective.workload.network.as_ref();
    network.and_then(|n| n.dns).unwrap_or_else(|| match mode(effective) {
        EgressMode::None => Dns::None,
        EgressMode::Internet | EgressMode::Rules => Dns::Cluster,
    })
}

fn mode(effective: &Effective) -> EgressMode {
    effective
        .workload
        .network
        .as_ref()
        .and_then(|n| n.egress.as_ref())
        .map_or(EgressMode::Internet, |e| e.mode)
}

fn egress(effective: &Effective, settings: &Settings) -> Result<Vec<NetworkPolicyEgressRule>, String> {
    let lists = settings.lists();
    let mut rules = vec![];
    if dns(effective) == Dns::Cluster {
        rules.push(dns_rule(settings));
    }
    match mode(effective) {
        EgressMode::None => {}
        EgressMode::Internet => rules.push(internet(&lists)),
        EgressMode::Rules => {
            let declared = effective
                .workload
                .network
                .iter()
                .filter_map(|n| n.egress.as_ref())
                .flat_map(|e| e.rules.iter().flatten());
            for (i, rule) in declared.enumerate() {
                rules.push(egress_rule(rule, &lists).map_err(|e| format!("spec.network.egress.rules[{i}].{e}"))?);
            }
        }
    }
    Ok(rules)
}

/// The cluster's DNS pods by selector, and configured addresses; never port 53 anywhere.
fn dns_rule(settings: &Settings) -> NetworkPolicyEgressRule {
    let dns = &settings.network.dns;
    let pods = selector_peer(
        Some(labels_selector(&dns.pod_labels)),
        Some(labels_selector(&BTreeMap::from([(labels::NAMESPACE_NAME.into(), dns.namespace.clone())]))),
    );
    let addresses = dns.addresses.iter().map(|net| block_peer(*net, &[]));
    let ports = dns
        .ports
        .iter()
        .flat_map(|p| [policy_port("UDP", i32::from(*p), None), policy_port("TCP", i32::from(*p), None)]);
    NetworkPolicyEgressRule {
        to: Some(std::iter::once(pods).chain(addresses).collect()),
        ports: Some(ports.collect()),
    }
}

fn internet(lists: &Lists) -> NetworkPolicyEgressRule {
    let minus = lists.not_internet();
    let whole = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|s| s.parse().ok());
    let peers = whole.filter_map(|net| subtract(net, &minus)).map(|b| block_peer(b.cidr, &b.except));
    NetworkPolicyEgressRule {
        to: Some(peers.collect()),
        ports: None,
    }
}

fn egress_rule(rule: &EgressRule, lists: &Lists) -> Result<NetworkPolicyEgressRule, String> {
    let to = if rule.internet == Some(true) {
        internet(lists).to
    } else {
        let peer = peer(
            rule.cidr.as_deref(),
            rule.except.as_deref(),
            &rule.pod_selector,
            &rule.namespace_selector,
            &lists.never,
        )?;
        Some(vec![peer])
    };
    let ports = rule
        .ports
        .as_ref()
        .filter(|p| !p.is_empty())
        .map(|ports| ports.iter().map(declared_port).collect());
    Ok(NetworkPolicyEgressRule { to, ports })
}

/// Gateway and operator on the agent's port, as one peer (an intersection of namespace and labels), then the declared rules.
fn ingress(effective: &Effective, settings: &Settings) -> Result<Vec<NetworkPolicyIngressRule>, String> {
    let network = &settings.network;
    let peers = selector_peer(
        Some(labels_selector(&network.peer_labels)),
        Some(labels_selector(&BTreeMap::from([(
            labels::NAMESPACE_NAME.into(),
            network.peer_namespace.clone(),
        )]))),
    );
    let agent = i32::from(settings.agent.port);
    let mut rules = vec![NetworkPolicyIngressRule {
        from: Some(vec![peers]),
        ports: Some(vec![policy_port("TCP", agent, None)]),
    }];
    let declared = effective
        .workload
        .network
        .iter()
        .filter_map(|n| n.ingress.as_ref())
        .flat_map(|i| &i.rules);
    for (i, rule) in declared.enumerate() {
        rules.push(ingress_rule(rule, agent).map_err(|e| format!("spec.network.ingress.rules[{i}].{e}"))?);
    }
    Ok(rules)
}

fn ingress_rule(rule: &IngressRule, agent: i32) -> Result<NetworkPolicyIngressRule, String> {
    let peer = peer(
        rule.cidr.as_deref(),
        rule.except.as_deref(),
        &rule.pod_selector,
        &rule.namespace_selector,
        &[],
    )?;
    let ports: Vec<_> = rule
        .ports
        .iter()
        .flat_map(|p| without_agent(p, agent))
        .map(|p| declared_port(&p))
        .collect();
    if ports.is_empty() {
        return Err(format!("ports: {agent} is the agent's port"));
    }
    Ok(NetworkPolicyIngressRule {
        from: Some(vec![peer]),
        ports: Some(ports),
    })
}

/// The agent's port taken out of a declared range.
fn without_agent(port: &NetworkPort, agent: i32) -> Vec<NetworkPort> {
    let last = port.end_port.unwrap_or(port.port);
    let other_protocol = port.protocol.unwrap_or_default() != crate::api::network::Protocol::TCP;
    if other_protocol || !(port.port..=last).contains(&agent) {
        return vec![port.clone()];
    }
    let part = |from: i32, to: i32| NetworkPort {
        port: from,
        end_port: (to > from).then_some(to),
        protocol: port.protocol,
    };
    let below = (port.port < agent).then(|| part(port.port, agent - 1));
    let above = (agent < last).then(|| part(agent + 1, last));
    below.into_iter().chain(above).collect()
}

fn peer(
    cidr: Option<&str>,
    except: Option<&[String]>,
    pods: &Option<LabelSelector>,
    namespaces: &Option<LabelSelector>,
    never: &[IpNet],
) -> Result<NetworkPolicyPeer, String> {
    let Some(text) = cidr else {
        return Ok(selector_peer(pods.clone(), namespaces.clone()));
    };
    let net = parse("cidr", text)?;
    let mut minus = never.to_vec();
    for (i, text) in except.into_iter().flatten().enumerate() {
        let field = format!("except[{i}]");
        let hole = parse(&field, text)?;
        if hole == net || !net.contains(&hole) {
            return Err(format!("{field}: {text} is not a part of {net}"));
        }
        minus.push(hole);
    }
    let block = subtract(net, &minus).ok_or_else(|| format!("cidr: no sandbox may reach any address of {net}"))?;
    Ok(block_peer(block.cidr, &block.except))
}

/// Addresses of ::ffff:0:0/96 are IPv4 on the wire, where IPv4 rules decide; the API server refuses them in a policy.
fn parse(field: &str, text: &str) -> Result<IpNet, String> {
    let net: IpNet = text.parse().map_err(|_| format!("{field}: {text} is not an address range"))?;
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err(format!("{field}: {text} is IPv4 in IPv6 form; write it as IPv4")),
        _ => Ok(net),
    }
}

fn block_peer(cidr: IpNet, except: &[IpNet]) -> NetworkPolicyPeer {
    let except = (!except.is_empty()).then(|| except.iter().map(ToString::to_string).collect());
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.to_string(),
            except,
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn selector_peer(pods: Option<LabelSelector>, namespaces: Option<LabelSelector>) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: pods,
        namespace_selector: namespaces,
        ip_block: None,
    }
}

fn labels_selector(labels: &BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels.clone()),
        match_expressions: None,
    }
}

fn declared_port(port: &NetworkPort) -> NetworkPolicyPort {
    policy_port(port.protocol.unwrap_or_default().as_str(), port.port, port.end_port)
}

fn policy_port(protocol: &str, port: i32, end_port: Option<i32>) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(port)),
        end_port,
    }
}
