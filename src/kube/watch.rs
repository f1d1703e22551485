//! The one watch loop. Each watch has a backoff of its own; kube's `Controller` would stop all its watches when one
//! fails.

use ::kube::core::{ClusterResourceScope, NamespaceResourceScope};
use ::kube::runtime::watcher::{Config, Event};
use ::kube::runtime::{WatchStreamExt, watcher};
use ::kube::{Api, Resource, ResourceExt};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::client::ApiClient;
use super::metrics::ApiMetrics;
use super::readable::Readable;

/// Objects in a page of a list. Each may have 1.5 MiB, and a page must fit into memory several times.
const PAGE: u32 = 50;

impl ApiClient {
    /// Watches one namespace, or all, until the end of the process. `labels` is a label selector; an empty one selects
    /// everything. Errors are logged and counted, and the watch is restarted. Unreadable objects are logged and
    /// counted, too.
    pub async fn watch<K>(&self, namespace: Option<&str>, labels: &str, handle: impl FnMut(Event<Readable<K>>))
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let api = match namespace {
            Some(namespace) => self.namespaced(namespace),
            None => Api::all(self.inner().clone()),
        };
        run(api, labels, self.metrics(), handle).await;
    }

    /// [`ApiClient::watch`] of a kind without namespaces.
    pub async fn watch_cluster_scoped<K>(&self, labels: &str, handle: impl FnMut(Event<Readable<K>>))
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        run(Api::all(self.inner().clone()), labels, self.metrics(), handle).await;
    }
}

async fn run<K>(api: Api<Readable<K>>, labels: &str, metrics: &ApiMetrics, mut handle: impl FnMut(Event<Readable<K>>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind = K::kind(&());
    // In pages: a list from the watch cache is a single response, and tenants control the size of its objects.
    let config = Config::default().labels(labels).page_size(PAGE);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                if let Event::Apply(object) | Event::InitApply(object) = &event
                    && let Err(unreadable) = &object.0
                {
                    let (name, namespace) = (object.name_any(), object.namespace());
                    tracing::warn!(%kind, object = name, namespace, error = unreadable.error, "object cannot be deserialized; skipped");
                    metrics.unreadable(&kind);
                }
                handle(event);
            }
            Err(error) => {
                metrics.watch_error(&kind);
                tracing::warn!(%kind, error = crate::telemetry::chain(&error), "watch failed; restarting");
            }
        }
    }
}

/// The event of a readable object. Others go to `unreadable`, but for their deletion.
pub fn readable<K>(event: Event<Readable<K>>, unreadable: impl FnOnce(&super::Unreadable)) -> Option<Event<K>> {
    Some(match event {
        Event::Apply(object) => Event::Apply(object.0.inspect_err(unreadable).ok()?),
        Event::InitApply(object) => Event::InitApply(object.0.inspect_err(unreadable).ok()?),
        Event::Delete(object) => Event::Delete(object.0.ok()?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    #[test]
    fn an_unreadable_object_is_reported_and_skipped() {
        let outcome = |event: fn(Readable<Pod>) -> Event<Readable<Pod>>, containers: Value| {
            let object = json!({"metadata": {"name": "a"}, "spec": {"containers": containers}});
            let mut reported = false;
            let event = readable(event(serde_json::from_value(object).unwrap()), |_| reported = true);
            (event.is_some(), reported)
        };
        for event in [Event::Apply, Event::InitApply] {
            assert_eq!(outcome(event, json!([])), (true, false));
            assert_eq!(outcome(event, json!("ls")), (false, true));
        }
        assert_eq!(
            (outcome(Event::Delete, json!([])), outcome(Event::Delete, json!("ls"))),
            ((true, false), (false, false))
        );
    }
}
