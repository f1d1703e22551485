//! The gateway's only way to the API server. Every call has a timeout, and only so many run at once. Callers pass errors through
//! [`super::error::of_kube`].

use futures::future::BoxFuture;
use futures::{AsyncBufRead, FutureExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ClusterResourceScope, NamespaceResourceScope, ObjectList};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::api::MANAGER;
use crate::guard::Guarded;
use crate::process::Namespaced;

/// Longest wait for one answer, the wait for a free place included.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Calls at once: about that many connections, since Kubernetes' client speaks HTTP/1.1.
const AT_ONCE: usize = 256;

/// Reads and writes of the gateway.
#[derive(Clone)]
pub struct Cluster {
    /// The client, for what is no single call: watches and `pods/exec`.
    pub client: Client,
    metrics: Metrics,
    places: Arc<Semaphore>,
}

impl Cluster {
    /// The cluster behind `client`.
    pub fn new(client: Client, metrics: Metrics) -> Cluster {
        Cluster {
            client,
            metrics,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Creates an object in the namespace that its metadata names.
    ///
    /// # Errors
    /// The API server's, or none came in time.
    pub async fn create<K: Namespaced>(&self, object: &K) -> kube::Result<K> {
        let api = self.api::<K>(object.meta().namespace.as_deref().unwrap_or_default());
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        self.call::<K, _>("create", api.create(&params, object).boxed()).await
    }

    /// A live read; none if there is no such object.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn get<K: Namespaced>(&self, namespace: &str, name: &str) -> kube::Result<Option<K>> {
        let api = self.api::<Guarded<K>>(namespace);
        let get = async { api.get_opt(name).await?.map(Guarded::readable).transpose() };
        self.call::<K, _>("get", get.boxed()).await
    }

    /// A live read of a kind that has no namespaces; none if there is no such object.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn get_global<K>(&self, name: &str) -> kube::Result<Option<K>>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Send,
    {
        self.call::<K, _>("get", Api::<K>::all(self.client.clone()).get_opt(name).boxed()).await
    }

    /// A live list of one namespace.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn list<K: Namespaced>(&self, namespace: &str, params: &ListParams) -> kube::Result<ObjectList<K>> {
        self.call::<K, _>("list", self.api::<K>(namespace).list(params).boxed()).await
    }

    /// A live list of a kind that has no namespaces.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn list_all<K>(&self, params: &ListParams) -> kube::Result<ObjectList<K>>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned + Send,
    {
        self.call::<K, _>("list", Api::<K>::all(self.client.clone()).list(params).boxed()).await
    }

    /// A JSON merge patch: `null` removes a field. Name `metadata.uid` or `metadata.resourceVersion` in it, and it fails with 409 if
    /// the object is another one by now.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn merge<K: Namespaced>(&self, namespace: &str, name: &str, patch: &serde_json::Value) -> kube::Result<K> {
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let api = self.api::<Guarded<K>>(namespace);
        let patch = async { api.patch(name, &params, &Patch::Merge(patch)).await?.readable() };
        self.call::<K, _>("patch", patch.boxed()).await
    }

    /// Deletes the object of this UID. One that is gone already, or another of the same name, is as good.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn delete<K: Namespaced>(&self, namespace: &str, name: &str, uid: &str) -> kube::Result<()> {
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.into()),
            resource_version: None,
        });
        match self.call::<K, _>("delete", self.api::<K>(namespace).delete(name, &params).boxed()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Asks for a review: TokenReview, SubjectAccessReview.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn review<K>(&self, review: &K) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync,
    {
        let api: Api<K> = Api::all(self.client.clone());
        self.call::<K, _>("create", api.create(&PostParams::default(), review).boxed()).await
    }

    /// A pod's log. The time limit is for its beginning only.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn logs(&self, namespace: &str, pod: &str, params: &LogParams) -> kube::Result<impl AsyncBufRead + Send + use<>> {
        let api: Api<Pod> = self.api(namespace);
        self.call::<Pod, _>("log", api.log_stream(pod, params).boxed()).await
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The call comes in a box: kube's futures have kilobytes, and each future around one has them again.
    async fn call<K: Resource<DynamicType = ()>, T>(&self, verb: &'static str, call: BoxFuture<'_, kube::Result<T>>) -> kube::Result<T> {
        let began = Instant::now();
        let placed = async {
            // The semaphore is never closed; without a place the call goes ahead.
            let _place = self.places.acquire().await.ok();
            call.await
        };
        let result = tokio::time::timeout(TIMEOUT, placed).await;
        let result = result.unwrap_or_else(|_| Err(kube::Error::Service(format!("no answer within {TIMEOUT:?}").into())));
        let code = match &result {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(_) => 0,
        };
        self.metrics.api_request(verb, &K::kind(&()), code, began.elapsed());
        result
    }
}
