//! Where the public ports of sandboxes are reached from outside of the cluster.

use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::convert::status::url;
use super::state::Gateway;
use crate::api::Sandbox;
use crate::kube::TtlCache;
use crate::proto::sandbox as pb;
use crate::resources::names;

/// Sandboxes whose ways in are remembered.
const MANY: usize = 10_000;
/// How long a way in is believed.
const KNOWN: Duration = Duration::from_secs(60);
/// How long it is believed that there is none yet.
const UNKNOWN: Duration = Duration::from_millis(500);

/// Host and port by the name of the port.
type Ways = Arc<BTreeMap<String, String>>;

/// The ways in that were looked up a moment ago, by the UID of the Sandbox.
pub struct Doors(TtlCache<String, Ways>);

impl Default for Doors {
    fn default() -> Doors {
        Doors(TtlCache::new(MANY))
    }
}

/// Puts the URLs that are good outside in place of those of public ports that are good inside. A way that is not there yet, or cannot be
/// read now, is none: callers look again.
pub async fn tell(gateway: &Gateway, sandbox: &Sandbox, told: &mut pb::Sandbox) {
    let Some(status) = &mut told.status else { return };
    let public = i32::from(pb::Visibility::Public);
    let there = gateway.config.public_services.kind.outside().is_some();
    if !there || status.services.iter().all(|s| s.visibility != public || s.url.is_empty()) {
        return;
    }
    let uid = sandbox.uid().unwrap_or_default();
    let ways = gateway
        .doors
        .0
        .get_or_fetch(&uid, Instant::now(), look(gateway, sandbox))
        .await
        .unwrap_or_default();
    let ports = sandbox.spec.workload.ports.iter().flatten();
    for (service, port) in status.services.iter_mut().zip(ports).filter(|(s, _)| s.visibility == public) {
        service.url = ways.get(&port.name).map(|way| url(port, way)).unwrap_or_default();
    }
}

async fn look(gateway: &Gateway, sandbox: &Sandbox) -> kube::Result<(Ways, Duration)> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let service = gateway.cluster.get::<Service>(&namespace, &names::public_service(sandbox)).await?;
    let Some(service) = service.filter(|s| names::is_child(&s.metadata, sandbox)) else {
        return Ok((Ways::default(), UNKNOWN));
    };
    let (host, name) = (
        &gateway.config.public_services.host,
        sandbox.status.as_ref().and_then(|s| s.node_name.as_deref()),
    );
    let node = match name.filter(|_| host.is_empty()) {
        Some(name) => gateway.cluster.get_cluster_scoped::<Node>(name).await?,
        None => None,
    };
    let ways = ways(
        &service,
        Some(host.as_str()).filter(|h| !h.is_empty()).or(node.as_ref().and_then(address)),
    );
    let lasts = if ways.is_empty() { UNKNOWN } else { KNOWN };
    Ok((Arc::new(ways), lasts))
}

/// The address by which a node is reached: from outside of the cluster's network, if it has one for that.
fn address(node: &Node) -> Option<&str> {
    let all = node.status.as_ref()?.addresses.as_ref()?;
    let of = |kind: &str| all.iter().find(|a| a.type_ == kind).map(|a| a.address.as_str());
    of("ExternalIP").or_else(|| of("InternalIP"))
}

/// The ways in. `host`: where node ports are.
fn ways(service: &Service, host: Option<&str>) -> BTreeMap<String, String> {
    let spec = service.spec.as_ref();
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let balancer = balancer.and_then(|b| b.ingress.as_ref()?.first());
    let balanced = spec.is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer"));
    let host = if balanced {
        balancer.and_then(|b| b.hostname.as_deref().or(b.ip.as_deref()))
    } else {
        host
    };
    let Some(host) = host else { return BTreeMap::new() };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let way = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let number = if balanced { Some(port.port) } else { port.node_port };
        Some((port.name.clone()?, format!("{host}:{}", number?)))
    };
    ports.filter_map(way).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(kind: &str, ingress: Value) -> Service {
        let ports = json!([{"name": "web", "port": 80, "nodePort": 30_080}, {"name": "more", "port": 81, "nodePort": 30_081}]);
        let object = json!({"spec": {"type": kind, "ports": ports}, "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(object).unwrap()
    }

    fn web(service: &Service, host: Option<&str>) -> Option<String> {
        ways(service, host).remove("web")
    }

    #[test]
    fn a_node_port_is_at_a_node_and_a_load_balancer_where_its_cloud_says() {
        assert_eq!(web(&service("NodePort", Value::Null), Some("192.0.2.1")).unwrap(), "192.0.2.1:30080");
        assert_eq!(
            web(&service("NodePort", Value::Null), Some("2001:db8::1")).unwrap(),
            "[2001:db8::1]:30080"
        );
        assert_eq!(web(&service("NodePort", Value::Null), None), None);
        let by_name = service("LoadBalancer", json!([{"hostname": "lb.example.com", "ip": "192.0.2.9"}]));
        assert_eq!(web(&by_name, Some("192.0.2.1")).unwrap(), "lb.example.com:80");
        assert_eq!(web(&service("LoadBalancer", json!([{"ip": "192.0.2.9"}])), None).unwrap(), "192.0.2.9:80");
        assert_eq!(web(&service("LoadBalancer", Value::Null), Some("192.0.2.1")), None, "not yet");
        assert_eq!(ways(&service("NodePort", Value::Null), Some("a")).len(), 2);
    }

    #[test]
    fn a_node_is_reached_by_its_outer_address() {
        let node = |addresses: Value| serde_json::from_value::<Node>(json!({"status": {"addresses": addresses}})).unwrap();
        let inner = json!({"type": "InternalIP", "address": "10.0.0.1"});
        assert_eq!(address(&node(json!([{"type": "Hostname", "address": "n"}, inner]))), Some("10.0.0.1"));
        assert_eq!(
            address(&node(json!([inner, {"type": "ExternalIP", "address": "192.0.2.1"}]))),
            Some("192.0.2.1")
        );
        assert_eq!(address(&node(Value::Null)), None);
    }
}
