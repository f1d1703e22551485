//! Services and network options, and what they are in a Sandbox.

use crate::support::{echoed, sandbox_of, with, workload};
use sandbox_operator::api::network::Dns;
use sandbox_operator::api::{EgressMode, Network};
use sandbox_operator::proto::sandbox as pb;

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
    let source = |r: &sandbox_operator::api::IngressRule| match (&r.cidr, &r.pod_selector) {
        (Some(cidr), None) => cidr.clone(),
        (None, Some(selector)) if selector.match_labels.is_none() && r.namespace_selector.is_none() => "namespace".into(),
        other => panic!("{other:?}"),
    };
    let rules = network.ingress.as_ref().map(|i| i.rules.clone()).unwrap_or_default();
    rules.iter().map(|r| (source(r), r.ports.iter().map(|p| p.port).collect())).collect()
}

#[test]
fn visibility_is_who_may_connect() {
    use pb::Visibility::{Custom, Private, Public, Unspecified};
    let services = vec![service(1, Public), service(2, Private), service(3, Custom), service(4, Unspecified)];
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
    let told = echoed(&sandbox).spec.unwrap();
    let visibilities = |s: &[pb::Service]| s.iter().map(|s| s.visibility).collect::<Vec<_>>();
    assert_eq!(visibilities(&told.services), visibilities(&services));
    let network = told.network.unwrap();
    assert_eq!(
        (network.ingress.len(), network.ingress[0].ports[0].port),
        (1, 3),
        "without what the visibilities opened"
    );
    assert_eq!(
        echoed(&sandbox).status.unwrap().effective_ingress.len(),
        3,
        "any, for both families, is one"
    );
}

#[test]
fn without_options_the_internet_is_reached_and_nobody_connects() {
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
        let status = echoed(&sandbox).status.unwrap();
        assert_eq!(status.effective_egress[0].destination, Some(pb::egress_rule::Destination::Any(true)));
        assert_eq!(
            (status.effective_ingress.len(), status.effective_dns_egress()),
            (0, pb::DnsEgressMode::Allow)
        );
    }
}

#[test]
fn deny_egress_leaves_names_unless_they_are_denied_too() {
    use pb::DnsEgressMode::{Allow, Deny, Unspecified};
    for (deny_egress, dns_egress, mode, dns, told) in [
        (true, Unspecified, Some(EgressMode::None), Some(Dns::Cluster), Allow),
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
        let again = echoed(&sandbox);
        assert_eq!(again.status.as_ref().unwrap().effective_dns_egress(), told);
        // What is told asks for the same.
        let network = again.spec.unwrap().network;
        assert_eq!(workload(spec(vec![], network)).network, sandbox.spec.workload.network);
    }
}

#[test]
fn egress_rules_are_told_as_they_were_asked_for() {
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
    assert_eq!((rules.mode, rules.rules.as_ref().unwrap()[0].internet), (EgressMode::Rules, Some(true)));
    let told = echoed(&sandbox);
    assert_eq!(told.spec.unwrap().network.unwrap().egress, egress);
    assert_eq!(told.status.unwrap().effective_egress, egress);
}

#[test]
fn a_range_loses_what_its_prefix_hides_and_no_port_is_all_ports() {
    let options = pb::NetworkOptions {
        egress: vec![pb::EgressRule {
            destination: Some(pb::egress_rule::Destination::Cidr(pb::CidrBlock {
                cidr: "10.1.2.3/8".into(),
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
    let rules = workload(spec(vec![], Some(options))).network.unwrap().egress.unwrap().rules.unwrap();
    assert_eq!(rules[0].cidr.as_deref(), Some("10.0.0.0/8"));
    let port = &rules[0].ports.as_ref().unwrap()[0];
    assert_eq!((port.port, port.end_port), (1, Some(65_535)));
}
