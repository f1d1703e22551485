//! From the network of a Sandbox to the network options of a request.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

use crate::api::network::Dns;
use crate::api::{Egress, EgressMode, EgressRule, IngressRule, Network, NetworkPort};
use crate::gateway::convert::services::ALL_ADDRESSES;
use crate::gateway::convert::text::non_empty;
use crate::proto::sandbox as pb;

/// The options that request `network`. `service_rules`: the rules that the visibilities of the services stand for; they
/// are left out.
pub(crate) fn to_proto(network: Option<&Network>, service_rules: &[IngressRule]) -> Option<pb::NetworkOptions> {
    let network = network?;
    let rules = network.ingress.as_ref().map(|i| i.rules.as_slice()).unwrap_or_default();
    let denied = network.egress.as_ref().is_some_and(|e| e.mode == EgressMode::None);
    let options = pb::NetworkOptions {
        ingress: ingress_to_proto(rules.strip_suffix(service_rules).unwrap_or(rules)),
        egress: network.egress.as_ref().map(rules_to_proto).unwrap_or_default(),
        deny_egress: denied.then_some(true),
        deny_ingress: None,
        dns_egress: match network.dns {
            Some(Dns::Cluster) => pb::DnsEgressMode::Allow,
            Some(Dns::None) => pb::DnsEgressMode::Deny,
            None if denied => pb::DnsEgressMode::Deny,
            None => pb::DnsEgressMode::Unspecified,
        }
        .into(),
    };
    non_empty(options)
}

/// The egress rules in effect.
pub(crate) fn effective_egress(network: Option<&Network>) -> Vec<pb::EgressRule> {
    match network.and_then(|n| n.egress.as_ref()) {
        Some(egress) if egress.mode != EgressMode::Internet => rules_to_proto(egress),
        _ => vec![pb::EgressRule {
            destination: Some(pb::egress_rule::Destination::Any(true)),
            ..pb::EgressRule::default()
        }],
    }
}

/// Whether the sandbox can resolve names.
pub(crate) fn effective_dns(network: Option<&Network>) -> pb::DnsEgressMode {
    let denied = network
        .and_then(|n| n.egress.as_ref())
        .is_some_and(|e| e.mode == EgressMode::None);
    match network.and_then(|n| n.dns) {
        Some(Dns::None) => pb::DnsEgressMode::Deny,
        None if denied => pb::DnsEgressMode::Deny,
        Some(Dns::Cluster) | None => pb::DnsEgressMode::Allow,
    }
}

fn rules_to_proto(egress: &Egress) -> Vec<pb::EgressRule> {
    use pb::egress_rule::Destination;
    let destination = |rule: &EgressRule| {
        if rule.internet == Some(true) {
            return Some(Destination::Any(true));
        }
        if let Some(cidr) = &rule.cidr {
            return Some(Destination::Cidr(block(cidr, rule.except.as_ref())));
        }
        let selects_all = rule
            .pod_selector
            .as_ref()
            .is_some_and(|s| *s == LabelSelector::default());
        if selects_all && rule.namespace_selector.is_none() {
            return Some(Destination::Tenant(pb::TenantScope::SameOrg.into()));
        }
        Some(Destination::Selector(pb::SelectorBlock {
            pod_labels: labels(rule.pod_selector.as_ref())?,
            namespace_labels: labels(rule.namespace_selector.as_ref())?,
        }))
    };
    let rules = egress.rules.iter().flatten();
    // The API has no selectors with expressions (of a sandbox created with kubectl).
    rules
        .filter_map(|rule| {
            Some(pb::EgressRule {
                destination: Some(destination(rule)?),
                ports: rule.ports.iter().flatten().map(port_range).collect(),
                https_hostname_except: vec![],
            })
        })
        .collect()
}

/// The ingress rules of a request that stand for `rules`.
pub(crate) fn ingress_to_proto(rules: &[IngressRule]) -> Vec<pb::IngressRule> {
    use pb::ingress_rule::Source;
    let source = |rule: &IngressRule| match &rule.cidr {
        Some(cidr) if cidr == ALL_ADDRESSES[0] && rule.except.is_none() => Some(Source::Any(true)),
        Some(cidr) => Some(Source::Cidr(block(cidr, rule.except.as_ref()))),
        None if rule.namespace_selector.is_none() && rule.pod_selector == Some(LabelSelector::default()) => {
            Some(Source::Tenant(pb::TenantScope::SameOrg.into()))
        }
        None => None,
    };
    // `any` stands for two rules, one for each address family.
    let is_second = |rule: &IngressRule, i: usize| {
        let first = i.checked_sub(1).and_then(|i| rules.get(i));
        rule.cidr.as_deref() == Some(ALL_ADDRESSES[1])
            && first.is_some_and(|f| {
                f.cidr.as_deref() == Some(ALL_ADDRESSES[0]) && f.except.is_none() && f.ports == rule.ports
            })
    };
    rules
        .iter()
        .enumerate()
        .filter(|(i, rule)| !is_second(rule, *i))
        .filter_map(|(_, rule)| {
            Some(pb::IngressRule {
                source: Some(source(rule)?),
                ports: rule.ports.iter().map(port_range).collect(),
            })
        })
        .collect()
}

fn block(cidr: &str, except: Option<&Vec<String>>) -> pb::CidrBlock {
    pb::CidrBlock {
        cidr: cidr.into(),
        except: except.cloned().unwrap_or_default(),
    }
}

fn labels(selector: Option<&LabelSelector>) -> Option<BTreeMap<String, String>> {
    let Some(LabelSelector {
        match_labels,
        match_expressions,
    }) = selector
    else {
        return Some(BTreeMap::new());
    };
    match_expressions
        .iter()
        .flatten()
        .next()
        .is_none()
        .then(|| match_labels.clone().unwrap_or_default())
}

fn port_range(port: &NetworkPort) -> pb::PortRange {
    pb::PortRange {
        protocol: port.protocol.map(|p| p.as_str().to_owned()).unwrap_or_default(),
        port: port.port,
        end_port: port.end_port.unwrap_or_default(),
    }
}
