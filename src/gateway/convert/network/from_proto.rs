//! From the network options of a request to the network of a Sandbox.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

use crate::api::FieldPath;
use crate::api::network::{Dns, Protocol};
use crate::api::{Egress, EgressMode, EgressRule, Ingress, IngressRule, Network, NetworkPort};
use crate::gateway::convert::problems::Problems;
use crate::gateway::convert::services;
use crate::gateway::convert::text::{non_empty, quoted};
use crate::proto::sandbox as pb;
use crate::resources::network_policy::without_agent;
use crate::resources::{address_block, labels};

const ALL_PORTS: (i32, i32) = (1, 65_535);
const MAX_EXCEPT: usize = 32;
const MAX_PORTS: usize = 32;
const MAX_RULES: usize = 64;

/// What the network of a request depends on.
pub(crate) struct NetworkContext<'a> {
    /// The port of the agents, which no rule opens.
    pub(crate) agent_port: u16,
    /// The addresses that no sandbox can reach.
    pub(crate) never: &'a [IpNet],
    /// Whether a sandbox whose egress is denied can resolve names, if its request does not say.
    pub(crate) dns_without_egress: Dns,
    /// The ports that an ingress rule without ports opens.
    pub(crate) custom_ports: &'a [NetworkPort],
    /// The rules that the visibilities of the services stand for.
    pub(crate) service_rules: Vec<IngressRule>,
}

/// Converts the network options of a request.
pub(crate) fn from_proto(
    path: &FieldPath,
    options: pb::NetworkOptions,
    context: NetworkContext<'_>,
    problems: &mut Problems,
) -> Option<Network> {
    let pb::NetworkOptions {
        ingress,
        egress,
        deny_egress,
        deny_ingress,
        dns_egress,
    } = options;
    let (deny_egress, deny_ingress) = (deny_egress == Some(true), deny_ingress == Some(true));
    if deny_egress && !egress.is_empty() {
        problems.invalid(&path.field("deny_egress"), "must be left out if egress has rules");
    }
    if deny_ingress && !(ingress.is_empty() && context.service_rules.is_empty()) {
        let text = "must be left out if ingress has rules or a service is PUBLIC or PRIVATE";
        problems.invalid(&path.field("deny_ingress"), text);
    }
    let dns = match pb::DnsEgressMode::try_from(dns_egress) {
        // Data can leave in DNS queries, too. Without rules there is no target whose name would have to be resolved.
        Ok(pb::DnsEgressMode::Unspecified) => deny_egress.then_some(context.dns_without_egress),
        Ok(pb::DnsEgressMode::Allow) => Some(Dns::Cluster),
        Ok(pb::DnsEgressMode::Deny) => Some(Dns::None),
        Err(_) => {
            problems.invalid(&path.field("dns_egress"), "must be a DNSEgressMode");
            None
        }
    };
    let (egress_path, ingress_path) = (path.field("egress"), path.field("ingress"));
    problems.at_most(&egress_path, egress.len(), MAX_RULES);
    let mut rules = vec![];
    for (i, rule) in egress.into_iter().enumerate() {
        rules.extend(egress_rule(&egress_path.index(i), rule, context.never, problems));
    }
    let egress = if deny_egress {
        Some((EgressMode::None, None))
    } else {
        non_empty(rules).map(|rules| (EgressMode::Rules, Some(rules)))
    };
    let mut rules = vec![];
    for (i, rule) in ingress.into_iter().enumerate() {
        rules.extend(ingress_rule(&ingress_path.index(i), rule, &context, problems));
    }
    rules.extend(context.service_rules);
    if rules.len() > MAX_RULES {
        let text = format!(
            "must have at most {MAX_RULES} rules (any counts as two, as does a PUBLIC service), not {}",
            rules.len()
        );
        problems.invalid(&ingress_path, text);
    }
    non_empty(Network {
        egress: egress.map(|(mode, rules)| Egress { mode, rules }),
        ingress: non_empty(rules).map(|rules| Ingress { rules }),
        dns,
    })
}

fn egress_rule(path: &FieldPath, rule: pb::EgressRule, never: &[IpNet], problems: &mut Problems) -> Option<EgressRule> {
    use pb::egress_rule::Destination;
    let pb::EgressRule {
        destination,
        ports,
        https_hostname_except,
    } = rule;
    let is_hostname = matches!(destination, Some(Destination::HttpsHostname(_)));
    if !is_hostname && !https_hostname_except.is_empty() {
        problems.invalid(
            &path.field("https_hostname_except"),
            "must be left out without https_hostname",
        );
    }
    let rule = EgressRule {
        ports: non_empty(port_ranges(&path.field("ports"), ports, problems)),
        ..EgressRule::default()
    };
    match destination {
        None => problems.invalid(path, "must have a destination: cidr, tenant, any or selector"),
        Some(Destination::HttpsHostname(_)) => {
            problems.no_suitable_runner(
                &path.field("https_hostname"),
                "rules for host names are not supported; use cidr or any",
            );
        }
        Some(Destination::Cidr(block)) => {
            let (cidr, except) = cidr_block(&path.field("cidr"), block, never, problems)?;
            return Some(EgressRule {
                cidr: Some(cidr),
                except,
                ..rule
            });
        }
        Some(Destination::Tenant(scope)) => {
            check_tenant(&path.field("tenant"), scope, problems);
            return Some(EgressRule {
                pod_selector: Some(LabelSelector::default()),
                ..rule
            });
        }
        Some(Destination::Any(any)) => {
            check_any(&path.field("any"), any, problems);
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
                problems.invalid(&path.field("selector"), "must have pod_labels or namespace_labels");
            }
            return Some(EgressRule {
                pod_selector: selector(&path.field("selector").field("pod_labels"), pod_labels, problems),
                namespace_selector: selector(
                    &path.field("selector").field("namespace_labels"),
                    namespace_labels,
                    problems,
                ),
                ..rule
            });
        }
    }
    None
}

fn ingress_rule(
    path: &FieldPath,
    rule: pb::IngressRule,
    context: &NetworkContext<'_>,
    problems: &mut Problems,
) -> Vec<IngressRule> {
    use pb::ingress_rule::Source;
    let pb::IngressRule { source, ports } = rule;
    let ports_path = path.field("ports");
    let mut ports = port_ranges(&ports_path, ports, problems);
    if ports.is_empty() {
        ports = context.custom_ports.to_vec();
    }
    let agent_port = i32::from(context.agent_port);
    if ports.is_empty() {
        problems.invalid(&ports_path, "must have a port if no service has VISIBILITY_CUSTOM");
    } else if ports.iter().all(|p| without_agent(p, agent_port).is_empty()) {
        problems.invalid(
            &ports_path,
            format!("{agent_port} is reserved for the platform; choose another port"),
        );
    }
    let rule = IngressRule {
        ports,
        ..IngressRule::default()
    };
    match source {
        None => {
            problems.invalid(path, "must have a source: cidr, tenant or any");
            vec![]
        }
        Some(Source::Cidr(block)) => {
            let block = cidr_block(&path.field("cidr"), block, &[], problems);
            let rule = block.map(|(cidr, except)| IngressRule {
                cidr: Some(cidr),
                except,
                ..rule
            });
            rule.into_iter().collect()
        }
        Some(Source::Tenant(scope)) => {
            check_tenant(&path.field("tenant"), scope, problems);
            vec![IngressRule {
                pod_selector: Some(LabelSelector::default()),
                ..rule
            }]
        }
        Some(Source::Any(any)) => {
            check_any(&path.field("any"), any, problems);
            services::from_everywhere(&rule.ports).collect()
        }
    }
}

fn check_any(path: &FieldPath, any: bool, problems: &mut Problems) {
    if !any {
        problems.invalid(path, "must be true");
    }
}

/// Both scopes are the namespace, which is the tenant.
fn check_tenant(path: &FieldPath, scope: i32, problems: &mut Problems) {
    match pb::TenantScope::try_from(scope) {
        Ok(pb::TenantScope::SameUser | pb::TenantScope::SameOrg) => {}
        Ok(pb::TenantScope::SandboxNetwork) => {
            problems.invalid(path, "sandbox networks are not supported; use TENANT_SCOPE_SAME_ORG")
        }
        Ok(pb::TenantScope::Unspecified) | Err(_) => {
            problems.invalid(path, "must be TENANT_SCOPE_SAME_USER or TENANT_SCOPE_SAME_ORG")
        }
    }
}

fn selector(
    path: &FieldPath,
    match_labels: BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<LabelSelector> {
    for (key, value) in &match_labels {
        if !labels::is_key(key) || !(value.is_empty() || labels::is_value(value)) {
            problems.invalid(
                &path.key(key),
                "must be a label: the key and the value of one are at most 63 letters, digits, '-', '_' and '.'",
            );
        }
    }
    non_empty(match_labels).map(|match_labels| LabelSelector {
        match_labels: Some(match_labels),
        match_expressions: None,
    })
}

/// Converts an address range and the ranges that are excluded from it.
fn cidr_block(
    path: &FieldPath,
    block: pb::CidrBlock,
    never: &[IpNet],
    problems: &mut Problems,
) -> Option<(String, Option<Vec<String>>)> {
    let pb::CidrBlock { cidr, except } = block;
    let (cidr_path, except_path) = (path.field("cidr"), path.field("except"));
    problems.at_most(&except_path, except.len(), MAX_EXCEPT);
    match address_block::check((&cidr_path, &cidr), (&except_path, &except), never) {
        Ok(block) => {
            let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
            Some((block.cidr.to_string(), non_empty(except)))
        }
        Err(errors) => {
            for error in errors {
                problems.invalid(&error.path, error.message);
            }
            None
        }
    }
}

/// A range without a port stands for all ports of its protocol.
fn port_ranges(path: &FieldPath, ports: Vec<pb::PortRange>, problems: &mut Problems) -> Vec<NetworkPort> {
    problems.at_most(path, ports.len(), MAX_PORTS);
    let mut converted = vec![];
    for (i, range) in ports.into_iter().enumerate() {
        let path = path.index(i);
        let pb::PortRange {
            protocol,
            port,
            end_port,
        } = range;
        let protocol = match protocol.to_ascii_uppercase().as_str() {
            "" => None,
            "TCP" => Some(Protocol::TCP),
            "UDP" => Some(Protocol::UDP),
            "SCTP" => Some(Protocol::SCTP),
            _ => {
                problems.invalid(
                    &path.field("protocol"),
                    format!("must be TCP, UDP or SCTP; {} is not", quoted(&protocol)),
                );
                None
            }
        };
        let (port, end) = if (port, end_port) == (0, 0) {
            ALL_PORTS
        } else {
            (port, end_port)
        };
        if !(1..=65_535).contains(&port) {
            problems.invalid(&path.field("port"), "must be 1 to 65535");
        }
        if end != 0 && !(port..=65_535).contains(&end) {
            problems.invalid(&path.field("end_port"), "must be port to 65535");
        }
        converted.push(NetworkPort {
            port,
            end_port: (end != 0 && end != port).then_some(end),
            protocol,
        });
    }
    converted
}
