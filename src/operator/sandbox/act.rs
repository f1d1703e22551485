//! Act: the one step that a decision asks for.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::Semaphore;

use super::cache::{CachedPod, reference};
use super::context::Context;
use super::decision::Action;
use super::launch::launch;
use super::observed::{Observed, Session};
use super::pod::{MainState, PodView, target};
use super::policy::restore_policy;
use super::stop::without_agent;
use super::whole;
use crate::agent_client::{AgentClient, AgentEndpoint};
use crate::api::Sandbox;
use crate::operator::apply::Writer;
use crate::operator::error::Error;
use crate::resources::{names, service};

/// Concurrent calls to agents.
const MAX_STOPS: usize = 256;
/// The shortest grace period with which a pod is deleted: with 0 it would be gone from the API before its processes
/// have ended.
const LEAST_GRACE: u32 = 1;

/// Takes the action. Returns a pause after which the sandbox is reconciled again even if nothing changes.
pub(super) async fn act(o: &Observed, action: &Action, ctx: &Context) -> Result<Option<Duration>, Error> {
    let whole;
    let o = if whole::is_needed(o, action) {
        whole = match Box::pin(whole::read(o, ctx)).await? {
            Some(whole) => whole,
            None => return Ok(None),
        };
        &whole
    } else {
        o
    };
    let namespace = o.sandbox.namespace().unwrap_or_default();
    if o.status.state.is_final() {
        unpublish(o, ctx).await?;
    }
    match action {
        Action::None => {}
        Action::Launch => return launch(o, ctx).await,
        Action::RestorePolicy => return restore_policy(o, ctx).await,
        Action::Join => join(o, ctx).await?,
        Action::SetPolicyOwner(uid) => set_policy_owner(o, ctx, uid).await?,
        Action::StopAgent(pod, grace) => {
            let stop = Stop {
                endpoint: endpoint(pod, ctx.settings.agent.port),
                grace: u32::try_from(*grace).unwrap_or_default(),
                otherwise: without_agent(o, pod, *grace),
                pod: pod.name.clone(),
                namespace,
                agents: ctx.agents.clone(),
                writer: ctx.writer.clone(),
            };
            // A frozen agent responds late or never, and must not delay other sandboxes. The decision does not depend
            // on the outcome: if the main command still runs a while later, its pod is ended.
            tokio::spawn(stop.run());
        }
        Action::SetDeadline(..) | Action::DeletePod(_) | Action::KillPod(..) => {
            end_pod(&namespace, action, &ctx.writer).await?
        }
        Action::Delete => {
            ctx.writer
                .delete::<Sandbox>("Sandbox", (&o.sandbox.metadata).into())
                .await?
        }
    }
    Ok(None)
}

async fn end_pod(namespace: &str, action: &Action, writer: &Writer) -> Result<(), Error> {
    match action {
        Action::SetDeadline(pod, seconds) => writer.pod_deadline(target(namespace, pod), *seconds).await,
        Action::DeletePod(pod) => writer.delete::<Pod>("Pod", target(namespace, pod)).await,
        Action::KillPod(pod, grace) => {
            let grace = u32::try_from(*grace).unwrap_or_default().max(LEAST_GRACE);
            writer.delete_within::<Pod>("Pod", target(namespace, pod), grace).await
        }
        _ => Ok(()),
    }
}

/// Deletes the Service by which a sandbox that has ended was reached from outside of the cluster: node ports and load
/// balancers are scarce, and its record may be kept for long.
async fn unpublish(o: &Observed, ctx: &Context) -> Result<(), Error> {
    if service::public_ports(&o.effective).next().is_none() {
        return Ok(());
    }
    let (namespace, name) = (
        o.sandbox.namespace().unwrap_or_default(),
        names::public_service(&o.sandbox),
    );
    let found: Option<Service> = ctx.writer.get("Service", &namespace, &name).await?;
    match found.filter(|s| names::is_child(&s.metadata, &o.sandbox)) {
        Some(ours) => ctx.writer.delete::<Service>("Service", (&ours.metadata).into()).await,
        None => Ok(()),
    }
}

async fn join(o: &Observed, ctx: &Context) -> Result<(), Error> {
    let Session::Joining { session, .. } = &o.session else {
        return Ok(());
    };
    let mut meta = o.sandbox.metadata.clone();
    meta.owner_references
        .get_or_insert_default()
        .push(names::session_owner(session));
    ctx.writer.set_owners::<Sandbox>("Sandbox", &meta).await
}

async fn set_policy_owner(o: &Observed, ctx: &Context, policy_uid: &str) -> Result<(), Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let pod = o
        .pod
        .as_ref()
        .and_then(|pod| ctx.caches.pods.get(&reference::<CachedPod>(&namespace, &pod.name)));
    let Some(pod) = pod else {
        return Ok(());
    };
    let mut meta = pod.metadata.clone();
    names::set_policy_owner(&mut meta, policy_uid);
    ctx.writer.set_owners::<Pod>("Pod", &meta).await
}

/// A call to the agent to stop the main command, and what to do if that fails.
struct Stop {
    endpoint: Option<AgentEndpoint>,
    grace: u32,
    otherwise: Action,
    pod: String,
    namespace: String,
    agents: AgentClient,
    writer: Writer,
}

impl Stop {
    async fn run(self) {
        static PERMITS: Semaphore = Semaphore::const_new(MAX_STOPS);
        // The semaphore is never closed.
        let _permit = PERMITS.acquire().await;
        let stopped = match &self.endpoint {
            Some(endpoint) => self.agents.stop(endpoint, self.grace).await,
            None => Err("the pod has no address".to_owned()),
        };
        let Err(error) = stopped else { return };
        let Stop { pod, namespace, .. } = &self;
        tracing::info!(pod, namespace, error, "cannot call the agent to stop the main command");
        if let Err(error) = end_pod(namespace, &self.otherwise, &self.writer).await {
            let error = crate::telemetry::chain(&error);
            tracing::warn!(pod, namespace, error, "cannot end the pod of a sandbox that is stopped");
        }
    }
}

fn endpoint(pod: &PodView, port: u16) -> Option<AgentEndpoint> {
    let ip: IpAddr = pod.ip.as_deref()?.parse().ok()?;
    Some(AgentEndpoint {
        pod_uid: pod.uid.clone(),
        ip,
        port,
        key_id: pod.agent_key.clone().unwrap_or_default(),
        started_at: match pod.main {
            MainState::Running(since) => since,
            MainState::Waiting | MainState::Terminated(_) => None,
        },
    })
}
