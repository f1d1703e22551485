//! The Services of a sandbox that declares ports.

use k8s_openapi::api::core::v1::{Node, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use std::collections::BTreeMap;

use super::settings::PublicServices;
use super::{Effective, Settings, labels, names};
use crate::api::network::Protocol;
use crate::api::{Port, Sandbox};

/// One for all declared ports, under the sandbox's own name, and one for public ports where the installation publishes
/// them.
pub(crate) fn build(sandbox: &Sandbox, effective: &Effective, settings: &Settings) -> Vec<Service> {
    let declared = effective.workload.ports.as_deref().unwrap_or_default();
    let all: Vec<&Port> = declared.iter().collect();
    let internal =
        (!all.is_empty()).then(|| service(sandbox, names::owned_meta(sandbox, names::service(sandbox)), &all));
    internal
        .into_iter()
        .chain(public(sandbox, effective, &settings.public_services))
        .collect()
}

fn public(sandbox: &Sandbox, effective: &Effective, settings: &PublicServices) -> Option<Service> {
    let ports: Vec<&Port> = public_ports(effective).collect();
    let kind = settings.kind.outside().filter(|_| !ports.is_empty())?;
    let mut metadata = names::owned_meta(sandbox, names::public_service(sandbox));
    metadata.annotations = Some(settings.annotations.clone()).filter(|a| !a.is_empty());
    let mut service = service(sandbox, metadata, &ports);
    service.spec.get_or_insert_default().type_ = Some(kind.into());
    Some(service)
}

/// Whether an existing Service is equivalent to the built one: same type, ports and selector.
pub(crate) fn is_same(found: &Service, built: &Service) -> bool {
    let ports = |spec: &ServiceSpec| -> Vec<_> {
        let all = spec.ports.iter().flatten();
        all.map(|p| (p.name.clone(), p.port, p.protocol.clone(), p.target_port.clone()))
            .collect()
    };
    let kind = |spec: &ServiceSpec| spec.type_.clone().unwrap_or_else(|| "ClusterIP".into());
    let (Some(found), Some(built)) = (&found.spec, &built.spec) else {
        return false;
    };
    found.selector == built.selector
        && found.external_ips.is_none()
        && (kind(found), ports(found)) == (kind(built), ports(built))
}

/// The same Service under the pod's name, for a sandbox whose own name belongs to another Service. None for the one of
/// public ports, which has a name of its own.
pub(crate) fn with_pod_name(service: &Service, sandbox: &Sandbox) -> Option<Service> {
    let named_as_sandbox = service.metadata.name.as_deref() == Some(names::service(sandbox).as_str());
    named_as_sandbox.then(|| Service {
        metadata: names::child_meta(sandbox),
        ..service.clone()
    })
}

/// Host name of the sandbox's Service inside the cluster.
pub(crate) fn host(sandbox: &Sandbox) -> String {
    let name = sandbox.status.as_ref().and_then(|s| s.service_name.clone());
    format!(
        "{}.{}.svc",
        name.unwrap_or_else(|| names::child(sandbox)),
        sandbox.namespace().unwrap_or_default()
    )
}

/// The URL of a port at an address with its port number.
pub(crate) fn url(port: &Port, address: &str) -> String {
    let scheme = match port.protocol.unwrap_or_default() {
        Protocol::TCP => "http",
        Protocol::UDP => "udp",
        Protocol::SCTP => "sctp",
    };
    format!("{scheme}://{address}")
}

/// The URLs of all ports at the Service of this name, then those of public ports at `endpoints`.
pub(crate) fn urls(
    sandbox: &Sandbox,
    effective: &Effective,
    service_name: &str,
    endpoints: &BTreeMap<String, String>,
) -> Vec<String> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let internal = effective.workload.ports.iter().flatten();
    let internal = internal.map(|p| url(p, &format!("{service_name}.{namespace}.svc:{}", p.port)));
    let public = public_ports(effective).filter_map(|p| Some(url(p, endpoints.get(&p.name)?)));
    internal.chain(public).collect()
}

/// Addresses with port numbers outside the cluster, by the names of ports. `node`: where node ports are reached.
pub(crate) fn public_endpoints(service: &Service, node: Option<&str>) -> BTreeMap<String, String> {
    let spec = service.spec.as_ref();
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let balancer = balancer.and_then(|b| b.ingress.as_ref()?.first());
    let balanced = spec.is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"));
    let host = if balanced {
        balancer.and_then(|b| b.hostname.as_deref().or(b.ip.as_deref()))
    } else {
        node
    };
    let Some(host) = host else { return BTreeMap::new() };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let endpoint = |port: &ServicePort| {
        let number = if balanced { Some(port.port) } else { port.node_port };
        Some((port.name.clone()?, format!("{host}:{}", number?)))
    };
    ports.filter_map(endpoint).collect()
}

/// The address of a node: the one outside of the cluster's network if it has one.
pub(crate) fn node_address(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let of_type = |kind: &str| addresses.iter().find(|a| a.type_ == kind).map(|a| a.address.as_str());
    of_type("ExternalIP").or_else(|| of_type("InternalIP"))
}

/// The ports that are published outside the cluster.
pub(crate) fn public_ports(effective: &Effective) -> impl Iterator<Item = &Port> {
    effective
        .workload
        .ports
        .iter()
        .flatten()
        .filter(|p| p.public == Some(true))
}

fn service(sandbox: &Sandbox, metadata: ObjectMeta, ports: &[&Port]) -> Service {
    let ports = ports.iter().map(|p| ServicePort {
        name: Some(p.name.clone()),
        port: p.port,
        target_port: Some(IntOrString::Int(p.port)),
        protocol: Some(p.protocol.unwrap_or_default().as_str().into()),
        ..ServicePort::default()
    });
    Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: labels::selector(sandbox).match_labels,
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::resources::settings::ServiceKind;
    use serde_json::json;

    fn sandbox(ports: serde_json::Value) -> Sandbox {
        let object = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": {"ports": ports},
            "metadata": {"name": "a", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"}});
        serde_json::from_value(object).unwrap()
    }

    fn services(kind: ServiceKind, ports: serde_json::Value) -> Vec<(String, Option<String>, Vec<i32>)> {
        let sandbox = sandbox(ports);
        let mut settings = Settings::default();
        settings.public_services.kind = kind;
        let built = build(&sandbox, &Effective::new(&sandbox, None, &settings), &settings);
        let summaries = built.into_iter().map(|s| {
            assert!(names::is_child(&s.metadata, &sandbox));
            let spec = s.spec.unwrap();
            (
                s.metadata.name.unwrap(),
                spec.type_,
                spec.ports.unwrap().iter().map(|p| p.port).collect(),
            )
        });
        summaries.collect()
    }

    #[test]
    fn only_public_ports_are_published_and_only_if_the_installation_publishes_ports() {
        let mixed = || json!([{"name": "a", "port": 80, "public": true}, {"name": "b", "port": 81}, {"name": "c", "port": 82, "public": false}]);
        let internal = ("a".to_owned(), None, vec![80, 81, 82]);
        let public = |kind: &str| ("a-1234abcd-public".to_owned(), Some(kind.to_owned()), vec![80]);
        assert_eq!(
            services(ServiceKind::ClusterIP, mixed()),
            std::slice::from_ref(&internal)
        );
        assert_eq!(
            services(ServiceKind::NodePort, mixed()),
            [internal.clone(), public("NodePort")]
        );
        assert_eq!(
            services(ServiceKind::LoadBalancer, mixed()),
            [internal, public("LoadBalancer")]
        );
        assert_eq!(
            services(ServiceKind::NodePort, json!([{"name": "b", "port": 81}])).len(),
            1
        );
        assert!(services(ServiceKind::NodePort, json!([])).is_empty());
    }

    #[test]
    fn a_service_whose_name_is_taken_gets_the_pods() {
        let sandbox = sandbox(json!([{"name": "a", "port": 80, "public": true}]));
        let mut settings = Settings::default();
        settings.public_services.kind = ServiceKind::NodePort;
        let built = build(&sandbox, &Effective::new(&sandbox, None, &settings), &settings);
        let renamed: Vec<_> = built.iter().map(|s| with_pod_name(s, &sandbox)).collect();
        let internal = renamed[0].as_ref().unwrap();
        assert_eq!(
            (internal.metadata.name.as_deref(), &internal.spec),
            (Some("a-1234abcd"), &built[0].spec)
        );
        assert_eq!(renamed[1], None);
    }

    #[test]
    fn urls_name_the_service_and_then_what_is_public() {
        let ports =
            json!([{"name": "web", "port": 80, "public": true}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
        let mut sandbox = sandbox(ports);
        let effective = Effective::new(&sandbox, None, &Settings::default());
        let internal = ["http://a.team.svc:80", "udp://a.team.svc:53"].map(String::from);
        assert_eq!(urls(&sandbox, &effective, "a", &BTreeMap::new()), internal);
        let public = BTreeMap::from([("web".to_owned(), "192.0.2.1:30080".to_owned())]);
        let all = [&internal[..], &["http://192.0.2.1:30080".to_owned()]].concat();
        assert_eq!(urls(&sandbox, &effective, "a", &public), all);
        assert_eq!(host(&sandbox), "a-1234abcd.team.svc", "of an older version");
        sandbox.status.get_or_insert_default().service_name = Some("a".into());
        assert_eq!(host(&sandbox), "a.team.svc");
    }
}
