//! Writes of sandboxes, sessions, their children and the agents' keys, and the few reads that must not come from a
//! cache. The Lease is written in `lease.rs`, events in `events.rs`.

use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::Status;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::error::Error;
use crate::api::{Sandbox, SandboxSession, SandboxSessionStatus, SandboxStatus};
use crate::kube::{ApiClient, Namespaced};

pub(crate) use crate::kube::Target;

/// Most events of one pod that are read.
const MAX_EVENTS: u32 = 50;

/// Writes, and uncached reads.
#[derive(Clone)]
pub(crate) struct Writer(ApiClient);

/// The outcome of a create.
pub(crate) enum Created<K> {
    /// It was created.
    New(K),
    /// An object of this name exists.
    Exists,
    /// The API server refused it.
    Refused(Box<Status>),
}

impl Writer {
    /// A writer that uses `client`.
    pub(crate) fn new(client: ApiClient) -> Writer {
        Writer(client)
    }

    /// Creates a child. Refusals are values, since the caller handles each in its own way.
    pub(crate) async fn create<K: Namespaced>(&self, kind: &'static str, object: &K) -> Result<Created<K>, Error> {
        match self.0.create(object).await {
            Ok(created) => Ok(Created::New(created)),
            Err(kube::Error::Api(s)) if s.is_already_exists() => Ok(Created::Exists),
            // 403: quota, Pod Security, admission; 400 and 422: admission and validation; from 500: a webhook that
            // fails.
            Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 422 | 500..) => Ok(Created::Refused(s)),
            Err(error) => Err(Error::api("create", kind, object.meta().into(), error)),
        }
    }

    /// Reads an object past the cache; `None` if it does not exist.
    pub(crate) async fn get<K: Namespaced>(
        &self,
        kind: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, Error> {
        let found = self.0.get(namespace, name).await;
        found.map_err(|e| {
            Error::api(
                "get",
                kind,
                Target {
                    namespace,
                    name,
                    uid: "",
                },
                e,
            )
        })
    }

    /// A pod's events.
    pub(crate) async fn events_of(&self, pod: Target<'_>) -> Result<Vec<Event>, Error> {
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={}", pod.uid))
            .limit(MAX_EVENTS);
        let list = self.0.list(pod.namespace, &params).await;
        Ok(list.map_err(|e| Error::api("list", "Event", pod, e))?.items)
    }

    /// Replaces an object on condition of its UID and resourceVersion.
    pub(crate) async fn replace<K: Namespaced>(&self, kind: &'static str, object: &K) -> Result<K, Error> {
        let replaced = self.0.replace(object).await;
        replaced.map_err(|e| Error::api("update", kind, object.meta().into(), e))
    }

    /// Patches the object with this UID; a successor of the same name is a conflict. It is no error if the object is
    /// gone.
    async fn merge<K: Namespaced>(&self, kind: &'static str, target: Target<'_>, mut body: Value) -> Result<(), Error> {
        body["metadata"]["uid"] = target.uid.into();
        ignore_gone(
            "patch",
            kind,
            target,
            self.0.merge::<K>(target.namespace, target.name, &body).await,
        )
    }

    async fn merge_status<K: Namespaced>(
        &self,
        kind: &'static str,
        target: Target<'_>,
        status: Value,
    ) -> Result<(), Error> {
        let body = json!({"metadata": {"uid": target.uid}, "status": status});
        ignore_gone(
            "patch",
            kind,
            target,
            self.0.merge_status::<K>(target.namespace, target.name, &body).await,
        )
    }

    /// Writes a sandbox's status. Without resourceVersion: the leading operator is the only writer of status.
    pub(crate) async fn sandbox_status(
        &self,
        sandbox: &Sandbox,
        old: &SandboxStatus,
        status: &SandboxStatus,
    ) -> Result<(), Error> {
        self.merge_status::<Sandbox>("Sandbox/status", (&sandbox.metadata).into(), with_nulls(status, old))
            .await
    }

    /// Writes a session's status; as above.
    pub(crate) async fn session_status(
        &self,
        session: &SandboxSession,
        status: &SandboxSessionStatus,
    ) -> Result<(), Error> {
        self.merge_status::<SandboxSession>("SandboxSession/status", (&session.metadata).into(), json!(status))
            .await
    }

    /// Writes an object's owner references on condition of its resourceVersion: others may write them, too.
    pub(crate) async fn set_owners<K: Namespaced>(&self, kind: &'static str, meta: &ObjectMeta) -> Result<(), Error> {
        let body =
            json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": meta.owner_references}});
        self.merge::<K>(kind, meta.into(), body).await
    }

    /// Reads a node. None also where the operator has no right to: with `watchNamespaces` it may read nothing outside
    /// of them.
    pub(crate) async fn node(&self, name: &str) -> Option<Node> {
        self.0.get_cluster_scoped::<Node>(name).await.ok().flatten()
    }

    /// Writes values into an existing ConfigMap.
    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<&'static str, String>,
    ) -> Result<ConfigMap, Error> {
        let target = Target {
            namespace,
            name,
            uid: "",
        };
        let written = self.0.merge(namespace, name, &json!({"data": data})).await;
        written.map_err(|e| Error::api("patch", "ConfigMap", target, e))
    }

    /// Lowers a pod's `activeDeadlineSeconds`.
    pub(crate) async fn pod_deadline(&self, pod: Target<'_>, seconds: i64) -> Result<(), Error> {
        self.merge::<Pod>("Pod", pod, json!({"spec": {"activeDeadlineSeconds": seconds}}))
            .await
    }

    /// Deletes the object with this UID. It is no error if that object is gone or was replaced.
    pub(crate) async fn delete<K: Namespaced>(&self, kind: &'static str, target: Target<'_>) -> Result<(), Error> {
        let deleted = self.0.delete::<K>(target).await;
        deleted.map_err(|e| Error::api("delete", kind, target, e))
    }

    /// As `delete`, with a grace period in seconds that replaces the object's own.
    pub(crate) async fn delete_within<K: Namespaced>(
        &self,
        kind: &'static str,
        target: Target<'_>,
        grace: u32,
    ) -> Result<(), Error> {
        let deleted = self.0.delete_within::<K>(target, grace).await;
        deleted.map_err(|e| Error::api("delete", kind, target, e))
    }
}

fn ignore_gone<T>(
    verb: &'static str,
    kind: &'static str,
    target: Target<'_>,
    result: kube::Result<T>,
) -> Result<(), Error> {
    match result {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).map_err(|e| Error::api(verb, kind, target, e)),
    }
}

/// The new status, with `null` for every field that only the old one has: a merge patch keeps what it does not name.
fn with_nulls(new: &SandboxStatus, old: &SandboxStatus) -> Value {
    let object = |s: &SandboxStatus| match serde_json::to_value(s) {
        Ok(Value::Object(map)) => map,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let mut body = object(new);
    for key in object(old).keys() {
        body.entry(key.clone()).or_insert(Value::Null);
    }
    Value::Object(body)
}
