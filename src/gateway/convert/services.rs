//! Services: ports, and who may connect to them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};

use super::problems::Problems;
use super::text::quoted;
use crate::api::network::Protocol;
use crate::api::{IngressRule, NetworkPort, Port};
use crate::proto::sandbox as pb;

/// Visibilities of ports by their names.
pub type Visibilities = BTreeMap<String, i32>;

/// Every IPv4 and every IPv6 address.
pub const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Ports of a request, and their visibilities.
pub fn from_proto(services: Vec<pb::Service>, agent_port: u16, problems: &mut Problems) -> (Vec<Port>, Visibilities) {
    let (mut ports, mut visibilities, mut seen) = (vec![], Visibilities::new(), BTreeSet::new());
    for (i, service) in services.into_iter().enumerate() {
        let at = format!("sandbox.spec.services[{i}]");
        let pb::Service {
            port,
            name,
            protocol,
            visibility,
            endpoint,
        } = service;
        if !(1..=65_535).contains(&port) {
            problems.wrong(format!("{at}.port"), "must be 1 to 65535");
        } else if port == i32::from(agent_port) {
            problems.wrong(format!("{at}.port"), format!("{port} is the platform's"));
        }
        let name = if name.is_empty() { format!("port-{port}") } else { name };
        if !is_port_name(&name) {
            let text = format!("{} must be at most 15 of a-z, 0-9 and -, with a letter", quoted(&name));
            problems.wrong(format!("{at}.name"), text);
        }
        let protocol = match pb::ServiceProtocol::try_from(protocol) {
            Ok(pb::ServiceProtocol::Unspecified) => None,
            Ok(pb::ServiceProtocol::Tcp) => Some(Protocol::TCP),
            Ok(pb::ServiceProtocol::Udp) => Some(Protocol::UDP),
            Ok(pb::ServiceProtocol::Sctp) => Some(Protocol::SCTP),
            Err(_) => {
                problems.wrong(format!("{at}.protocol"), "is not known");
                None
            }
        };
        if pb::Visibility::try_from(visibility).is_err() {
            problems.wrong(format!("{at}.visibility"), "is not known");
        }
        if let Some(endpoint) = endpoint {
            check_endpoint(&at, endpoint, problems);
        }
        let number = (port, protocol.unwrap_or_default().as_str());
        if !seen.insert(name.clone()) || ports.iter().any(|p: &Port| (p.port, p.protocol.unwrap_or_default().as_str()) == number) {
            problems.wrong(at, "its name or port is there twice");
        }
        visibilities.insert(name.clone(), visibility);
        // Whoever may connect from outside shall find a way in.
        let public = (visibility == i32::from(pb::Visibility::Public)).then_some(true);
        ports.push(Port {
            name,
            port,
            protocol,
            public,
        });
    }
    (ports, visibilities)
}

fn check_endpoint(at: &str, endpoint: pb::EndpointSpec, problems: &mut Problems) {
    let pb::EndpointSpec {
        kind,
        auth,
        request_timeout_seconds,
    } = endpoint;
    match pb::EndpointKind::try_from(kind) {
        Ok(pb::EndpointKind::Unspecified) => {
            problems.unsupported(format!("{at}.endpoint.auth"), auth != 0);
            problems.unsupported(format!("{at}.endpoint.request_timeout_seconds"), request_timeout_seconds != 0);
        }
        Ok(pb::EndpointKind::Https | pb::EndpointKind::TlsPassthrough) => {
            problems.not_implemented(&format!("{at}.endpoint.kind"), "HTTPS and TLS endpoints are not supported");
        }
        Err(_) => problems.wrong(format!("{at}.endpoint.kind"), "is not known"),
    }
}

fn is_port_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=15).contains(&name.len())
        && name.bytes().all(good)
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// The ports of one visibility.
pub fn visible(ports: &[Port], visibilities: &Visibilities, wanted: pb::Visibility) -> Vec<NetworkPort> {
    ports
        .iter()
        .filter(|p| visibilities.get(&p.name) == Some(&wanted.into()))
        .map(|p| NetworkPort {
            port: p.port,
            end_port: None,
            protocol: p.protocol,
        })
        .collect()
}

/// What the visibilities allow: PUBLIC everyone, PRIVATE the pods of the same namespace; CUSTOM is said by the network's own rules.
pub fn ingress(ports: &[Port], visibilities: &Visibilities) -> Vec<IngressRule> {
    let public = visible(ports, visibilities, pb::Visibility::Public);
    let private = visible(ports, visibilities, pb::Visibility::Private);
    let mut rules: Vec<IngressRule> = vec![];
    if !public.is_empty() {
        rules.extend(anywhere(&public));
    }
    if !private.is_empty() {
        rules.push(IngressRule {
            pod_selector: Some(LabelSelector::default()),
            ports: private,
            ..IngressRule::default()
        });
    }
    rules
}

/// Everyone may connect to these ports.
pub fn anywhere(ports: &[NetworkPort]) -> impl Iterator<Item = IngressRule> {
    ANYWHERE.into_iter().map(|cidr| IngressRule {
        cidr: Some(cidr.into()),
        ports: ports.to_vec(),
        ..IngressRule::default()
    })
}

/// The reverse of [`from_proto`]. Where nothing was said (a sandbox of kubectl), a port that some rule opens is CUSTOM.
pub fn to_proto(ports: &[Port], visibilities: &Visibilities, rules: &[IngressRule]) -> Vec<pb::Service> {
    ports
        .iter()
        .map(|p| pb::Service {
            port: p.port,
            name: p.name.clone(),
            protocol: match p.protocol {
                None => pb::ServiceProtocol::Unspecified,
                Some(Protocol::TCP) => pb::ServiceProtocol::Tcp,
                Some(Protocol::UDP) => pb::ServiceProtocol::Udp,
                Some(Protocol::SCTP) => pb::ServiceProtocol::Sctp,
            }
            .into(),
            visibility: visibilities.get(&p.name).copied().unwrap_or_else(|| {
                let open = rules.iter().flat_map(|r| &r.ports).any(|r| opens(r, p));
                match (p.public, open) {
                    (_, false) => pb::Visibility::Unspecified,
                    (Some(true), true) => pb::Visibility::Public,
                    (_, true) => pb::Visibility::Custom,
                }
                .into()
            }),
            endpoint: None,
        })
        .collect()
}

fn opens(rule: &NetworkPort, port: &Port) -> bool {
    rule.protocol.unwrap_or_default() == port.protocol.unwrap_or_default() && (rule.port..=rule.end_port.unwrap_or(rule.port)).contains(&port.port)
}
