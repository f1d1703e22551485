//! Where the public ports of sandboxes are reached from outside of the cluster.

use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Sandbox;
use crate::kube::{ApiClient, TtlCache};
use crate::proto::sandbox as pb;
use crate::resources::names;
use crate::resources::service::{node_address, public_endpoints, url};
use crate::resources::settings::PublicServices;

/// Sandboxes whose endpoints are cached.
const CAPACITY: usize = 10_000;
/// Time for which endpoints are cached.
const TTL: Duration = Duration::from_secs(60);
/// Time for which it is cached that there are none yet.
const EMPTY_TTL: Duration = Duration::from_millis(500);

/// `host:port` by the name of the port.
type Endpoints = Arc<BTreeMap<String, String>>;

/// Finds public endpoints, and caches them by the UID of the Sandbox.
pub(crate) struct PublicEndpoints {
    api: ApiClient,
    config: PublicServices,
    cache: TtlCache<String, Endpoints>,
}

impl PublicEndpoints {
    /// Finds endpoints of Services as they are configured.
    pub(crate) fn new(api: ApiClient, config: PublicServices) -> PublicEndpoints {
        PublicEndpoints {
            api,
            config,
            cache: TtlCache::new(CAPACITY),
        }
    }

    /// Replaces the cluster-internal URLs of public ports by external ones. An endpoint that does not exist yet, or
    /// cannot be read, leaves its URL empty; callers poll for it.
    pub(crate) async fn set_public_urls(&self, sandbox: &Sandbox, message: &mut pb::Sandbox) {
        let Some(status) = &mut message.status else { return };
        let public = i32::from(pb::Visibility::Public);
        let are_external = self.config.kind.outside().is_some();
        if !are_external
            || status
                .services
                .iter()
                .all(|s| s.visibility != public || s.url.is_empty())
        {
            return;
        }
        let uid = sandbox.uid().unwrap_or_default();
        let endpoints = self
            .cache
            .get_or_fetch(&uid, Instant::now(), self.find(sandbox))
            .await
            .unwrap_or_default();
        let ports = sandbox.spec.workload.ports.iter().flatten();
        for (service, port) in status
            .services
            .iter_mut()
            .zip(ports)
            .filter(|(s, _)| s.visibility == public)
        {
            service.url = endpoints
                .get(&port.name)
                .map(|endpoint| url(port, endpoint))
                .unwrap_or_default();
        }
    }

    async fn find(&self, sandbox: &Sandbox) -> kube::Result<(Endpoints, Duration)> {
        let namespace = sandbox.namespace().unwrap_or_default();
        let service = self
            .api
            .get::<Service>(&namespace, &names::public_service(sandbox))
            .await?;
        let Some(service) = service.filter(|s| names::is_child(&s.metadata, sandbox)) else {
            return Ok((Endpoints::default(), EMPTY_TTL));
        };
        let configured = Some(self.config.host.as_str()).filter(|h| !h.is_empty());
        let node_name = sandbox.status.as_ref().and_then(|s| s.node_name.as_deref());
        let node = match node_name.filter(|_| configured.is_none()) {
            Some(name) => self.api.get_cluster_scoped::<Node>(name).await?,
            None => None,
        };
        let endpoints = public_endpoints(&service, configured.or(node.as_ref().and_then(node_address)));
        let ttl = if endpoints.is_empty() { EMPTY_TTL } else { TTL };
        Ok((Arc::new(endpoints), ttl))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(kind: &str, ingress: Value) -> Service {
        let ports =
            json!([{"name": "web", "port": 80, "nodePort": 30_080}, {"name": "more", "port": 81, "nodePort": 30_081}]);
        let object = json!({"spec": {"type": kind, "ports": ports}, "status": {"loadBalancer": {"ingress": ingress}}});
        serde_json::from_value(object).unwrap()
    }

    fn web(service: &Service, host: Option<&str>) -> Option<String> {
        public_endpoints(service, host).remove("web")
    }

    #[test]
    fn a_node_port_is_on_the_node_and_a_load_balancer_on_its_ingress_address() {
        assert_eq!(
            web(&service("NodePort", Value::Null), Some("192.0.2.1")).unwrap(),
            "192.0.2.1:30080"
        );
        assert_eq!(
            web(&service("NodePort", Value::Null), Some("2001:db8::1")).unwrap(),
            "[2001:db8::1]:30080"
        );
        assert_eq!(web(&service("NodePort", Value::Null), None), None);
        let by_name = service(
            "LoadBalancer",
            json!([{"hostname": "lb.example.com", "ip": "192.0.2.9"}]),
        );
        assert_eq!(web(&by_name, Some("192.0.2.1")).unwrap(), "lb.example.com:80");
        assert_eq!(
            web(&service("LoadBalancer", json!([{"ip": "192.0.2.9"}])), None).unwrap(),
            "192.0.2.9:80"
        );
        assert_eq!(
            web(&service("LoadBalancer", Value::Null), Some("192.0.2.1")),
            None,
            "not yet"
        );
        assert_eq!(public_endpoints(&service("NodePort", Value::Null), Some("a")).len(), 2);
    }

    #[test]
    fn a_nodes_external_address_is_preferred() {
        let node =
            |addresses: Value| serde_json::from_value::<Node>(json!({"status": {"addresses": addresses}})).unwrap();
        let internal = json!({"type": "InternalIP", "address": "10.0.0.1"});
        assert_eq!(
            node_address(&node(json!([{"type": "Hostname", "address": "n"}, internal]))),
            Some("10.0.0.1")
        );
        assert_eq!(
            node_address(&node(json!([internal, {"type": "ExternalIP", "address": "192.0.2.1"}]))),
            Some("192.0.2.1")
        );
        assert_eq!(node_address(&node(Value::Null)), None);
    }
}
