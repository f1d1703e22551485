//! Creates the children: the namespace's deny-all policy, the sandbox's own policy, its files, its Services, and the
//! pod last.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use std::time::{Duration, Instant};

use super::children::{Stop, create, invalid};
use super::context::{Context, LaunchFailure};
use super::decision::Verdict;
use super::identity::CreatedPod;
use super::observed::Observed;
use super::policy::{own_policy, policies};
use super::proof;
use crate::api::{State, reason};
use crate::operator::error::Error;
use crate::operator::runtime::jitter;
use crate::resources::{AgentInjection, Settings, constraints, files, names, pod, service};

/// Pause before children that could not be created are tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Creates what is missing. A failure is remembered and reconciled at once: deciding what it means is not done here.
pub(super) async fn launch(o: &Observed, ctx: &Context) -> Result<Option<Duration>, Error> {
    let uid = o.sandbox.uid().unwrap_or_default();
    let failure = match Box::pin(children(o, ctx)).await {
        Ok(pod) => {
            let created = CreatedPod {
                uid: pod.metadata.uid.unwrap_or_default(),
                at: Instant::now(),
            };
            ctx.states.update(&uid, |s| {
                s.created_pod = Some(created);
                s.launch_failure = None;
            });
            return Ok(None);
        }
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Refused(verdict)) => LaunchFailure {
            verdict,
            retry_at: None,
        },
        Err(Stop::Later(verdict)) => {
            let pause = SignedDuration::try_from(RETRY_PAUSE.mul_f64(0.8 + 0.4 * jitter())).unwrap_or_default();
            let retry_at = Some(Timestamp::now() + pause);
            LaunchFailure { verdict, retry_at }
        }
    };
    ctx.states.update(&uid, |s| s.launch_failure = Some(failure));
    Ok(Some(Duration::ZERO))
}

async fn children(o: &Observed, ctx: &Context) -> Result<Pod, Stop> {
    if let Some(verdict) = constraint_violation(o, &ctx.settings) {
        return Err(Stop::Refused(verdict));
    }
    // All are built before the first is created: a spec that is invalid leaves nothing behind.
    let policy = own_policy(o, ctx).map_err(invalid)?;
    let contents = files::config_map(&o.sandbox, &o.effective).map_err(invalid)?;
    let agent = AgentInjection {
        delivery: ctx.agent_delivery,
        key: ctx.agent_key.borrow().clone(),
    };
    let mut pod = pod::build(&o.sandbox, &o.effective, &ctx.settings, &agent).map_err(invalid)?;

    let policy = policies(o, ctx, &policy).await?;
    if let Some(contents) = contents {
        let is_same = |found: &ConfigMap| found.binary_data == contents.binary_data;
        create(o, ctx, "ConfigMap", &contents, is_same).await?;
    }
    for service in service::build(&o.sandbox, &o.effective, &ctx.settings) {
        create_service(o, ctx, &service).await?;
    }
    names::set_policy_owner(&mut pod.metadata, policy.metadata.uid.as_deref().unwrap_or_default());
    proof::add(&mut pod.metadata, &o.sandbox, &ctx.keys, &agent.key.id);
    let is_ours = |found: &Pod| proof::is_ours(&found.metadata, &o.sandbox, &ctx.keys);
    match create::<Pod>(o, ctx, "Pod", &pod, is_ours).await {
        Err(Stop::Refused(verdict)) if verdict.reason == reason::NAME_TAKEN => {
            // No policy of ours remains for a pod that is not ours.
            ctx.writer
                .delete::<NetworkPolicy>("NetworkPolicy", (&policy.metadata).into())
                .await?;
            Err(Stop::Refused(verdict))
        }
        other => other,
    }
}

/// The verdict for a sandbox that violates a constraint. Admission checked only the sandbox's own fields, and the
/// constraints may have changed since.
pub(super) fn constraint_violation(o: &Observed, settings: &Settings) -> Option<Verdict> {
    let violations = constraints::check(&o.effective, settings).into_iter();
    let texts: Vec<_> = violations
        .map(|v| v.of(&o.sandbox, o.session.get()).to_string())
        .collect();
    (!texts.is_empty()).then(|| Verdict::new(State::Failed, reason::CONSTRAINT_VIOLATED, texts.join("; ")))
}

/// Under the sandbox's own name, or under the pod's if another object has that one.
async fn create_service(o: &Observed, ctx: &Context, service: &Service) -> Result<(), Stop> {
    match (
        create(o, ctx, "Service", service, |found| service::is_same(found, service)).await,
        service::with_pod_name(service, &o.sandbox),
    ) {
        (Err(Stop::Refused(verdict)), Some(renamed)) if verdict.reason == reason::NAME_TAKEN => {
            create(o, ctx, "Service", &renamed, |found| service::is_same(found, &renamed))
                .await
                .map(drop)
        }
        (created, _) => created.map(drop),
    }
}
