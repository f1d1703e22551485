//! The standing deny-all policy and each sandbox's own. Policies only add: what none of them allows is denied.

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;

use super::address_block;
use super::addresses::{Lists, subtract};
use super::effective::path_of;
use super::{Effective, Settings, labels, names};
use crate::api::network::Dns;
use crate::api::{EgressMode, EgressRule, FieldError, FieldPath, IngressRule, NetworkPort, Sandbox};

/// The policy of a namespace that denies all traffic of sandboxes. No API says when a policy is enforced, so this one
/// exists before the namespace's first pod, and a sandbox's own policy only adds to it.
pub(crate) fn deny_all(namespace: &str) -> NetworkPolicy {
    let metadata = ObjectMeta {
        name: Some(names::DENY_ALL.into()),
        namespace: Some(namespace.into()),
        labels: Some(labels::managed()),
        ..ObjectMeta::default()
    };
    policy(metadata, labels::all_sandboxes(), vec![], vec![])
}

/// The sandbox's own policy. `lists`: [`Settings::lists`], with discovered addresses if there are any. An error names
/// the rule that cannot be allowed.
pub(crate) fn build(
    sandbox: &Sandbox,
    effective: &Effective,
    settings: &Settings,
    lists: &Lists,
) -> Result<NetworkPolicy, FieldError> {
    let mut metadata = names::child_meta(sandbox);
    // By it the garbage collector keeps the policy until the pod, which it owns, is deleted.
    metadata.finalizers = Some(vec![names::FOREGROUND_DELETION.into()]);
    let in_document = |e: FieldError| e.within(&path_of(sandbox, "network"));
    let ingress = ingress(effective, settings).map_err(in_document)?;
    let egress = egress(effective, settings, lists).map_err(in_document)?;
    Ok(policy(metadata, labels::selector(sandbox), ingress, egress))
}

fn policy(
    mut metadata: ObjectMeta,
    pods: LabelSelector,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    let spec = NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
        ingress: non_empty(ingress),
        egress: non_empty(egress),
    };
    metadata.annotations = Some(BTreeMap::from([(labels::SPEC_HASH.into(), hash(&spec))]));
    NetworkPolicy {
        metadata,
        spec: Some(spec),
    }
}

/// The API server drops empty lists and maps; leaving them out keeps ours equal to what it returns.
fn non_empty<C: Default + PartialEq>(all: C) -> Option<C> {
    (all != C::default()).then_some(all)
}

/// FNV-1a of the JSON: the same in every build, unlike the standard library's hasher.
fn hash(spec: &NetworkPolicySpec) -> String {
    let text = serde_json::json!(spec).to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The spec hash in a policy's annotation.
pub(crate) fn spec_hash(policy: &NetworkPolicy) -> Option<&String> {
    policy.metadata.annotations.as_ref()?.get(labels::SPEC_HASH)
}

/// Whether that is the hash of the actual spec.
pub(crate) fn is_unmodified(policy: &NetworkPolicy) -> bool {
    policy
        .spec
        .as_ref()
        .is_some_and(|spec| spec_hash(policy) == Some(&hash(spec)))
}

/// `current` with the labels, the hash and the spec of `wanted`; none if it has them already.
pub(crate) fn repaired(current: &NetworkPolicy, wanted: &NetworkPolicy) -> Option<NetworkPolicy> {
    let mut repaired = current.clone();
    let meta = &mut repaired.metadata;
    meta.labels
        .get_or_insert_default()
        .extend(wanted.metadata.labels.clone().unwrap_or_default());
    meta.annotations
        .get_or_insert_default()
        .extend(wanted.metadata.annotations.clone().unwrap_or_default());
    repaired.spec.clone_from(&wanted.spec);
    (repaired != *current).then_some(repaired)
}

/// Whether the sandbox may use the cluster's DNS.
pub(crate) fn dns(effective: &Effective) -> Dns {
    let network = effective.workload.network.as_ref();
    network.and_then(|n| n.dns).unwrap_or_else(|| match mode(effective) {
        EgressMode::None => Dns::None,
        EgressMode::Internet | EgressMode::Rules => Dns::Cluster,
    })
}

pub(super) fn mode(effective: &Effective) -> EgressMode {
    effective
        .workload
        .network
        .as_ref()
        .and_then(|n| n.egress.as_ref())
        .map_or(EgressMode::Internet, |e| e.mode)
}

/// Paths in errors are relative to `network`.
fn egress(
    effective: &Effective,
    settings: &Settings,
    lists: &Lists,
) -> Result<Vec<NetworkPolicyEgressRule>, FieldError> {
    let mut rules = vec![];
    if dns(effective) == Dns::Cluster {
        rules.extend(dns_rule(settings));
    }
    match mode(effective) {
        EgressMode::None => {}
        EgressMode::Internet => rules.extend(internet(lists)),
        EgressMode::Rules => {
            let declared = effective
                .workload
                .network
                .iter()
                .filter_map(|n| n.egress.as_ref())
                .flat_map(|e| e.rules.iter().flatten());
            let path = FieldPath::default().field("egress").field("rules");
            for (i, rule) in declared.enumerate() {
                rules.push(egress_rule(rule, lists).map_err(|e| e.within(&path.index(i)))?);
            }
        }
    }
    Ok(rules)
}

/// The cluster's DNS pods by selector, and configured addresses; never port 53 of any address. A rule without ports
/// would allow all ports.
fn dns_rule(settings: &Settings) -> Option<NetworkPolicyEgressRule> {
    let dns = &settings.network.dns;
    let addresses = dns.addresses.iter().map(|net| block_peer(*net, &[]));
    let ports = dns.ports.iter().flat_map(|p| {
        [
            policy_port("UDP", i32::from(*p), None),
            policy_port("TCP", i32::from(*p), None),
        ]
    });
    Some(NetworkPolicyEgressRule {
        to: Some(
            std::iter::once(pods_of(&dns.namespace, &dns.pod_labels))
                .chain(addresses)
                .collect(),
        ),
        ports: Some(non_empty(ports.collect())?),
    })
}

/// What is reachable by default. A rule without peers would allow all peers.
fn internet(lists: &Lists) -> Option<NetworkPolicyEgressRule> {
    let minus = lists.not_internet();
    let whole = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|s| s.parse().ok());
    let peers = whole
        .filter_map(|net| subtract(net, &minus))
        .map(|b| block_peer(b.cidr, &b.except));
    Some(NetworkPolicyEgressRule {
        to: Some(non_empty(peers.collect())?),
        ports: None,
    })
}

/// Paths in errors are relative to the rule.
fn egress_rule(rule: &EgressRule, lists: &Lists) -> Result<NetworkPolicyEgressRule, FieldError> {
    let to = if rule.internet == Some(true) {
        internet(lists).and_then(|r| r.to)
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
    // A rule without peers would allow all peers.
    let Some(to) = to else {
        return Err(FieldPath::default()
            .field("internet")
            .error("must be left out: the operator's configuration excludes every public address"));
    };
    let ports = non_empty(rule.ports.iter().flatten().map(declared_port).collect());
    Ok(NetworkPolicyEgressRule { to: Some(to), ports })
}

/// Gateway and operator on the agent's port, as one peer (an intersection of namespace and labels), then the declared
/// rules.
fn ingress(effective: &Effective, settings: &Settings) -> Result<Vec<NetworkPolicyIngressRule>, FieldError> {
    let network = &settings.network;
    let agent = i32::from(settings.agent.port);
    let mut rules = vec![NetworkPolicyIngressRule {
        from: Some(vec![pods_of(&network.peer_namespace, &network.peer_labels)]),
        ports: Some(vec![policy_port("TCP", agent, None)]),
    }];
    let declared = effective
        .workload
        .network
        .iter()
        .filter_map(|n| n.ingress.as_ref())
        .flat_map(|i| &i.rules);
    let path = FieldPath::default().field("ingress").field("rules");
    for (i, rule) in declared.enumerate() {
        rules.push(ingress_rule(rule, agent).map_err(|e| e.within(&path.index(i)))?);
    }
    Ok(rules)
}

fn ingress_rule(rule: &IngressRule, agent: i32) -> Result<NetworkPolicyIngressRule, FieldError> {
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
        let text = format!("must have a port other than {agent}, which is the agent's");
        return Err(FieldPath::default().field("ports").error(text));
    }
    Ok(NetworkPolicyIngressRule {
        from: Some(vec![peer]),
        ports: Some(ports),
    })
}

/// A declared range without the agent's port.
pub(crate) fn without_agent(port: &NetworkPort, agent: i32) -> Vec<NetworkPort> {
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
) -> Result<NetworkPolicyPeer, FieldError> {
    let Some(text) = cidr else {
        return Ok(NetworkPolicyPeer {
            pod_selector: pods.as_ref().map(without_empty),
            namespace_selector: namespaces.as_ref().map(without_empty),
            ip_block: None,
        });
    };
    let (cidr_path, except_path) = (FieldPath::default().field("cidr"), FieldPath::default().field("except"));
    let block = address_block::check((&cidr_path, text), (&except_path, except.unwrap_or_default()), never);
    match block {
        Ok(block) => Ok(block_peer(block.allowed.cidr, &block.allowed.except)),
        Err(errors) => Err(errors
            .into_iter()
            .next()
            .unwrap_or_else(|| cidr_path.error("must be an address range"))),
    }
}

fn block_peer(cidr: IpNet, except: &[IpNet]) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.to_string(),
            except: non_empty(except.iter().map(ToString::to_string).collect()),
        }),
        ..NetworkPolicyPeer::default()
    }
}

/// Pods with these labels in the namespace of this name, as one peer: an intersection.
fn pods_of(namespace: &str, pod_labels: &BTreeMap<String, String>) -> NetworkPolicyPeer {
    let by = |match_labels: BTreeMap<String, String>| LabelSelector {
        match_labels: non_empty(match_labels),
        match_expressions: None,
    };
    NetworkPolicyPeer {
        pod_selector: Some(by(pod_labels.clone())),
        namespace_selector: Some(by(BTreeMap::from([(labels::NAMESPACE_NAME.into(), namespace.into())]))),
        ip_block: None,
    }
}

/// A user's selector without empty lists and maps.
fn without_empty(selector: &LabelSelector) -> LabelSelector {
    let mut selector = selector.clone();
    selector.match_labels = selector.match_labels.and_then(non_empty);
    selector.match_expressions = selector.match_expressions.and_then(non_empty);
    for expression in selector.match_expressions.iter_mut().flatten() {
        expression.values = expression.values.take().and_then(non_empty);
    }
    selector
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

#[cfg(test)]
mod tests;
