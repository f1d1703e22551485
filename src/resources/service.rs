//! The Services of a sandbox that declares ports.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::settings::PublicServices;
use super::{Effective, Settings, labels, names};
use crate::api::{Port, Sandbox};

/// One in front of all declared ports, and where public ones can be reached from outside one for those.
pub fn build(sandbox: &Sandbox, effective: &Effective, settings: &Settings) -> Vec<Service> {
    let declared = effective.workload.ports.as_deref().unwrap_or_default();
    let all: Vec<&Port> = declared.iter().collect();
    let inside = (!all.is_empty()).then(|| service(sandbox, names::child_meta(sandbox), &all));
    inside.into_iter().chain(outside(sandbox, effective, &settings.public_services)).collect()
}

fn outside(sandbox: &Sandbox, effective: &Effective, how: &PublicServices) -> Option<Service> {
    let ports: Vec<&Port> = public_ports(effective).collect();
    let kind = how.kind.outside().filter(|_| !ports.is_empty())?;
    let mut metadata = names::owned_meta(sandbox, names::public_service(sandbox));
    metadata.annotations = Some(how.annotations.clone()).filter(|a| !a.is_empty());
    let mut service = service(sandbox, metadata, &ports);
    service.spec.get_or_insert_default().type_ = Some(kind.into());
    Some(service)
}

/// The ports that shall be reached from outside.
pub fn public_ports(effective: &Effective) -> impl Iterator<Item = &Port> {
    effective.workload.ports.iter().flatten().filter(|p| p.public == Some(true))
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

    fn services(kind: ServiceKind, ports: serde_json::Value) -> Vec<(String, Option<String>, Vec<i32>)> {
        let object = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": {"ports": ports},
            "metadata": {"name": "a", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"}});
        let sandbox: Sandbox = serde_json::from_value(object).unwrap();
        let mut settings = Settings::default();
        settings.public_services.kind = kind;
        let built = build(&sandbox, &Effective::new(&sandbox, None, &settings), &settings);
        let told = built.into_iter().map(|s| {
            assert!(names::is_child(&s.metadata, &sandbox));
            let spec = s.spec.unwrap();
            (s.metadata.name.unwrap(), spec.type_, spec.ports.unwrap().iter().map(|p| p.port).collect())
        });
        told.collect()
    }

    #[test]
    fn only_public_ports_are_reached_from_outside_and_only_where_there_is_a_way() {
        let mixed = || json!([{"name": "a", "port": 80, "public": true}, {"name": "b", "port": 81}, {"name": "c", "port": 82, "public": false}]);
        let inside = ("a-1234abcd".to_owned(), None, vec![80, 81, 82]);
        let outside = |kind: &str| ("a-1234abcd-public".to_owned(), Some(kind.to_owned()), vec![80]);
        assert_eq!(services(ServiceKind::ClusterIP, mixed()), std::slice::from_ref(&inside));
        assert_eq!(services(ServiceKind::NodePort, mixed()), [inside.clone(), outside("NodePort")]);
        assert_eq!(services(ServiceKind::LoadBalancer, mixed()), [inside, outside("LoadBalancer")]);
        assert_eq!(services(ServiceKind::NodePort, json!([{"name": "b", "port": 81}])).len(), 1);
        assert!(services(ServiceKind::NodePort, json!([])).is_empty());
    }
}
