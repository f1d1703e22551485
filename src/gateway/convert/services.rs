//! Services: ports, and who can connect to them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Code;

use super::problems::Problems;
use super::text::quoted;
use crate::api::FieldPath;
use crate::api::network::Protocol;
use crate::api::{IngressRule, NetworkPort, Port};
use crate::gateway::error::reason;
use crate::proto::sandbox as pb;

const MAX_SERVICES: usize = 32;

/// Visibilities of ports by their names.
pub(crate) type Visibilities = BTreeMap<String, i32>;

/// Every IPv4 and every IPv6 address.
pub(crate) const ALL_ADDRESSES: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Converts the services of a request to ports and their visibilities.
pub(crate) fn from_proto(
    path: &FieldPath,
    services: Vec<pb::Service>,
    agent_port: u16,
    problems: &mut Problems,
) -> (Vec<Port>, Visibilities) {
    problems.at_most(path, services.len(), MAX_SERVICES);
    let (mut ports, mut visibilities, mut names, mut numbers) =
        (vec![], Visibilities::new(), BTreeSet::new(), BTreeSet::new());
    for (i, service) in services.into_iter().enumerate() {
        let path = path.index(i);
        let pb::Service {
            port,
            name,
            protocol,
            visibility,
            endpoint,
        } = service;
        if !(1..=65_535).contains(&port) {
            problems.invalid(&path.field("port"), "must be 1 to 65535");
        } else if port == i32::from(agent_port) {
            problems.invalid(
                &path.field("port"),
                format!("{port} is reserved for the platform; choose another port"),
            );
        }
        let name = if name.is_empty() { format!("port-{port}") } else { name };
        if !is_port_name(&name) {
            let text = format!(
                "must be at most 15 of a-z, 0-9 and single '-', with a letter; {} is not",
                quoted(&name)
            );
            problems.invalid(&path.field("name"), text);
        }
        let protocol = protocol_from_proto(&path.field("protocol"), protocol, problems);
        if pb::Visibility::try_from(visibility).is_err() {
            problems.invalid(&path.field("visibility"), "must be a Visibility");
        }
        if let Some(endpoint) = endpoint {
            check_endpoint(&path.field("endpoint"), endpoint, problems);
        }
        if !names.insert(name.clone()) {
            problems.invalid(&path.field("name"), format!("duplicate name {}", quoted(&name)));
        }
        if !numbers.insert((port, protocol.unwrap_or_default().as_str())) {
            problems.invalid(&path.field("port"), format!("duplicate port {port}"));
        }
        visibilities.insert(name.clone(), visibility);
        // A port that clients outside the cluster may connect to needs a Service that is reachable from there.
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

fn protocol_from_proto(path: &FieldPath, protocol: i32, problems: &mut Problems) -> Option<Protocol> {
    match pb::ServiceProtocol::try_from(protocol) {
        Ok(pb::ServiceProtocol::Unspecified) => None,
        Ok(pb::ServiceProtocol::Tcp) => Some(Protocol::TCP),
        Ok(pb::ServiceProtocol::Udp) => Some(Protocol::UDP),
        Ok(pb::ServiceProtocol::Sctp) => Some(Protocol::SCTP),
        Err(_) => {
            problems.invalid(path, "must be a ServiceProtocol");
            None
        }
    }
}

fn check_endpoint(path: &FieldPath, endpoint: pb::EndpointSpec, problems: &mut Problems) {
    let pb::EndpointSpec {
        kind,
        auth,
        request_timeout_seconds,
    } = endpoint;
    match pb::EndpointKind::try_from(kind) {
        Ok(pb::EndpointKind::Unspecified) => {
            problems.unsupported(&path.field("auth"), auth != 0);
            problems.unsupported(&path.field("request_timeout_seconds"), request_timeout_seconds != 0);
        }
        Ok(pb::EndpointKind::TlsPassthrough) => {
            let (text, path) = ("TLS passthrough endpoints are not supported", path.field("kind"));
            problems.refuse(Code::Unimplemented, reason::TLS_PASSTHROUGH_NOT_SUPPORTED, &path, text);
        }
        Ok(pb::EndpointKind::Https) if auth == i32::from(pb::EndpointAuth::ShareToken) => {
            let (text, path) = (
                "HTTPS endpoints with a share token are not supported",
                path.field("auth"),
            );
            problems.refuse(Code::Unimplemented, reason::SHARE_TOKEN_NOT_SUPPORTED, &path, text);
        }
        Ok(pb::EndpointKind::Https) => {
            problems.not_implemented(&path.field("kind"), "HTTPS endpoints are not supported");
        }
        Err(_) => problems.invalid(&path.field("kind"), "must be an EndpointKind"),
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
pub(crate) fn ports_of(ports: &[Port], visibilities: &Visibilities, wanted: pb::Visibility) -> Vec<NetworkPort> {
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

/// The rules that the visibilities stand for: PUBLIC allows everyone, PRIVATE the pods of the namespace. CUSTOM ports
/// need rules of the request.
pub(crate) fn ingress_rules(ports: &[Port], visibilities: &Visibilities) -> Vec<IngressRule> {
    let public = ports_of(ports, visibilities, pb::Visibility::Public);
    let private = ports_of(ports, visibilities, pb::Visibility::Private);
    let mut rules: Vec<IngressRule> = vec![];
    if !public.is_empty() {
        rules.extend(from_everywhere(&public));
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

/// Rules that allow everyone to connect to these ports.
pub(crate) fn from_everywhere(ports: &[NetworkPort]) -> impl Iterator<Item = IngressRule> {
    ALL_ADDRESSES.into_iter().map(|cidr| IngressRule {
        cidr: Some(cidr.into()),
        ports: ports.to_vec(),
        ..IngressRule::default()
    })
}

/// The reverse of [`from_proto`]. A port without a visibility (of a sandbox created with kubectl) is CUSTOM if a rule
/// opens it.
pub(crate) fn to_proto(ports: &[Port], visibilities: &Visibilities, rules: &[IngressRule]) -> Vec<pb::Service> {
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
                let is_open = rules.iter().flat_map(|r| &r.ports).any(|r| opens(r, p));
                match (p.public, is_open) {
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
    rule.protocol.unwrap_or_default() == port.protocol.unwrap_or_default()
        && (rule.port..=rule.end_port.unwrap_or(rule.port)).contains(&port.port)
}
