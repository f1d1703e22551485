//! The Service of a sandbox and the URLs of its ports, for the status.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;

use super::context::Context;
use super::observed::{Observed, ServiceAddress};
use super::pod::MainState;
use crate::operator::error::Error;
use crate::resources::{names, service};

/// Reads it from the API server once, when the main container runs. None if the sandbox has no ports, or if the status
/// has it already.
pub(super) async fn observe(o: &Observed, ctx: &Context) -> Result<Option<ServiceAddress>, Error> {
    let has_ports = o.effective.workload.ports.iter().flatten().next().is_some();
    let runs = o.pod.as_ref().is_some_and(|p| matches!(p.main, MainState::Running(_)));
    if !has_ports || !runs || o.status.service_name.is_some() {
        return Ok(None);
    }
    let own = names::service(&o.sandbox);
    let name = match child(o, ctx, &own).await? {
        Some(_) => own,
        None => names::child(&o.sandbox),
    };
    let endpoints = public_endpoints(o, ctx).await?;
    let urls = service::urls(&o.sandbox, &o.effective, &name, &endpoints);
    Ok(Some(ServiceAddress { name, urls }))
}

/// The Service of this name, if it belongs to the sandbox.
async fn child(o: &Observed, ctx: &Context, name: &str) -> Result<Option<Service>, Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let found: Option<Service> = ctx.writer.get("Service", &namespace, name).await?;
    Ok(found.filter(|s| names::is_child(&s.metadata, &o.sandbox)))
}

/// Addresses of public ports by their names. A load balancer that has none yet is left out.
async fn public_endpoints(o: &Observed, ctx: &Context) -> Result<BTreeMap<String, String>, Error> {
    let settings = &ctx.settings.public_services;
    if settings.kind.outside().is_none() || service::public_ports(&o.effective).next().is_none() {
        return Ok(BTreeMap::new());
    }
    let Some(public) = child(o, ctx, &names::public_service(&o.sandbox)).await? else {
        return Ok(BTreeMap::new());
    };
    if !settings.host.is_empty() {
        return Ok(service::public_endpoints(&public, Some(&settings.host)));
    }
    let node = match o.pod.as_ref().and_then(|p| p.node.as_deref()) {
        Some(node) => ctx.writer.node(node).await,
        None => None,
    };
    Ok(service::public_endpoints(
        &public,
        node.as_ref().and_then(service::node_address),
    ))
}
