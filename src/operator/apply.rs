//! The only place that writes to the API server. Every call has a timeout (kube's client has none, and retries on its own for minutes).

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use super::error::Error;
use super::metrics::Metrics;
use crate::api::{Sandbox, SandboxSession, SandboxSessionStatus, SandboxStatus};

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Writes, and the few reads that must be live.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    metrics: Metrics,
}

/// What became of a create.
pub enum Created<K> {
    /// It is new.
    New(K),
    /// There is one of this name.
    Exists,
    /// The API server refused it: a code and its text.
    Refused(u16, String),
}

impl Writer {
    /// A writer.
    pub fn new(client: Client, metrics: Metrics) -> Writer {
        Writer { client, metrics }
    }

    async fn call<T>(&self, verb: &'static str, kind: &'static str, name: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        let began = Instant::now();
        let result = tokio::time::timeout(TIMEOUT, call).await;
        let code = match &result {
            Ok(Ok(_)) => 200,
            Ok(Err(kube::Error::Api(status))) => status.code,
            Ok(Err(_)) => 0,
            Err(_) => 408,
        };
        self.metrics.api_request(verb, kind, code, began.elapsed());
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Error::Api {
                verb,
                kind,
                name: name.into(),
                source: Box::new(source),
            }),
            Err(_) => Err(Error::Timeout {
                verb,
                kind,
                name: name.into(),
                after: TIMEOUT,
            }),
        }
    }

    /// Creates a child. Refusals are values, since each ends differently.
    pub async fn create<K>(&self, kind: &'static str, object: &K) -> Result<Created<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let meta = object.meta();
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match self.call("create", kind, name, api.create(&PostParams::default(), object)).await {
            Ok(made) => Ok(Created::New(made)),
            Err(error) => match error.status() {
                Some(s) if s.is_already_exists() => Ok(Created::Exists),
                // 403: quota, Pod Security, admission; 400 and 422: admission and validation; from 500: a webhook that fails.
                Some(s) if matches!(s.code, 400 | 403 | 422 | 500..) => Ok(Created::Refused(s.code, s.message.clone())),
                _ => Err(error),
            },
        }
    }

    /// Writes an object as a whole, on condition of its resourceVersion.
    pub async fn replace<K>(&self, kind: &'static str, object: &K) -> Result<K, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let (namespace, name) = coordinates(object);
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.call("update", kind, name, api.replace(name, &PostParams::default(), object)).await
    }

    /// A live read; none if there is no such object.
    pub async fn get<K>(&self, kind: &'static str, namespace: &str, name: &str) -> Result<Option<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        self.call("get", kind, name, api.get_opt(name)).await
    }

    /// Writes a sandbox's status. A merge patch without resourceVersion: the leading operator is the only writer of status.
    pub async fn sandbox_status(&self, sandbox: &Sandbox, old: &SandboxStatus, status: &SandboxStatus) -> Result<(), Error> {
        let (namespace, name) = coordinates(sandbox);
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), namespace);
        // The UID makes it a conflict to write to a successor of the same name. `null`s: a merge patch keeps what it does not name.
        let body = json!({"metadata": {"uid": sandbox.metadata.uid}, "status": with_nulls(status, old)});
        gone_is_fine(
            self.call(
                "patch",
                "Sandbox/status",
                name,
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(body)),
            )
            .await,
        )
    }

    /// Writes a session's status; as above.
    pub async fn session_status(&self, session: &SandboxSession, status: &SandboxSessionStatus) -> Result<(), Error> {
        let (namespace, name) = coordinates(session);
        let api: Api<SandboxSession> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({"metadata": {"uid": session.metadata.uid}, "status": status});
        gone_is_fine(
            self.call(
                "patch",
                "SandboxSession/status",
                name,
                api.patch_status(name, &PatchParams::default(), &Patch::Merge(body)),
            )
            .await,
        )
    }

    /// Sets the owner references of a sandbox, on condition of its resourceVersion: others may write them too.
    pub async fn set_owners(&self, sandbox: &Sandbox) -> Result<(), Error> {
        let (namespace, name) = coordinates(sandbox);
        let api: Api<Sandbox> = Api::namespaced(self.client.clone(), namespace);
        let meta = &sandbox.metadata;
        let body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": meta.owner_references}});
        gone_is_fine(
            self.call("patch", "Sandbox", name, api.patch(name, &PatchParams::default(), &Patch::Merge(body)))
                .await,
        )
    }

    /// Lowers a pod's `activeDeadlineSeconds`.
    pub async fn pod_deadline(&self, namespace: &str, name: &str, uid: &str, seconds: i64) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({"metadata": {"uid": uid}, "spec": {"activeDeadlineSeconds": seconds}});
        gone_is_fine(
            self.call("patch", "Pod", name, api.patch(name, &PatchParams::default(), &Patch::Merge(body)))
                .await,
        )
    }

    /// Deletes the object of this UID; one that is gone already, or another of the same name, is as good.
    pub async fn delete<K>(&self, kind: &'static str, namespace: &str, name: &str, uid: &str) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let only = Preconditions {
            uid: Some(uid.into()),
            resource_version: None,
        };
        let params = DeleteParams::background().preconditions(only);
        match self.call("delete", kind, name, api.delete(name, &params)).await {
            Err(error) if error.status().is_some_and(|s| s.is_conflict()) => Ok(()),
            other => gone_is_fine(other),
        }
    }
}

/// The kinds that a sandbox's children have, for `create`.
pub trait Child: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned {}
impl Child for Pod {}
impl Child for NetworkPolicy {}
impl Child for Service {}
impl Child for Secret {}

fn coordinates<K: Resource>(object: &K) -> (&str, &str) {
    let meta = object.meta();
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn gone_is_fine<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.status().is_some_and(|s| s.is_not_found()) => Ok(()),
        other => other.map(drop),
    }
}

/// The new status, with `null` for every field that the old one has and the new one has not.
fn with_nulls(new: &SandboxStatus, old: &SandboxStatus) -> serde_json::Value {
    let object = |s: &SandboxStatus| match serde_json::to_value(s) {
        Ok(serde_json::Value::Object(map)) => map,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let mut body = object(new);
    for key in object(old).keys() {
        body.entry(key.clone()).or_insert(serde_json::Value::Null);
    }
    serde_json::Value::Object(body)
}
