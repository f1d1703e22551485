//! The network policies of a sandbox: created before the pod, and restored when somebody deletes or edits them.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use std::time::{Duration, Instant};

use super::cache::reference;
use super::children::{Stop, create, invalid, later, refused, taken, vanished};
use super::context::Context;
use super::observed::Observed;
use crate::api::{FieldError, reason};
use crate::operator::apply::Created;
use crate::operator::error::Error;
use crate::resources::network_policy::spec_hash;
use crate::resources::{labels, names, network_policy};

/// Least time between two repairs of one policy.
const REPAIR_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a repair that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Restores the policies of a pod that exists. A failure does not fail the sandbox: without its own policy, the
/// namespace's deny-all applies.
pub(super) async fn restore_policy(o: &Observed, ctx: &Context) -> Result<Option<Duration>, Error> {
    let restored = async { policies(o, ctx, &own_policy(o, ctx).map_err(invalid)?).await.map(drop) };
    match Box::pin(restored).await {
        Ok(()) => Ok(None),
        Err(Stop::Error(error)) => Err(error),
        Err(Stop::Refused(verdict) | Stop::Later(verdict)) => {
            ctx.events.warn(o.sandbox.as_ref(), verdict.reason, &verdict.message);
            Ok(Some(RETRY_PAUSE))
        }
    }
}

pub(super) fn own_policy(o: &Observed, ctx: &Context) -> Result<NetworkPolicy, FieldError> {
    network_policy::build(&o.sandbox, &o.effective, &ctx.settings, &ctx.lists.borrow())
}

/// The namespace's deny-all policy, then the sandbox's own.
pub(super) async fn policies(o: &Observed, ctx: &Context, own_policy: &NetworkPolicy) -> Result<NetworkPolicy, Stop> {
    deny_all(o, ctx).await?;
    // An existing policy may have any spec: it is restored afterwards.
    let found = create(o, ctx, "NetworkPolicy", own_policy, |_| true).await?;
    restore_drift(o, ctx, found, own_policy).await
}

async fn deny_all(o: &Observed, ctx: &Context) -> Result<(), Stop> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let wanted = network_policy::deny_all(&namespace);
    let cached = ctx.caches.policies.get(&reference(&namespace, names::DENY_ALL));
    if cached.is_some_and(|p| spec_hash(&p) == spec_hash(&wanted)) {
        return Ok(());
    }
    match ctx.writer.create("NetworkPolicy", &wanted).await? {
        Created::New(_) => Ok(()),
        Created::Refused(status) => Err(refused("NetworkPolicy", &status)),
        Created::Exists => {
            let found: Option<NetworkPolicy> = ctx.writer.get("NetworkPolicy", &namespace, names::DENY_ALL).await?;
            match found {
                Some(found) if labels::is_managed(&found.metadata) => {
                    restore_drift(o, ctx, found, &wanted).await.map(drop)
                }
                Some(found) if found.spec == wanted.spec => Ok(()),
                Some(_) => Err(taken("NetworkPolicy", names::DENY_ALL)),
                None => Err(vanished("NetworkPolicy", names::DENY_ALL)),
            }
        }
    }
}

/// Restores a policy of ours that somebody changed. They may change it again: at most once a minute.
async fn restore_drift(
    o: &Observed,
    ctx: &Context,
    found: NetworkPolicy,
    wanted: &NetworkPolicy,
) -> Result<NetworkPolicy, Stop> {
    let Some(repaired) = network_policy::repaired(&found, wanted) else {
        return Ok(found);
    };
    // Made by us with other address lists, for instance: a node has joined since then.
    if network_policy::is_unmodified(&found) {
        return Ok(ctx.writer.replace("NetworkPolicy", &repaired).await?);
    }
    let (uid, name) = (found.uid().unwrap_or_default(), found.name_any());
    let contended = || {
        later(
            reason::POLICY_CHANGED,
            format!("NetworkPolicy {name} is changed repeatedly by somebody else"),
        )
    };
    if ctx
        .policy_restores
        .get(&uid)
        .is_some_and(|at| at.elapsed() < REPAIR_PAUSE)
    {
        return Err(contended());
    }
    let written = ctx.writer.replace("NetworkPolicy", &repaired).await?;
    ctx.policy_restores.update(&uid, |at| *at = Some(Instant::now()));
    let text = format!("NetworkPolicy {name} was changed by somebody else; it was restored");
    ctx.events.warn(o.sandbox.as_ref(), reason::POLICY_CHANGED, &text);
    match network_policy::repaired(&written, wanted) {
        None => Ok(written),
        Some(_) => Err(contended()),
    }
}
