//! Calls to the API server. kube's own client has no timeout and retries for minutes; here every call is bounded and
//! counted.

use ::kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions};
use ::kube::core::{NamespaceResourceScope, ObjectList};
use ::kube::{Api, Client, Resource};
use futures::future::BoxFuture;
use futures::{AsyncBufRead, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

use super::metrics::ApiMetrics;
use super::readable::Readable;
use super::shares::Shares;
use super::{ClusterScoped, Namespaced};

/// The manager in `metadata.managedFields`.
const FIELD_MANAGER: &str = "sandbox-operator";
/// Longest wait for an answer, unless the owner of the client sets another.
const TIMEOUT: Duration = Duration::from_secs(15);

/// No client for the API server can be built.
#[derive(Debug, thiserror::Error)]
#[error("Kubernetes client: {0}")]
pub struct ConnectError(String);

/// The API server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", .0.as_secs())]
struct TimedOut(Duration);

/// Whether a call failed because the API server did not answer in time.
pub fn timed_out(error: &::kube::Error) -> bool {
    matches!(error, ::kube::Error::Service(source) if source.is::<TimedOut>())
}

/// A client for the API server that the environment names: the kubeconfig, or the pod's ServiceAccount.
///
/// # Errors
/// The environment names no API server, or its configuration is invalid.
pub async fn connect() -> Result<Client, ConnectError> {
    let failed = |e: &dyn std::error::Error| ConnectError(crate::telemetry::chain(e));
    let mut config = ::kube::Config::infer().await.map_err(|e| failed(&e))?;
    // kube would retry for minutes, creates included; the callers' retries are bounded.
    config.default_retry = false;
    Client::try_from(config).map_err(|e| failed(&e))
}

/// One object. The UID distinguishes it from a successor with the same name.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The object's namespace.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// The object's UID.
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

/// A client whose calls have a timeout and are counted.
#[derive(Clone)]
pub struct ApiClient {
    client: Client,
    metrics: ApiMetrics,
    timeout: Duration,
    permits: Arc<Semaphore>,
    shares: Option<Arc<Shares>>,
}

impl ApiClient {
    /// Wraps `client`.
    pub fn new(client: Client, metrics: ApiMetrics) -> ApiClient {
        ApiClient {
            client,
            metrics,
            timeout: TIMEOUT,
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            shares: None,
        }
    }

    /// The same client with another timeout. It includes the wait for a permit.
    pub fn with_timeout(self, timeout: Duration) -> ApiClient {
        ApiClient { timeout, ..self }
    }

    /// The same client with a limit of calls in flight. Each takes a connection, since kube's client speaks HTTP/1.1.
    pub fn with_max_in_flight(self, calls: usize) -> ApiClient {
        ApiClient {
            permits: Arc::new(Semaphore::new(calls)),
            ..self
        }
    }

    /// The same client with a limit of calls in flight per namespace, so that the calls of one namespace cannot take
    /// all permits. Calls without a namespace share a limit of their own.
    pub fn with_share_per_namespace(self, calls: usize) -> ApiClient {
        ApiClient {
            shares: Some(Arc::new(Shares::new(calls))),
            ..self
        }
    }

    /// kube's client, for what is not a single call: `pods/exec`, event recorders.
    pub fn inner(&self) -> &Client {
        &self.client
    }

    pub(super) fn metrics(&self) -> &ApiMetrics {
        &self.metrics
    }

    /// Creates an object in the namespace of its metadata.
    ///
    /// # Errors
    /// That of the API server, or that it did not answer in time.
    pub async fn create<K: Namespaced>(&self, object: &K) -> ::kube::Result<K> {
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let api = self.namespaced::<K>(namespace);
        self.call_in(
            namespace,
            "create",
            &K::kind(&()),
            api.create(&post_params(), object).boxed(),
        )
        .await
    }

    /// Reads an object past all caches; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn get<K: Namespaced>(&self, namespace: &str, name: &str) -> ::kube::Result<Option<K>> {
        self.get_from::<K>(self.namespaced(namespace), namespace, name).await
    }

    /// [`ApiClient::get`] of a kind without namespaces.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn get_cluster_scoped<K: ClusterScoped>(&self, name: &str) -> ::kube::Result<Option<K>> {
        self.get_from::<K>(Api::all(self.client.clone()), "", name).await
    }

    async fn get_from<K: Resource<DynamicType = ()> + super::Object>(
        &self,
        api: Api<Readable<K>>,
        namespace: &str,
        name: &str,
    ) -> ::kube::Result<Option<K>> {
        let get = async { api.get_opt(name).await?.map(Readable::into_result).transpose() };
        self.call_in(namespace, "get", &K::kind(&()), get.boxed()).await
    }

    /// Lists objects of one namespace past all caches.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn list<K: Namespaced>(&self, namespace: &str, params: &ListParams) -> ::kube::Result<ObjectList<K>> {
        self.call_in(
            namespace,
            "list",
            &K::kind(&()),
            self.namespaced::<K>(namespace).list(params).boxed(),
        )
        .await
    }

    /// [`ApiClient::list`] of a kind without namespaces.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn list_cluster_scoped<K: ClusterScoped>(&self, params: &ListParams) -> ::kube::Result<ObjectList<K>> {
        self.call(
            "list",
            &K::kind(&()),
            Api::<K>::all(self.client.clone()).list(params).boxed(),
        )
        .await
    }

    /// Replaces an object on condition of the UID and resourceVersion in its metadata.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn replace<K: Namespaced>(&self, object: &K) -> ::kube::Result<K> {
        let Target { namespace, name, .. } = object.meta().into();
        let api = self.namespaced::<K>(namespace);
        self.call_in(
            namespace,
            "update",
            &K::kind(&()),
            api.replace(name, &post_params(), object).boxed(),
        )
        .await
    }

    /// Applies a JSON merge patch: `null` removes a field. With `metadata.uid` or `metadata.resourceVersion` in the
    /// patch, it fails with 409 if the object has changed or was replaced.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn merge<K: Namespaced>(&self, namespace: &str, name: &str, patch: &Value) -> ::kube::Result<K> {
        let (api, params) = (self.namespaced::<Readable<K>>(namespace), patch_params());
        let patch = async { api.patch(name, &params, &Patch::Merge(patch)).await?.into_result() };
        self.call_in(namespace, "patch", &K::kind(&()), patch.boxed()).await
    }

    /// [`ApiClient::merge`] of the status.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn merge_status<K: Namespaced>(&self, namespace: &str, name: &str, patch: &Value) -> ::kube::Result<K> {
        let (api, params) = (self.namespaced::<Readable<K>>(namespace), patch_params());
        let patch = async {
            api.patch_status(name, &params, &Patch::Merge(patch))
                .await?
                .into_result()
        };
        self.call_in(namespace, "patch", &format!("{}/status", K::kind(&())), patch.boxed())
            .await
    }

    /// Deletes the object with this UID. It is no error if that object is gone or was replaced.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn delete<K: Namespaced>(&self, target: Target<'_>) -> ::kube::Result<()> {
        self.delete_with::<K>(target, DeleteParams::background()).await
    }

    /// As [`ApiClient::delete`], with a grace period in seconds that replaces the object's own.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn delete_within<K: Namespaced>(&self, target: Target<'_>, grace: u32) -> ::kube::Result<()> {
        self.delete_with::<K>(target, DeleteParams::background().grace_period(grace))
            .await
    }

    async fn delete_with<K: Namespaced>(&self, target: Target<'_>, params: DeleteParams) -> ::kube::Result<()> {
        let params = params.preconditions(Preconditions {
            uid: Some(target.uid.into()),
            resource_version: None,
        });
        let api = self.namespaced::<K>(target.namespace);
        let delete = api.delete(target.name, &params).boxed();
        match self.call_in(target.namespace, "delete", &K::kind(&()), delete).await {
            Err(::kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Submits a review, such as a TokenReview or SubjectAccessReview, on behalf of a namespace, or of none yet.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn review<K: ClusterScoped>(&self, namespace: &str, review: &K) -> ::kube::Result<K> {
        let api: Api<K> = Api::all(self.client.clone());
        self.call_in(
            namespace,
            "create",
            &K::kind(&()),
            api.create(&PostParams::default(), review).boxed(),
        )
        .await
    }

    /// Reads a pod's log. The timeout covers the response's headers, not the stream.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        params: &LogParams,
    ) -> ::kube::Result<impl AsyncBufRead + Send + use<>> {
        let api: Api<Pod> = self.namespaced(namespace);
        self.call_in(namespace, "log", "Pod", api.log_stream(pod, params).boxed())
            .await
    }

    pub(super) fn namespaced<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
        namespace: &str,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Any other call, with the client's timeout and metrics. It comes boxed: kube's futures take kilobytes, and so
    /// would every future around them.
    ///
    /// # Errors
    /// As [`ApiClient::create`].
    pub async fn call<T>(
        &self,
        verb: &'static str,
        kind: &str,
        call: BoxFuture<'_, ::kube::Result<T>>,
    ) -> ::kube::Result<T> {
        self.call_in("", verb, kind, call).await
    }

    async fn call_in<T>(
        &self,
        namespace: &str,
        verb: &'static str,
        kind: &str,
        call: BoxFuture<'_, ::kube::Result<T>>,
    ) -> ::kube::Result<T> {
        let start = Instant::now();
        let with_permit = async {
            // The semaphores are never closed. The share comes first, so that waiting calls hold no global permit.
            let share = self.shares.as_ref().map(|shares| shares.of(namespace));
            let _share = match &share {
                Some(share) => share.acquire().await.ok(),
                None => None,
            };
            let _permit = self.permits.acquire().await.ok();
            call.await
        };
        let (code, result) = match tokio::time::timeout(self.timeout, with_permit).await {
            Ok(Ok(value)) => (200, Ok(value)),
            Ok(Err(error)) => (
                if let ::kube::Error::Api(status) = &error {
                    status.code
                } else {
                    0
                },
                Err(error),
            ),
            Err(_) => (408, Err(::kube::Error::Service(TimedOut(self.timeout).into()))),
        };
        self.metrics.request(verb, kind, code, start.elapsed());
        result
    }
}

fn post_params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

#[cfg(test)]
mod tests;
