//! Making the children: deny-all policy, own policy, files, Service, and the pod last.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use std::time::{Duration, Instant};

use super::decide::Verdict;
use super::observed::Observed;
use crate::api::{FieldError, State, reason};
use crate::kube::Namespaced;
use crate::operator::apply::Created;
use crate::operator::caches::reference;
use crate::operator::context::Context;
use crate::operator::error::Error;
use crate::resources::network_policy::spec_hash;
use crate::resources::{AgentInjection, files, labels, names, network_policy, pod, service};

/// Least time between two repairs of one policy.
const REPAIR_PAUSE: Duration = Duration::from_secs(60);

/// What became of it.
pub enum Outcome {
    /// All children are there.
    Launched,
    /// It can never be.
    Refused(Verdict),
    /// It cannot be now.
    Later(Verdict),
}

/// Stops at the first child that cannot be made.
enum Stop {
    Outcome(Outcome),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

/// Makes what is missing, the pod last.
pub async fn launch(o: &Observed<'_>, ctx: &Context) -> Result<Outcome, Error> {
    outcome(Box::pin(children(o, ctx)).await)
}

/// Makes the policy of a pod that lives anew, or as it was.
pub async fn restore_policy(o: &Observed<'_>, ctx: &Context) -> Result<Outcome, Error> {
    let restored = async { policies(o, ctx, &own_policy(o, ctx).map_err(invalid)?).await.map(drop) };
    outcome(Box::pin(restored).await)
}

/// Takes away the Service by which a sandbox that has ended was reached from outside: node ports and load balancers are few, and its record
/// may stay for long.
pub async fn unpublish(o: &Observed<'_>, ctx: &Context) -> Result<(), Error> {
    if service::public_ports(o.effective).next().is_none() {
        return Ok(());
    }
    let (namespace, name) = (o.sandbox.namespace().unwrap_or_default(), names::public_service(o.sandbox));
    let there: Option<Service> = ctx.writer.get("Service", &namespace, &name).await?;
    match there.filter(|s| names::is_child(&s.metadata, o.sandbox)) {
        Some(ours) => ctx.writer.delete::<Service>("Service", (&ours.metadata).into()).await,
        None => Ok(()),
    }
}

fn outcome(made: Result<(), Stop>) -> Result<Outcome, Error> {
    match made {
        Ok(()) => Ok(Outcome::Launched),
        Err(Stop::Outcome(outcome)) => Ok(outcome),
        Err(Stop::Error(error)) => Err(error),
    }
}

fn own_policy(o: &Observed, ctx: &Context) -> Result<NetworkPolicy, FieldError> {
    network_policy::build(o.sandbox, o.effective, &ctx.settings, &ctx.lists)
}

async fn children(o: &Observed<'_>, ctx: &Context) -> Result<(), Stop> {
    // All are built before the first is made: a spec that cannot be leaves nothing behind.
    let policy = own_policy(o, ctx).map_err(invalid)?;
    let secret = files::secret(o.sandbox, o.effective).map_err(invalid)?;
    let agent = AgentInjection {
        by: ctx.agent_by,
        key: ctx.agent_key.borrow().clone(),
    };
    let mut pod = pod::build(o.sandbox, o.effective, &ctx.settings, &agent).map_err(invalid)?;

    let policy = policies(o, ctx, &policy).await?;
    if let Some(secret) = secret {
        own(o, ctx, "Secret", &secret).await?;
    }
    for service in service::build(o.sandbox, o.effective, &ctx.settings) {
        own_service(o, ctx, &service).await?;
    }
    names::set_policy_owner(&mut pod.metadata, policy.metadata.uid.as_deref().unwrap_or_default());
    match own::<Pod>(o, ctx, "Pod", &pod).await {
        Err(Stop::Outcome(Outcome::Refused(verdict))) if verdict.reason == reason::NAME_TAKEN => {
            // No policy of ours stays for a pod that is not ours.
            ctx.writer.delete::<NetworkPolicy>("NetworkPolicy", (&policy.metadata).into()).await?;
            Err(Stop::Outcome(Outcome::Refused(verdict)))
        }
        other => other.map(drop),
    }
}

/// The namespace's deny-all, then the sandbox's own policy.
async fn policies(o: &Observed<'_>, ctx: &Context, own_policy: &NetworkPolicy) -> Result<NetworkPolicy, Stop> {
    standing_policy(o, ctx).await?;
    let there = own(o, ctx, "NetworkPolicy", own_policy).await?;
    written_back(o, ctx, there, own_policy).await
}

async fn standing_policy(o: &Observed<'_>, ctx: &Context) -> Result<(), Stop> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let wanted = network_policy::deny_all(&namespace);
    let cached = ctx.caches.policies.get(&reference(&namespace, names::DENY_ALL));
    if cached.is_some_and(|p| spec_hash(&p) == spec_hash(&wanted)) {
        return Ok(());
    }
    match ctx.writer.create("NetworkPolicy", &wanted).await? {
        Created::New(_) => Ok(()),
        Created::Refused(code, text) => Err(refused("NetworkPolicy", code, text)),
        Created::Exists => {
            let there: Option<NetworkPolicy> = ctx.writer.get("NetworkPolicy", &namespace, names::DENY_ALL).await?;
            match there {
                Some(there) if labels::is_managed(&there.metadata) => written_back(o, ctx, there, &wanted).await.map(drop),
                Some(there) if there.spec == wanted.spec => Ok(()),
                Some(_) => Err(taken("NetworkPolicy", names::DENY_ALL)),
                None => Err(vanished("NetworkPolicy", names::DENY_ALL)),
            }
        }
    }
}

/// Writes back what somebody changed in a policy of ours. Who changed it may do so again: at most once a minute.
async fn written_back(o: &Observed<'_>, ctx: &Context, there: NetworkPolicy, wanted: &NetworkPolicy) -> Result<NetworkPolicy, Stop> {
    let Some(repaired) = network_policy::repaired(&there, wanted) else {
        return Ok(there);
    };
    let (uid, name) = (there.uid().unwrap_or_default(), there.name_any());
    let contended = || {
        later(
            reason::POLICY_CHANGED,
            format!("NetworkPolicy {name} is changed by somebody again and again"),
        )
    };
    if ctx.memory.recall(&uid).written.is_some_and(|at| at.elapsed() < REPAIR_PAUSE) {
        return Err(contended());
    }
    let written = ctx.writer.replace("NetworkPolicy", &repaired).await?;
    ctx.memory.note(&uid, |n| n.written = Some(Instant::now()));
    let text = format!("NetworkPolicy {name} was not as it should be; it was written back");
    ctx.events.warn(o.sandbox, reason::POLICY_CHANGED, &text);
    match network_policy::repaired(&written, wanted) {
        None => Ok(written),
        Some(_) => Err(contended()),
    }
}

/// Creates a child; one that is there already must be ours.
async fn own<K: Namespaced>(o: &Observed<'_>, ctx: &Context, kind: &'static str, object: &K) -> Result<K, Stop> {
    match ctx.writer.create(kind, object).await? {
        Created::New(made) => Ok(made),
        Created::Refused(code, text) => Err(refused(kind, code, text)),
        Created::Exists => {
            let (namespace, name) = (o.sandbox.namespace().unwrap_or_default(), object.name_any());
            let there: Option<K> = ctx.writer.get(kind, &namespace, &name).await?;
            match there {
                Some(there) if names::is_child(there.meta(), o.sandbox) => Ok(there),
                Some(_) => Err(taken(kind, &name)),
                None => Err(vanished(kind, &name)),
            }
        }
    }
}

/// Under the sandbox's own name, or under the pod's if another object has that one.
async fn own_service(o: &Observed<'_>, ctx: &Context, service: &Service) -> Result<(), Stop> {
    match (own(o, ctx, "Service", service).await, service::with_pod_name(service, o.sandbox)) {
        (Err(Stop::Outcome(Outcome::Refused(verdict))), Some(renamed)) if verdict.reason == reason::NAME_TAKEN => {
            own(o, ctx, "Service", &renamed).await.map(drop)
        }
        (created, _) => created.map(drop),
    }
}

/// What the API server's refusal means.
fn refused(kind: &'static str, code: u16, text: String) -> Stop {
    if text.contains("exceeded quota") {
        return later(reason::QUOTA_EXCEEDED, text);
    }
    // A namespace gets its default ServiceAccount a moment after it is made; a namespace that ends takes the sandbox along;
    // and a lack of rights is our installation's fault, not the sandbox's.
    let passing = [
        "error looking up service account",
        "because it is being terminated",
        "cannot create resource",
    ];
    if code == 403 && passing.iter().any(|p| text.contains(p)) {
        return later(reason::POLICY_REJECTED, text);
    }
    // An admission webhook that does not answer, for instance.
    if code >= 500 {
        return later(reason::PENDING, text);
    }
    // Admission policies answer 422 as well, but say who denied it.
    let why = if code != 403 && !text.contains("denied") {
        reason::INVALID_SPEC
    } else {
        reason::POLICY_REJECTED
    };
    Stop::Outcome(Outcome::Refused(Verdict::new(State::Failed, why, format!("{kind}: {text}"))))
}

fn later(why: &'static str, text: String) -> Stop {
    Stop::Outcome(Outcome::Later(Verdict::new(State::Pending, why, text)))
}

/// Deleted between two calls: the next look makes it.
fn vanished(kind: &str, name: &str) -> Stop {
    later(reason::PENDING, format!("{kind} {name} was deleted while it was looked at"))
}

fn invalid(error: FieldError) -> Stop {
    Stop::Outcome(Outcome::Refused(Verdict::new(State::Failed, reason::INVALID_SPEC, error.to_string())))
}

fn taken(kind: &str, name: &str) -> Stop {
    let text = format!("there is a {kind} {name} that does not belong to this sandbox; it is left alone");
    Stop::Outcome(Outcome::Refused(Verdict::new(State::Failed, reason::NAME_TAKEN, text)))
}
