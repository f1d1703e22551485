//! One check: creates the objects, waits for the client's report, deletes the objects.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::ListParams;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::pod_state::{addresses, is_hopeless, problem, report};
use super::report::Report;
use crate::kube::{ApiClient, Namespaced};
use crate::resources::labels;
use crate::resources::probe::{Probe, ProbeSettings};
use crate::telemetry::chain;
use crate::text::short;

/// Maximum duration of a check. Its pods have a longer deadline of their own, for a process that is killed.
const LONGEST: Duration = Duration::from_secs(90);
/// Pause between two reads of a pod.
const PAUSE: Duration = Duration::from_millis(500);
/// Age above which objects of another check are leftovers: longer than the deadline of its pods.
const LEFTOVER: SignedDuration = SignedDuration::from_mins(5);
/// Longest reason for an unknown result, in bytes. It becomes part of an event, whose limit is 1 KiB.
const MAX_REASON: usize = 600;

/// Checks whether the cluster enforces NetworkPolicy. `stop` ends the check early; its objects are deleted in any case.
pub(crate) async fn check(client: &ApiClient, settings: &ProbeSettings, stop: &CancellationToken) -> Report {
    delete_leftovers(client, &settings.namespace).await;
    let token = uuid::Uuid::new_v4().simple().to_string();
    let probe = Probe {
        settings,
        token: &token,
    };
    let result = match create(client, "NetworkPolicy", &probe.ingress_policy()).await {
        Err(error) => Err(error),
        Ok(owner) => {
            let result = tokio::select! {
                result = Box::pin(with_pods(client, &probe, &owner)) => result,
                () = stop.cancelled() => Err("the check was stopped".into()),
            };
            // It owns the other objects.
            delete(client, &owner).await;
            result
        }
    };
    result.unwrap_or_else(|why| Report::unknown(&short(&why, MAX_REASON)))
}

/// Creates the policies before the pods, as for sandboxes.
async fn with_pods(client: &ApiClient, probe: &Probe<'_>, owner: &NetworkPolicy) -> Result<Report, String> {
    let until = Instant::now() + LONGEST;
    create(client, "NetworkPolicy", &probe.egress_policy(owner)).await?;
    let server = create(client, "Pod", &probe.server(owner)).await?;
    let (server, addresses) = wait(client, &server, until, addresses).await?;
    let client_pod = create(client, "Pod", &probe.client(&addresses, owner)).await?;
    let (client_pod, reported) = wait(client, &client_pod, until, report).await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
    let reported = reported.map_err(|why| format!("pod {}: {why}", client_pod.name_any()))?;
    Ok(Report::new(&reported, [&node(&server), &node(&client_pod)]))
}

async fn create<K: Namespaced>(client: &ApiClient, kind: &str, object: &K) -> Result<K, String> {
    let created = client.create(object).await;
    created.map_err(|error| {
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        format!("cannot create a {kind} in namespace {namespace}: {}", chain(&error))
    })
}

/// Polls a pod until `wanted` returns something. There is no watch, because checks are rare and short.
async fn wait<T>(
    client: &ApiClient,
    pod: &Pod,
    until: Instant,
    wanted: impl Fn(&Pod) -> Option<T>,
) -> Result<(Pod, T), String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    loop {
        let seen = match client.get::<Pod>(&namespace, &name).await {
            Ok(Some(pod)) => match wanted(&pod) {
                Some(found) => return Ok((pod, found)),
                None if is_hopeless(&pod) => {
                    return Err(format!("pod {name} in namespace {namespace}: {}", problem(&pod)));
                }
                None => problem(&pod),
            },
            Ok(None) => return Err(format!("pod {name} in namespace {namespace} was deleted")),
            Err(error) => chain(&error),
        };
        if Instant::now() >= until {
            let limit = LONGEST.as_secs();
            return Err(format!(
                "pod {name} in namespace {namespace} was not ready within {limit} s: {seen}"
            ));
        }
        sleep(PAUSE).await;
    }
}

async fn delete(client: &ApiClient, policy: &NetworkPolicy) {
    if let Err(error) = client.delete::<NetworkPolicy>((&policy.metadata).into()).await {
        tracing::warn!(
            policy = policy.name_any(),
            error = chain(&error),
            "cannot delete the objects of a network check; the next one tries again"
        );
    }
}

/// Deletes the objects of checks whose process was killed. Newer objects may belong to a running check, such as that of
/// `helm test`.
async fn delete_leftovers(client: &ApiClient, namespace: &str) {
    let params = ListParams::default().labels(labels::PROBE);
    // Without the right to list, or without the namespace, the first create fails with a better message.
    let Ok(list) = client.list::<NetworkPolicy>(namespace, &params).await else {
        return;
    };
    for policy in list.items.iter().filter(|p| is_leftover(p, Timestamp::now())) {
        delete(client, policy).await;
    }
}

fn is_leftover(policy: &NetworkPolicy, now: Timestamp) -> bool {
    let created = policy.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| now.duration_since(created.0) > LEFTOVER)
}

#[cfg(test)]
mod tests;
