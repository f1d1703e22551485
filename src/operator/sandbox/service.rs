//! The Service of a sandbox and the URLs of its ports, for the status.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use std::collections::BTreeMap;

use super::context::Context;
use super::observed::{Observed, ServiceAddress};
use super::pod::MainState;
use crate::operator::error::Error;
use crate::resources::settings::ServiceKind;
use crate::resources::{Effective, names, service};

/// Minimum time between two reads of a load balancer that has no address yet.
const BALANCER_PAUSE: SignedDuration = SignedDuration::from_secs(15);

/// Reads the Service from the API server once, when the main container runs, and again while a load balancer has no
/// address. None if the sandbox has no ports, or if the status has it already.
pub(super) async fn observe(
    o: &mut Observed,
    polled: Option<Timestamp>,
    ctx: &Context,
    now: Timestamp,
) -> Result<Option<ServiceAddress>, Error> {
    let has_ports = o.effective.workload.ports.iter().flatten().next().is_some();
    let runs = o.pod.as_ref().is_some_and(|p| matches!(p.main, MainState::Running(_)));
    if !has_ports || !runs {
        return Ok(None);
    }
    let is_written = o.status.service_name.is_some();
    let waits = ctx.settings.public_services.kind == ServiceKind::LoadBalancer
        && is_incomplete(&o.effective, o.status.urls.len());
    if is_written && !waits {
        return Ok(None);
    }
    if waits {
        let due = polled
            .map(|at| at + BALANCER_PAUSE)
            .filter(|due| is_written && now < *due);
        o.poll_at = Some(due.unwrap_or(now + BALANCER_PAUSE));
        if due.is_some() {
            return Ok(None);
        }
        ctx.states
            .update(&o.sandbox.uid().unwrap_or_default(), |s| s.balancer_polled = Some(now));
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

/// Whether URLs of public ports are missing: each port has one inside the cluster, and each public port has a second
/// one.
fn is_incomplete(effective: &Effective, urls: usize) -> bool {
    urls < effective.workload.ports.iter().flatten().count() + service::public_ports(effective).count()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Sandbox;
    use crate::resources::Settings;
    use serde_json::json;

    #[test]
    fn the_urls_are_incomplete_until_each_public_port_has_an_address() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"name": "a", "port": 80, "public": true}, {"name": "b", "port": 81}]}});
        let sandbox: Sandbox = serde_json::from_value(object).unwrap();
        let effective = Effective::new(&sandbox, None, &Settings::default());
        assert_eq!([2, 3].map(|urls| is_incomplete(&effective, urls)), [true, false]);
    }
}
