//! Networks that cannot exist are refused when they are requested, and the field is named.

use pb::egress_rule::Destination;

use crate::gateway::convert::tests::refusals::{Change, assert_refused, refused};
use crate::gateway::convert::tests::{draft, with};
use crate::proto::sandbox as pb;

fn service(port: i32) -> pb::Service {
    pb::Service {
        port,
        visibility: pb::Visibility::Private.into(),
        ..pb::Service::default()
    }
}

fn network(change: impl FnOnce(&mut pb::NetworkOptions)) -> Option<pb::NetworkOptions> {
    let mut options = pb::NetworkOptions::default();
    change(&mut options);
    Some(options)
}

fn egress(destination: pb::egress_rule::Destination) -> pb::EgressRule {
    pb::EgressRule {
        destination: Some(destination),
        ..pb::EgressRule::default()
    }
}

fn cidr(cidr: &str, except: &[&str]) -> pb::CidrBlock {
    pb::CidrBlock {
        cidr: cidr.into(),
        except: except.iter().map(|e| (*e).into()).collect(),
    }
}

fn ingress(ports: &[(i32, i32)]) -> pb::IngressRule {
    let ports = ports.iter().map(|(port, end_port)| pb::PortRange {
        port: *port,
        end_port: *end_port,
        ..pb::PortRange::default()
    });
    pb::IngressRule {
        source: Some(pb::ingress_rule::Source::Any(true)),
        ports: ports.collect(),
    }
}

#[test]
pub(crate) fn an_invalid_field_is_named() {
    let cases: &[(&str, Change)] = &[
        ("sandbox.spec.network.deny_egress", |s| {
            s.network = network(|n| {
                n.deny_egress = Some(true);
                n.egress = vec![egress(Destination::Any(true))];
            });
        }),
        ("sandbox.spec.network.deny_ingress", |s| {
            s.services = vec![service(80)];
            s.network = network(|n| n.deny_ingress = Some(true));
        }),
        ("sandbox.spec.network.egress[0].cidr.cidr", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Cidr(cidr("10.0.0.1", &[])))]);
        }),
        ("sandbox.spec.network.egress[0].cidr.cidr", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Cidr(cidr("::ffff:10.0.0.0/104", &[])))]);
        }),
        ("sandbox.spec.network.egress[0].cidr.except[0]", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Cidr(cidr("10.0.0.0/8", &["11.0.0.0/8"])))]);
        }),
        ("sandbox.spec.network.egress[0].tenant", |s| {
            s.network =
                network(|n| n.egress = vec![egress(Destination::Tenant(pb::TenantScope::SandboxNetwork.into()))]);
        }),
        ("sandbox.spec.network.egress[0].selector", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Selector(pb::SelectorBlock::default()))]);
        }),
        ("sandbox.spec.network.egress[0].any", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Any(false))])
        }),
        ("sandbox.spec.network.egress[0]", |s| {
            s.network = network(|n| n.egress = vec![pb::EgressRule::default()])
        }),
        ("sandbox.spec.network.egress[0].ports[0].end_port", |s| {
            s.network = network(|n| {
                n.egress = vec![pb::EgressRule {
                    ports: vec![pb::PortRange {
                        port: 80,
                        end_port: 79,
                        ..pb::PortRange::default()
                    }],
                    ..egress(Destination::Any(true))
                }];
            });
        }),
        ("sandbox.spec.network.ingress[0].ports", |s| {
            s.network = network(|n| {
                n.ingress = vec![pb::IngressRule {
                    source: Some(pb::ingress_rule::Source::Any(true)),
                    ports: vec![],
                }];
            });
        }),
        // What no sandbox can reach, as a whole and with what is excluded.
        ("sandbox.spec.network.egress[0].cidr.cidr", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Cidr(cidr("169.254.169.254/32", &[])))]);
        }),
        ("sandbox.spec.network.egress[1].cidr.cidr", |s| {
            s.network = network(|n| {
                n.egress = vec![
                    egress(Destination::Any(true)),
                    egress(Destination::Cidr(cidr("fe80::/64", &[]))),
                ]
            });
        }),
        ("sandbox.spec.network.egress[0].cidr.cidr", |s| {
            s.network = network(|n| {
                n.egress = vec![egress(Destination::Cidr(cidr(
                    "10.0.0.0/8",
                    &["10.0.0.0/9", "10.128.0.0/9"],
                )))]
            });
        }),
        ("sandbox.spec.network.ingress[0].ports", |s| {
            s.network = network(|n| n.ingress = vec![ingress(&[(8971, 0)])])
        }),
        ("sandbox.spec.network.dns_egress", |s| {
            s.network = network(|n| n.dns_egress = 9)
        }),
        ("sandbox.spec.network.egress", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Any(true)); 65]);
        }),
        ("sandbox.spec.network.ingress", |s| {
            s.network = network(|n| n.ingress = vec![ingress(&[(80, 0)]); 33]);
        }),
        ("sandbox.spec.network.egress[0].https_hostname_except", |s| {
            s.network = network(|n| {
                n.egress = vec![pb::EgressRule {
                    https_hostname_except: vec!["a.b".into()],
                    ..egress(Destination::Any(true))
                }];
            });
        }),
        ("sandbox.spec.network.egress[0].tenant", |s| {
            s.network = network(|n| n.egress = vec![egress(Destination::Tenant(0))]);
        }),
        (
            "sandbox.spec.network.egress[0].selector.pod_labels[\"not a key\"]",
            |s| {
                let selector = pb::SelectorBlock {
                    pod_labels: [("not a key".to_owned(), "v".to_owned())].into(),
                    ..pb::SelectorBlock::default()
                };
                s.network = network(|n| n.egress = vec![egress(Destination::Selector(selector))]);
            },
        ),
        ("sandbox.spec.network.egress[0].cidr.except", |s| {
            let except: Vec<String> = (0..33).map(|i| format!("203.0.113.{i}/32")).collect();
            let block = pb::CidrBlock {
                cidr: "203.0.113.0/24".into(),
                except,
            };
            s.network = network(|n| n.egress = vec![egress(Destination::Cidr(block))]);
        }),
        ("sandbox.spec.network.egress[0].ports", |s| {
            s.network = network(|n| {
                n.egress = vec![pb::EgressRule {
                    ports: ingress(&[(80, 0); 33]).ports,
                    ..egress(Destination::Any(true))
                }];
            });
        }),
        ("sandbox.spec.network.ingress[0].ports[0].port", |s| {
            s.network = network(|n| n.ingress = vec![ingress(&[(65_536, 0)])]);
        }),
        ("sandbox.spec.network.ingress[0].ports[0].protocol", |s| {
            s.network = network(|n| {
                n.ingress = vec![ingress(&[(80, 0)])];
                n.ingress[0].ports[0].protocol = "ICMP".into();
            });
        }),
        ("sandbox.spec.network.ingress[0]", |s| {
            s.network = network(|n| {
                n.ingress = vec![pb::IngressRule {
                    source: None,
                    ..ingress(&[(80, 0)])
                }];
            });
        }),
    ];
    assert_refused(cases);
}

#[test]
fn a_range_of_which_something_remains_is_accepted() {
    for (destination, ports) in [
        (cidr("169.254.0.0/15", &[]), [(8971, 8972)]),
        (cidr("10.0.0.0/8", &["10.0.0.0/9"]), [(8970, 8971)]),
    ] {
        let spec = with(|s| {
            s.network = network(|n| {
                (n.egress, n.ingress) = (vec![egress(Destination::Cidr(destination))], vec![ingress(&ports)])
            });
        });
        assert!(draft(spec).is_ok());
    }
}

#[test]
fn a_range_with_bits_after_its_prefix_is_refused_with_the_one_to_write() {
    let status = refused(|s| {
        s.network = network(|n| n.egress = vec![egress(Destination::Cidr(cidr("10.0.0.1/8", &["10.1.0.1/16"])))]);
    });
    let expected = "sandbox.spec.network.egress[0].cidr.cidr: must have no bits set after the prefix; write 10.0.0.0/8; \
        sandbox.spec.network.egress[0].cidr.except[0]: must have no bits set after the prefix; write 10.1.0.0/16";
    assert_eq!(status.message(), expected);
}
