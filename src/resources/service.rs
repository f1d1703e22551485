//! The Service of a sandbox that declares ports.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Effective, labels, names};
use crate::api::Sandbox;

/// A Service in front of the declared ports; none without ports.
pub fn build(sandbox: &Sandbox, effective: &Effective) -> Option<Service> {
    let declared = effective.workload.ports.as_deref().filter(|p| !p.is_empty())?;
    let ports = declared.iter().map(|p| ServicePort {
        name: Some(p.name.clone()),
        port: p.port,
        target_port: Some(IntOrString::Int(p.port)),
        protocol: Some(p.protocol.unwrap_or_default().as_str().into()),
        ..ServicePort::default()
    });
    Some(Service {
        metadata: names::child_meta(sandbox),
        spec: Some(ServiceSpec {
            selector: labels::selector(sandbox).match_labels,
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    })
}
