//! Services and network options, and what they are in a Sandbox.
#![allow(clippy::unwrap_used)]

pub(crate) mod refusals;

use crate::api::network::Dns;
use crate::api::{EgressMode, IngressRule, Network};
use crate::gateway::convert::tests::{message_of, sandbox_of, with, workload};
use crate::proto::sandbox as pb;

fn service(port: i32, visibility: pb::Visibility) -> pb::Service {
    pb::Service {
        port,
        visibility: visibility.into(),
        ..pb::Service::default()
    }
}

fn spec(services: Vec<pb::Service>, network: Option<pb::NetworkOptions>) -> pb::SandboxSpec {
    with(|s| (s.services, s.network) = (services, network))
}

fn sources(network: &Network) -> Vec<(String, Vec<i32>)> {
    let source = |r: &IngressRule| match (&r.cidr, &r.pod_selector) {
        (Some(cidr), None) => cidr.clone(),
        (None, Some(selector)) if selector.match_labels.is_none() && r.namespace_selector.is_none() => {
            "namespace".into()
        }
        other => panic!("{other:?}"),
    };
    let rules = network.ingress.as_ref().map(|i| i.rules.clone()).unwrap_or_default();
    rules
        .iter()
        .map(|r| (source(r), r.ports.iter().map(|p| p.port).collect()))
        .collect()
}

#[test]
fn visibility_decides_who_can_connect() {
    use pb::Visibility::{Custom, Private, Public, Unspecified};
    let services = vec![
        service(1, Public),
        service(2, Private),
        service(3, Custom),
        service(4, Unspecified),
    ];
    let custom = pb::NetworkOptions {
        ingress: vec![pb::IngressRule {
            source: Some(pb::ingress_rule::Source::Cidr(pb::CidrBlock {
                cidr: "203.0.113.0/24".into(),
                except: vec!["203.0.113.1/32".into()],
            })),
            ports: vec![],
        }],
        ..pb::NetworkOptions::default()
    };
    let spec = spec(services.clone(), Some(custom));
    let sandbox = sandbox_of(spec);
    let w = &sandbox.spec.workload;
    let rules = sources(w.network.as_ref().unwrap());
    let expected = [("203.0.113.0/24", 3), ("0.0.0.0/0", 1), ("::/0", 1), ("namespace", 2)];
    assert_eq!(rules, expected.map(|(s, p)| (s.to_owned(), vec![p])));
    assert_eq!(w.ports.as_ref().unwrap()[0].name, "port-1");
    let returned = message_of(&sandbox).spec.unwrap();
    let visibilities = |s: &[pb::Service]| s.iter().map(|s| s.visibility).collect::<Vec<_>>();
    assert_eq!(visibilities(&returned.services), visibilities(&services));
    let network = returned.network.unwrap();
    assert_eq!(
        (network.ingress.len(), network.ingress[0].ports[0].port),
        (1, 3),
        "without the rules of the visibilities"
    );
    assert_eq!(
        message_of(&sandbox).status.unwrap().effective_ingress.len(),
        3,
        "any, for both address families, is one rule"
    );
}

#[test]
fn without_options_the_internet_is_reachable_and_no_one_can_connect() {
    for options in [
        None,
        Some(pb::NetworkOptions::default()),
        Some(pb::NetworkOptions {
            deny_egress: Some(false),
            deny_ingress: Some(false),
            ..pb::NetworkOptions::default()
        }),
        Some(pb::NetworkOptions {
            deny_ingress: Some(true),
            ..pb::NetworkOptions::default()
        }),
    ] {
        let sandbox = sandbox_of(spec(vec![], options));
        assert_eq!(sandbox.spec.workload.network, None);
        let status = message_of(&sandbox).status.unwrap();
        assert_eq!(
            status.effective_egress[0].destination,
            Some(pb::egress_rule::Destination::Any(true))
        );
        assert_eq!(
            (status.effective_ingress.len(), status.effective_dns_egress()),
            (0, pb::DnsEgressMode::Allow)
        );
    }
}

#[test]
fn deny_egress_denies_dns_unless_it_is_allowed() {
    use pb::DnsEgressMode::{Allow, Deny, Unspecified};
    for (deny_egress, dns_egress, mode, dns, returned) in [
        (true, Unspecified, Some(EgressMode::None), Some(Dns::None), Deny),
        (true, Deny, Some(EgressMode::None), Some(Dns::None), Deny),
        (true, Allow, Some(EgressMode::None), Some(Dns::Cluster), Allow),
        (false, Deny, None, Some(Dns::None), Deny),
        (false, Allow, None, Some(Dns::Cluster), Allow),
    ] {
        let options = pb::NetworkOptions {
            deny_egress: Some(deny_egress),
            dns_egress: dns_egress.into(),
            ..pb::NetworkOptions::default()
        };
        let sandbox = sandbox_of(spec(vec![], Some(options)));
        let network = sandbox.spec.workload.network.clone().unwrap();
        assert_eq!((network.egress.map(|e| e.mode), network.dns), (mode, dns));
        let again = message_of(&sandbox);
        assert_eq!(again.status.as_ref().unwrap().effective_dns_egress(), returned);
        // A request for what is returned creates the same network.
        let network = again.spec.unwrap().network;
        assert_eq!(workload(spec(vec![], network)).network, sandbox.spec.workload.network);
    }
}

#[test]
fn egress_rules_are_returned_as_requested() {
    use pb::egress_rule::Destination;
    let ports = vec![
        pb::PortRange {
            protocol: "UDP".into(),
            port: 53,
            end_port: 0,
        },
        pb::PortRange {
            protocol: String::new(),
            port: 8000,
            end_port: 8010,
        },
    ];
    let selector = pb::SelectorBlock {
        pod_labels: [("app".to_owned(), "db".to_owned())].into(),
        namespace_labels: [("team".to_owned(), "a".to_owned())].into(),
    };
    let destinations = [
        Destination::Any(true),
        Destination::Tenant(pb::TenantScope::SameOrg.into()),
        Destination::Selector(selector),
        Destination::Cidr(pb::CidrBlock {
            cidr: "10.0.0.0/8".into(),
            except: vec!["10.1.0.0/16".into()],
        }),
    ];
    let egress: Vec<_> = destinations
        .into_iter()
        .map(|d| pb::EgressRule {
            destination: Some(d),
            ports: ports.clone(),
            https_hostname_except: vec![],
        })
        .collect();
    let options = pb::NetworkOptions {
        egress: egress.clone(),
        ..pb::NetworkOptions::default()
    };
    let sandbox = sandbox_of(spec(vec![], Some(options)));
    let rules = sandbox.spec.workload.network.as_ref().unwrap().egress.as_ref().unwrap();
    assert_eq!(
        (rules.mode, rules.rules.as_ref().unwrap()[0].internet),
        (EgressMode::Rules, Some(true))
    );
    let returned = message_of(&sandbox);
    assert_eq!(returned.spec.unwrap().network.unwrap().egress, egress);
    assert_eq!(returned.status.unwrap().effective_egress, egress);
}

#[test]
fn no_port_is_all_ports() {
    let options = pb::NetworkOptions {
        egress: vec![pb::EgressRule {
            destination: Some(pb::egress_rule::Destination::Cidr(pb::CidrBlock {
                cidr: "10.0.0.0/8".into(),
                except: vec![],
            })),
            ports: vec![pb::PortRange {
                protocol: "tcp".into(),
                ..pb::PortRange::default()
            }],
            https_hostname_except: vec![],
        }],
        ..pb::NetworkOptions::default()
    };
    let rules = workload(spec(vec![], Some(options)))
        .network
        .unwrap()
        .egress
        .unwrap()
        .rules
        .unwrap();
    assert_eq!(rules[0].cidr.as_deref(), Some("10.0.0.0/8"));
    let port = &rules[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.port, port.end_port), (1, Some(65_535)));
}
