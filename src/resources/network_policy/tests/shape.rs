//! What the policies themselves look like.

use super::{
    AGENT, METADATA, OWN_NAMESPACE, PRIVATE, PUBLIC, allows_in, allows_out, build, build_with, check_out, dns_pod,
    gateway, ip, labels, rules, selects, settings,
};
use crate::resources::{Settings, network_policy};
use ipnet::IpNet;
use serde_json::json;

#[test]
#[rustfmt::skip]
fn every_except_is_a_strict_part_of_its_range() {
    let busy = settings(json!({"network": {"never": ["8.0.0.0/7", "8.8.8.8/32", "2000::/4"], "notByDefault": ["0.0.0.0/2", "64.0.0.0/3"]}}));
    let mut blocks = 0;
    for settings in [&Settings::default(), &busy] {
        let mut networks = vec![json!({})];
        for bits in 0..=32 {
            for address in [0_u32, 0x0808_0808, 0x0A00_0001, 0xA9FE_A9FE, 0x6464_64C8, 0xFFFF_FFFF] {
                let cidr = IpNet::new(std::net::Ipv4Addr::from(address).into(), bits).unwrap().trunc();
                networks.push(rules(json!([{"cidr": cidr.to_string()}])));
                if let Some(half) = cidr.subnets(bits + 1).ok().and_then(|mut s| s.next()) {
                    networks.push(rules(json!([{"cidr": cidr.to_string(), "except": [half.to_string()]}])));
                }
            }
            for address in ["fe80::1", "64:ff9b::a9fe:a9fe", "fd00:ec2::254", "2000::1"] {
                let cidr = IpNet::new(address.parse().unwrap(), bits * 4).unwrap().trunc();
                networks.push(rules(json!([{"cidr": cidr.to_string()}])));
            }
        }
        for network in networks {
            let Ok(policy) = build_with(network.clone(), settings) else { continue };
            for block in policy.spec.iter().flat_map(|s| s.egress.iter().flatten()).flat_map(|r| r.to.iter().flatten()) {
                let Some(block) = &block.ip_block else { continue };
                let cidr: IpNet = block.cidr.parse().unwrap();
                let holes: Vec<IpNet> = block.except.iter().flatten().map(|e| e.parse().unwrap()).collect();
                for (i, hole) in holes.iter().enumerate() {
                    assert!(cidr.contains(hole) && *hole != cidr && hole.trunc() == *hole, "{hole} in {cidr}: {network}");
                    assert!(!holes[..i].iter().any(|h| h.contains(hole) || hole.contains(h)), "{hole} twice: {network}");
                }
                blocks += 1;
            }
            check_out(&network.to_string(), &policy, &[], &METADATA);
        }
    }
    assert!(blocks > 500, "{blocks} ranges checked");
}

#[test]
fn the_standing_policy_denies_everything_of_every_sandbox() {
    let policy = network_policy::deny_all(OWN_NAMESPACE);
    assert_eq!(policy.metadata.namespace.as_deref(), Some(OWN_NAMESPACE));
    check_out("deny", &policy, &[], &[&PUBLIC[..], &PRIVATE, &METADATA].concat());
    for remote in [dns_pod(), gateway(), ip("8.8.8.8")] {
        assert!(
            !allows_out(&policy, &remote, 53, "UDP") && !allows_in(&policy, &remote, AGENT, "TCP"),
            "{remote:?}"
        );
    }
    let own = build(json!({}));
    let pod = own.metadata.labels.clone().unwrap();
    for policy in [policy, own] {
        let selector = policy.spec.unwrap().pod_selector.unwrap();
        assert!(selects(&selector, &pod) && !selects(&selector, &labels("app=web")));
        let another = labels("sandbox-operator.dev/sandbox-uid=another");
        assert_eq!(selects(&selector, &another), selector.match_expressions.is_some());
    }
}

#[test]
fn the_default_policy_in_full() {
    insta::assert_yaml_snapshot!(build(json!({})), @r#"
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      annotations:
        sandbox-operator.dev/spec-hash: bef7d3c362a373a9
      finalizers:
        - foregroundDeletion
      labels:
        app.kubernetes.io/managed-by: sandbox-operator
        sandbox-operator.dev/sandbox: train
        sandbox-operator.dev/sandbox-uid: 1234abcd-0000-0000-0000-000000000000
      name: train-1234abcd
      namespace: team
      ownerReferences:
        - apiVersion: sandbox-operator.dev/v1alpha1
          blockOwnerDeletion: true
          controller: true
          kind: Sandbox
          name: train
          uid: 1234abcd-0000-0000-0000-000000000000
    spec:
      egress:
        - ports:
            - port: 53
              protocol: UDP
            - port: 53
              protocol: TCP
          to:
            - namespaceSelector:
                matchLabels:
                  kubernetes.io/metadata.name: kube-system
              podSelector:
                matchLabels:
                  k8s-app: kube-dns
        - to:
            - ipBlock:
                cidr: 0.0.0.0/0
                except:
                  - 0.0.0.0/8
                  - 10.0.0.0/8
                  - 100.64.0.0/10
                  - 127.0.0.0/8
                  - 168.63.129.16/32
                  - 169.254.0.0/16
                  - 172.16.0.0/12
                  - 192.0.0.0/24
                  - 192.0.2.0/24
                  - 192.88.99.0/24
                  - 192.168.0.0/16
                  - 198.18.0.0/15
                  - 198.51.100.0/24
                  - 203.0.113.0/24
                  - 224.0.0.0/3
            - ipBlock:
                cidr: "::/0"
                except:
                  - "::/127"
                  - "64:ff9b::/96"
                  - "64:ff9b:1::/48"
                  - "100::/63"
                  - "2001::/32"
                  - "2001:2::/48"
                  - "2001:db8::/32"
                  - "2002::/16"
                  - "3fff::/20"
                  - "5f00::/16"
                  - "fc00::/7"
                  - "fe80::/9"
                  - "ff00::/8"
      ingress:
        - from:
            - namespaceSelector:
                matchLabels:
                  kubernetes.io/metadata.name: sandbox-operator
              podSelector:
                matchLabels:
                  app.kubernetes.io/part-of: sandbox-operator
          ports:
            - port: 8971
              protocol: TCP
      podSelector:
        matchLabels:
          sandbox-operator.dev/sandbox-uid: 1234abcd-0000-0000-0000-000000000000
      policyTypes:
        - Ingress
        - Egress
    "#);
}

#[test]
fn nothing_left_to_allow_is_no_rule_for_a_rule_without_peers_or_ports_is_for_all() {
    let whole = settings(json!({"network": {"never": ["0.0.0.0/0"], "notByDefault": ["::/0"], "dns": {"ports": []}}}));
    let policy = build_with(json!({}), &whole).unwrap();
    assert_eq!(policy.spec.unwrap().egress, None);
}

#[test]
fn a_policy_carries_a_hash_that_tells_an_edited_spec() {
    let policy = build(json!({}));
    assert!(network_policy::is_unmodified(&policy));
    assert_eq!(network_policy::repaired(&policy, &policy), None);
    let mut edited = policy.clone();
    edited.spec.as_mut().unwrap().egress.as_mut().unwrap().clear();
    edited.metadata.labels = None;
    edited.metadata.resource_version = Some("7".into());
    assert!(!network_policy::is_unmodified(&edited));
    let repaired = network_policy::repaired(&edited, &policy).unwrap();
    assert_eq!(
        (&repaired.spec, &repaired.metadata.labels),
        (&policy.spec, &policy.metadata.labels)
    );
    assert_eq!(
        repaired.metadata.resource_version, edited.metadata.resource_version,
        "a condition of the write"
    );
}

/// The API server drops what is empty: kept, it would make every policy with it look edited.
#[test]
fn selectors_are_written_as_the_api_server_returns_them() {
    let rule = json!({"podSelector": {"matchLabels": {}, "matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]},
        "namespaceSelector": {"matchLabels": {}, "matchExpressions": []}, "ports": [{"port": 80}]});
    let policy =
        build(json!({"egress": {"mode": "Rules", "rules": [rule]}, "dns": "None", "ingress": {"rules": [rule]}}));
    let peer =
        json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "namespaceSelector": {}});
    let spec = json!(policy.spec);
    assert_eq!(
        (&spec["egress"][0]["to"][0], &spec["ingress"][1]["from"][0]),
        (&peer, &peer)
    );
}
