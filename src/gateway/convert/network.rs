//! Network options.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::problems::Problems;
use super::services::{self, ANYWHERE};
use super::text::quoted;
use crate::api::network::{Dns, Protocol};
use crate::api::{Egress, EgressMode, EgressRule, Ingress, IngressRule, Network, NetworkPort};
use crate::proto::sandbox as pb;
use crate::resources::addresses::{Lists, subtract};
use crate::resources::network_policy::without_agent;

/// A range of all ports.
const ALL_PORTS: (i32, i32) = (1, 65_535);

/// What no sandbox may reach, whatever is configured beside it: a rule for nothing else is refused before the operator does so.
static NEVER: LazyLock<Vec<IpNet>> = LazyLock::new(|| Lists::new(&[], &[]).never);

/// What a request's network depends on.
pub struct Around<'a> {
    /// The agents' port, which is nobody else's.
    pub agent_port: u16,
    /// The ports that rules without ports are about.
    pub custom: &'a [NetworkPort],
}

/// The network of a request. `opened`: rules that the services' visibilities add.
pub fn from_proto(options: pb::NetworkOptions, around: &Around<'_>, opened: Vec<IngressRule>, problems: &mut Problems) -> Option<Network> {
    let at = "sandbox.spec.network";
    let pb::NetworkOptions {
        ingress,
        egress,
        deny_egress,
        deny_ingress,
        dns_egress,
    } = options;
    let (deny_egress, deny_ingress) = (deny_egress == Some(true), deny_ingress == Some(true));
    if deny_egress && !egress.is_empty() {
        problems.wrong(format!("{at}.deny_egress"), "cannot be given together with egress");
    }
    if deny_ingress && !(ingress.is_empty() && opened.is_empty()) {
        problems.wrong(
            format!("{at}.deny_ingress"),
            "cannot be given together with ingress or with visible services",
        );
    }
    let dns = match pb::DnsEgressMode::try_from(dns_egress) {
        Ok(pb::DnsEgressMode::Unspecified) => deny_egress.then_some(Dns::Cluster),
        Ok(pb::DnsEgressMode::Allow) => Some(Dns::Cluster),
        Ok(pb::DnsEgressMode::Deny) => Some(Dns::None),
        Err(_) => {
            problems.wrong(format!("{at}.dns_egress"), "is not known");
            None
        }
    };
    let mut rules = vec![];
    for (i, rule) in egress.into_iter().enumerate() {
        rules.extend(egress_rule(&format!("{at}.egress[{i}]"), rule, problems));
    }
    let egress = if deny_egress {
        Some((EgressMode::None, None))
    } else {
        (!rules.is_empty()).then_some((EgressMode::Rules, Some(rules)))
    };
    let mut rules = vec![];
    for (i, rule) in ingress.into_iter().enumerate() {
        rules.extend(ingress_rule(&format!("{at}.ingress[{i}]"), rule, around, problems));
    }
    rules.extend(opened);
    let network = Network {
        egress: egress.map(|(mode, rules)| Egress { mode, rules }),
        ingress: (!rules.is_empty()).then_some(Ingress { rules }),
        dns,
    };
    (network != Network::default()).then_some(network)
}

fn egress_rule(at: &str, rule: pb::EgressRule, problems: &mut Problems) -> Option<EgressRule> {
    use pb::egress_rule::Destination;
    let pb::EgressRule {
        destination,
        ports,
        https_hostname_except,
    } = rule;
    let by_name = matches!(destination, Some(Destination::HttpsHostname(_)));
    if !by_name && !https_hostname_except.is_empty() {
        problems.wrong(format!("{at}.https_hostname_except"), "needs https_hostname");
    }
    let ports: Vec<NetworkPort> = port_ranges(at, ports, problems);
    let rule = EgressRule {
        ports: (!ports.is_empty()).then_some(ports),
        ..EgressRule::default()
    };
    match destination {
        None => problems.wrong(at, "needs a destination"),
        Some(Destination::HttpsHostname(_)) => problems.no_runner(&format!("{at}.https_hostname"), "rules by host name are not supported"),
        Some(Destination::Cidr(block)) => {
            let (cidr, except) = cidr(at, block, &NEVER, problems)?;
            return Some(EgressRule {
                cidr: Some(cidr),
                except,
                ..rule
            });
        }
        Some(Destination::Tenant(scope)) => {
            check_tenant(at, scope, problems);
            return Some(EgressRule {
                pod_selector: Some(LabelSelector::default()),
                ..rule
            });
        }
        Some(Destination::Any(any)) => {
            if !any {
                problems.wrong(format!("{at}.any"), "must be true");
            }
            return Some(EgressRule {
                internet: Some(true),
                ..rule
            });
        }
        Some(Destination::Selector(pb::SelectorBlock {
            pod_labels,
            namespace_labels,
        })) => {
            if pod_labels.is_empty() && namespace_labels.is_empty() {
                problems.wrong(format!("{at}.selector"), "needs pod_labels or namespace_labels");
            }
            return Some(EgressRule {
                pod_selector: selector(pod_labels),
                namespace_selector: selector(namespace_labels),
                ..rule
            });
        }
    }
    None
}

fn ingress_rule(at: &str, rule: pb::IngressRule, around: &Around<'_>, problems: &mut Problems) -> Vec<IngressRule> {
    use pb::ingress_rule::Source;
    let pb::IngressRule { source, ports } = rule;
    let mut ports = port_ranges(at, ports, problems);
    if ports.is_empty() {
        ports = around.custom.to_vec();
    }
    let agent = i32::from(around.agent_port);
    if ports.is_empty() {
        problems.wrong(format!("{at}.ports"), "are needed where no service has the visibility CUSTOM");
    } else if ports.iter().all(|p| without_agent(p, agent).is_empty()) {
        problems.wrong(format!("{at}.ports"), format!("{agent} is the platform's"));
    }
    let rule = IngressRule {
        ports,
        ..IngressRule::default()
    };
    match source {
        None => problems.wrong(at, "needs a source"),
        Some(Source::Cidr(block)) => {
            return cidr(at, block, &[], problems)
                .map(|(cidr, except)| IngressRule {
                    cidr: Some(cidr),
                    except,
                    ..rule
                })
                .into_iter()
                .collect();
        }
        Some(Source::Tenant(scope)) => {
            check_tenant(at, scope, problems);
            return vec![IngressRule {
                pod_selector: Some(LabelSelector::default()),
                ..rule
            }];
        }
        Some(Source::Any(any)) => {
            if !any {
                problems.wrong(format!("{at}.any"), "must be true");
            }
            return services::anywhere(&rule.ports).collect();
        }
    }
    vec![]
}

/// Both scopes are the namespace: it is the tenant.
fn check_tenant(at: &str, scope: i32, problems: &mut Problems) {
    match pb::TenantScope::try_from(scope) {
        Ok(pb::TenantScope::SameUser | pb::TenantScope::SameOrg) => {}
        Ok(pb::TenantScope::SandboxNetwork) => problems.wrong(format!("{at}.tenant"), "sandbox networks are not supported"),
        Ok(pb::TenantScope::Unspecified) | Err(_) => problems.wrong(format!("{at}.tenant"), "is not known"),
    }
}

fn selector(labels: BTreeMap<String, String>) -> Option<LabelSelector> {
    (!labels.is_empty()).then_some(LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    })
}

/// A range with no bits set after its prefix, and what is taken out of it. Something must be left, `never` apart.
fn cidr(at: &str, block: pb::CidrBlock, never: &[IpNet], problems: &mut Problems) -> Option<(String, Option<Vec<String>>)> {
    let pb::CidrBlock { cidr, except } = block;
    let mut parse = |field: String, text: &str| {
        let net = text.parse::<IpNet>().ok().map(|n| n.trunc());
        let mapped = |n: &IpNet| matches!(n, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
        if net.is_none() {
            problems.wrong(field, format!("{} is not an address range such as 203.0.113.0/24", quoted(text)));
        } else if net.as_ref().is_some_and(mapped) {
            problems.wrong(field, format!("{} is IPv4 in IPv6 form; write it as IPv4", quoted(text)));
        }
        net
    };
    let whole = parse(format!("{at}.cidr.cidr"), &cidr);
    let parts: Vec<Option<IpNet>> = except
        .iter()
        .enumerate()
        .map(|(i, text)| parse(format!("{at}.cidr.except[{i}]"), text))
        .collect();
    let whole = whole?;
    for (i, part) in parts.iter().enumerate().filter_map(|(i, p)| Some((i, (*p)?))) {
        if part == whole || !whole.contains(&part) {
            problems.wrong(format!("{at}.cidr.except[{i}]"), format!("{part} is not a part of {whole}"));
        }
    }
    let minus: Vec<IpNet> = parts.iter().flatten().chain(never).copied().collect();
    if !parts.contains(&Some(whole)) && subtract(whole, &minus).is_none() {
        problems.wrong(
            format!("{at}.cidr.cidr"),
            format!("no address of {whole} is left that a sandbox may reach"),
        );
    }
    let except: Vec<String> = parts.into_iter().flatten().map(|p| p.to_string()).collect();
    Some((whole.to_string(), (!except.is_empty()).then_some(except)))
}

/// A range without a port is all ports of its protocol.
fn port_ranges(at: &str, ports: Vec<pb::PortRange>, problems: &mut Problems) -> Vec<NetworkPort> {
    let mut all = vec![];
    for (i, range) in ports.into_iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        let pb::PortRange { protocol, port, end_port } = range;
        let protocol = match protocol.to_ascii_uppercase().as_str() {
            "" => None,
            "TCP" => Some(Protocol::TCP),
            "UDP" => Some(Protocol::UDP),
            "SCTP" => Some(Protocol::SCTP),
            _ => {
                problems.wrong(format!("{at}.protocol"), format!("{} is not TCP, UDP or SCTP", quoted(&protocol)));
                None
            }
        };
        let (port, end) = if (port, end_port) == (0, 0) { ALL_PORTS } else { (port, end_port) };
        let number = 1..=65_535;
        if !number.contains(&port) || !(end == 0 || (number.contains(&end) && end >= port)) {
            problems.wrong(&at, "must be a port from 1 to 65535, or a range of such");
        }
        all.push(NetworkPort {
            port,
            end_port: (end != 0 && end != port).then_some(end),
            protocol,
        });
    }
    all
}

/// The options that would ask for `network`, without the rules that the services' visibilities added.
pub fn to_proto(network: Option<&Network>, opened: &[IngressRule]) -> Option<pb::NetworkOptions> {
    let network = network?;
    let rules = network.ingress.as_ref().map(|i| i.rules.as_slice()).unwrap_or_default();
    let denied = network.egress.as_ref().is_some_and(|e| e.mode == EgressMode::None);
    let options = pb::NetworkOptions {
        ingress: ingress_to_proto(rules.strip_suffix(opened).unwrap_or(rules)),
        egress: network.egress.as_ref().map(rules_to_proto).unwrap_or_default(),
        deny_egress: denied.then_some(true),
        deny_ingress: None,
        dns_egress: match network.dns {
            Some(Dns::Cluster) if denied => pb::DnsEgressMode::Unspecified,
            Some(Dns::Cluster) => pb::DnsEgressMode::Allow,
            Some(Dns::None) => pb::DnsEgressMode::Deny,
            None if denied => pb::DnsEgressMode::Deny,
            None => pb::DnsEgressMode::Unspecified,
        }
        .into(),
    };
    (options != pb::NetworkOptions::default()).then_some(options)
}

/// What may be reached.
pub fn effective_egress(network: Option<&Network>) -> Vec<pb::EgressRule> {
    match network.and_then(|n| n.egress.as_ref()) {
        Some(egress) if egress.mode != EgressMode::Internet => rules_to_proto(egress),
        _ => vec![pb::EgressRule {
            destination: Some(pb::egress_rule::Destination::Any(true)),
            ..pb::EgressRule::default()
        }],
    }
}

/// Whether names may be resolved.
pub fn effective_dns(network: Option<&Network>) -> pb::DnsEgressMode {
    let denied = network.and_then(|n| n.egress.as_ref()).is_some_and(|e| e.mode == EgressMode::None);
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
        let whole = rule.pod_selector.as_ref().is_some_and(|s| *s == LabelSelector::default());
        if whole && rule.namespace_selector.is_none() {
            return Some(Destination::Tenant(pb::TenantScope::SameOrg.into()));
        }
        Some(Destination::Selector(pb::SelectorBlock {
            pod_labels: labels(rule.pod_selector.as_ref())?,
            namespace_labels: labels(rule.namespace_selector.as_ref())?,
        }))
    };
    let rules = egress.rules.iter().flatten();
    // A selector with expressions (of a sandbox made by kubectl) has no form on the wire.
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

/// Who may connect.
pub fn ingress_to_proto(rules: &[IngressRule]) -> Vec<pb::IngressRule> {
    use pb::ingress_rule::Source;
    let source = |rule: &IngressRule| match &rule.cidr {
        Some(cidr) if cidr == ANYWHERE[0] && rule.except.is_none() => Some(Source::Any(true)),
        Some(cidr) => Some(Source::Cidr(block(cidr, rule.except.as_ref()))),
        None if rule.namespace_selector.is_none() && rule.pod_selector == Some(LabelSelector::default()) => {
            Some(Source::Tenant(pb::TenantScope::SameOrg.into()))
        }
        None => None,
    };
    // `any` is two rules of ours, one for each family.
    let second = |rule: &IngressRule, i: usize| {
        let first = i.checked_sub(1).and_then(|i| rules.get(i));
        rule.cidr.as_deref() == Some(ANYWHERE[1])
            && first.is_some_and(|f| f.cidr.as_deref() == Some(ANYWHERE[0]) && f.except.is_none() && f.ports == rule.ports)
    };
    rules
        .iter()
        .enumerate()
        .filter(|(i, rule)| !second(rule, *i))
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
