//! The only place that writes to the API server. Every call has a timeout (kube's client has none, and retries on its own for minutes).

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use std::future::Future;
use std::time::{Duration, Instant};

use super::error::Error;
use super::metrics::Metrics;
use crate::api::{Sandbox, SandboxSession, SandboxSessionStatus, SandboxStatus};
use crate::guard::Guarded;
use crate::process::Namespaced;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Most events of one pod that are read.
const EVENTS: u32 = 50;

/// One object, which its UID tells from a successor of the same name.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

impl<'a> From<&'a ObjectMeta> for Target<'a> {
    fn from(meta: &'a ObjectMeta) -> Target<'a> {
        Target {
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
        }
    }
}

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

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a child. Refusals are values, since each ends differently.
    pub async fn create<K: Namespaced>(&self, kind: &'static str, object: &K) -> Result<Created<K>, Error> {
        let Target { namespace, name, .. } = object.meta().into();
        let api = self.api::<K>(namespace);
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

    /// A live read; none if there is no such object.
    pub async fn get<K: Namespaced>(&self, kind: &'static str, namespace: &str, name: &str) -> Result<Option<K>, Error> {
        let get = async { self.api::<Guarded<K>>(namespace).get_opt(name).await?.map(Guarded::readable).transpose() };
        self.call("get", kind, name, get).await
    }

    /// A pod's events.
    pub async fn events_of(&self, pod: Target<'_>) -> Result<Vec<Event>, Error> {
        let params = ListParams::default().fields(&format!("involvedObject.uid={}", pod.uid)).limit(EVENTS);
        let list = self
            .call("list", "Event", pod.name, self.api::<Event>(pod.namespace).list(&params))
            .await?;
        Ok(list.items)
    }

    /// Writes an object as a whole, on condition of the UID and resourceVersion in it.
    pub async fn replace<K: Namespaced>(&self, kind: &'static str, object: &K) -> Result<K, Error> {
        let Target { namespace, name, .. } = object.meta().into();
        let api = self.api::<K>(namespace);
        self.call("update", kind, name, api.replace(name, &PostParams::default(), object)).await
    }

    /// A merge patch of this very object: with the UID in it, it is a conflict to write to a successor. One that is gone needs none.
    /// `kind` may name the status, as in `Sandbox/status`.
    async fn merge<K: Namespaced>(&self, kind: &'static str, target: Target<'_>, mut body: Value) -> Result<(), Error> {
        let Target { namespace, name, uid } = target;
        let api = self.api::<Guarded<K>>(namespace);
        body["metadata"]["uid"] = uid.into();
        let (params, patch) = (PatchParams::default(), Patch::Merge(body));
        gone_is_fine(if kind.ends_with("/status") {
            self.call("patch", kind, name, api.patch_status(name, &params, &patch)).await
        } else {
            self.call("patch", kind, name, api.patch(name, &params, &patch)).await
        })
    }

    /// Writes a sandbox's status. Without resourceVersion: the leading operator is the only writer of status.
    pub async fn sandbox_status(&self, sandbox: &Sandbox, old: &SandboxStatus, status: &SandboxStatus) -> Result<(), Error> {
        let body = json!({"status": with_nulls(status, old)});
        self.merge::<Sandbox>("Sandbox/status", (&sandbox.metadata).into(), body).await
    }

    /// Writes a session's status; as above.
    pub async fn session_status(&self, session: &SandboxSession, status: &SandboxSessionStatus) -> Result<(), Error> {
        let body = json!({"status": status});
        self.merge::<SandboxSession>("SandboxSession/status", (&session.metadata).into(), body)
            .await
    }

    /// Writes the owner references of an object, on condition of its resourceVersion: others may write them too.
    pub async fn set_owners<K: Namespaced>(&self, kind: &'static str, meta: &ObjectMeta) -> Result<(), Error> {
        let body = json!({"metadata": {"resourceVersion": meta.resource_version, "ownerReferences": meta.owner_references}});
        self.merge::<K>(kind, meta.into(), body).await
    }

    /// Lowers a pod's `activeDeadlineSeconds`.
    pub async fn pod_deadline(&self, pod: Target<'_>, seconds: i64) -> Result<(), Error> {
        self.merge::<Pod>("Pod", pod, json!({"spec": {"activeDeadlineSeconds": seconds}})).await
    }

    /// Deletes this very object; one that is gone already, or another of the same name, is as good.
    pub async fn delete<K: Namespaced>(&self, kind: &'static str, target: Target<'_>) -> Result<(), Error> {
        let api = self.api::<K>(target.namespace);
        let only = Preconditions {
            uid: Some(target.uid.into()),
            resource_version: None,
        };
        let params = DeleteParams::background().preconditions(only);
        match self.call("delete", kind, target.name, api.delete(target.name, &params)).await {
            Err(error) if error.status().is_some_and(|s| s.is_conflict()) => Ok(()),
            other => gone_is_fine(other),
        }
    }
}

fn gone_is_fine<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.status().is_some_and(|s| s.is_not_found()) => Ok(()),
        other => other.map(drop),
    }
}

/// The new status, with `null` for every field that the old one has and the new one has not: a merge patch keeps what it does not name.
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
