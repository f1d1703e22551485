//! Making the children: deny-all policy, own policy, files, Service, and the pod last.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;

use super::decide::Verdict;
use super::observed::Observed;
use crate::api::{State, reason};
use crate::operator::apply::{Child, Created};
use crate::operator::caches::reference;
use crate::operator::context::Context;
use crate::operator::error::Error;
use crate::resources::{AgentIn, files, names, network_policy, pod, service};

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

/// Makes what is missing. `policy_only`: somebody deleted the policy of a pod that lives.
pub async fn launch(o: &Observed<'_>, ctx: &Context, policy_only: bool) -> Result<Outcome, Error> {
    match Box::pin(children(o, ctx, policy_only)).await {
        Ok(()) => Ok(Outcome::Launched),
        Err(Stop::Outcome(outcome)) => Ok(outcome),
        Err(Stop::Error(error)) => Err(error),
    }
}

async fn children(o: &Observed<'_>, ctx: &Context, policy_only: bool) -> Result<(), Stop> {
    let settings = &ctx.settings;
    // All are built before the first is made: a spec that cannot be leaves nothing behind.
    let policy = network_policy::build(o.sandbox, o.effective, settings).map_err(invalid)?;
    let secret = files::secret(o.sandbox, o.effective).map_err(invalid)?;
    let agent = AgentIn {
        by: ctx.agent_by,
        key: ctx.agent_key.borrow().clone(),
    };
    let draft = pod::build(o.sandbox, o.effective, settings, &agent, "").map_err(invalid)?;

    standing_policy(o, ctx).await?;
    let policy = own(o, ctx, "NetworkPolicy", &policy).await?;
    if policy_only {
        return Ok(());
    }
    if let Some(secret) = secret {
        own(o, ctx, "Secret", &secret).await?;
    }
    if let Some(service) = service::build(o.sandbox, o.effective) {
        own(o, ctx, "Service", &service).await?;
    }
    let uid = policy.uid().unwrap_or_default();
    let mut pod = draft;
    for owner in pod.metadata.owner_references.iter_mut().flatten().filter(|r| r.kind == "NetworkPolicy") {
        owner.uid.clone_from(&uid);
    }
    match own::<Pod>(o, ctx, "Pod", &pod).await {
        Err(Stop::Outcome(Outcome::Refused(verdict))) if verdict.reason == reason::NAME_TAKEN => {
            // No policy of ours stays for a pod that is not ours.
            let namespace = policy.namespace().unwrap_or_default();
            ctx.writer
                .delete::<NetworkPolicy>("NetworkPolicy", &namespace, &policy.name_any(), &uid)
                .await?;
            Err(Stop::Outcome(Outcome::Refused(verdict)))
        }
        other => other.map(drop),
    }
}

/// The namespace's deny-all, before its first sandbox.
async fn standing_policy(o: &Observed<'_>, ctx: &Context) -> Result<(), Stop> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    if ctx.caches.policies.get(&reference(&namespace, names::DENY_ALL)).is_some() {
        return Ok(());
    }
    let wanted = network_policy::deny_all(&namespace);
    match ctx.writer.create("NetworkPolicy", &wanted).await? {
        Created::New(_) => Ok(()),
        Created::Refused(code, text) => Err(refused("NetworkPolicy", code, text)),
        Created::Exists => {
            let there: Option<NetworkPolicy> = ctx.writer.get("NetworkPolicy", &namespace, names::DENY_ALL).await?;
            let same = there.and_then(|p| p.spec) == wanted.spec;
            if same { Ok(()) } else { Err(taken("NetworkPolicy", names::DENY_ALL)) }
        }
    }
}

/// Creates a child; one that is there already must be ours.
async fn own<K: Child>(o: &Observed<'_>, ctx: &Context, kind: &'static str, object: &K) -> Result<K, Stop> {
    match ctx.writer.create(kind, object).await? {
        Created::New(made) => Ok(made),
        Created::Refused(code, text) => Err(refused(kind, code, text)),
        Created::Exists => {
            let (namespace, name) = (o.sandbox.namespace().unwrap_or_default(), object.name_any());
            let there: Option<K> = ctx.writer.get(kind, &namespace, &name).await?;
            match there {
                Some(there) if names::is_child(there.meta(), o.sandbox) => Ok(there),
                Some(_) => Err(taken(kind, &name)),
                // Deleted meanwhile: the next look makes it.
                None => Err(later(reason::PENDING, format!("{kind} {name} was deleted while it was looked at"))),
            }
        }
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

fn invalid(text: String) -> Stop {
    Stop::Outcome(Outcome::Refused(Verdict::new(State::Failed, reason::INVALID_SPEC, text)))
}

fn taken(kind: &str, name: &str) -> Stop {
    let text = format!("there is a {kind} {name} that does not belong to this sandbox; it is left alone");
    Stop::Outcome(Outcome::Refused(Verdict::new(State::Failed, reason::NAME_TAKEN, text)))
}
