//! A gateway on a local port, and a fake API server.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use sandbox_operator::agent_client::{AgentClient, KeyRing};
use sandbox_operator::gateway::cluster::api::api_client;
use sandbox_operator::gateway::cluster::runners::Runners;
use sandbox_operator::gateway::cluster::sandbox_cache::SandboxCache;
use sandbox_operator::gateway::config::Config;
use sandbox_operator::gateway::edge::auth::AuthLayer;
use sandbox_operator::gateway::edge::connection::{self, AUTHENTICATION_TIMEOUT, ConnectionSlots};
use sandbox_operator::gateway::edge::identity::Identity;
use sandbox_operator::gateway::edge::limits::Limits;
use sandbox_operator::gateway::edge::server;
use sandbox_operator::gateway::metrics::Metrics;
use sandbox_operator::gateway::rpc::health::Health;
use sandbox_operator::gateway::rpc::routes::routes;
use sandbox_operator::gateway::rpc::services::{Services, Shared};
use sandbox_operator::net;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

pub const AUDIENCE: &str = "sandbox-operator.dev";

/// An API server that serves only reviews.
#[derive(Default)]
pub struct Api {
    pub token_reviews: AtomicU32,
    pub access_reviews: AtomicU32,
    pub down: AtomicBool,
    pub denies: AtomicBool,
    /// A resource that callers have no right to.
    pub denied_resource: Mutex<&'static str>,
    pub slow: AtomicBool,
    pub node_lists: AtomicU32,
    /// Whether the ServiceAccount of the API key is deleted.
    pub account_is_deleted: AtomicBool,
}

impl Api {
    async fn respond(
        &self,
        request: http::Request<kube::client::Body>,
    ) -> Result<http::Response<kube::client::Body>, tower::BoxError> {
        if self.slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if self.down.load(Ordering::Relaxed) {
            return Err("connection refused".into());
        }
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect_bytes().await?;
        let (code, answer) = if path.ends_with("/tokenreviews") {
            self.token_reviews.fetch_add(1, Ordering::Relaxed);
            (201, reviewed(serde_json::from_slice(&body)?))
        } else if path.ends_with("/subjectaccessreviews") {
            self.access_reviews.fetch_add(1, Ordering::Relaxed);
            let mut review: SubjectAccessReview = serde_json::from_slice(&body)?;
            let resource = review
                .spec
                .resource_attributes
                .as_ref()
                .and_then(|a| a.resource.clone());
            let denied = *self.denied_resource.lock().unwrap() == resource.unwrap_or_default();
            review.status =
                serde_json::from_value(json!({"allowed": !denied && !self.denies.load(Ordering::Relaxed)}))?;
            (201, serde_json::to_value(review)?)
        } else if path.ends_with("/nodes") {
            self.node_lists.fetch_add(1, Ordering::Relaxed);
            let list =
                json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
            (200, list)
        } else if path.ends_with("/serviceaccounts/runner") && !self.account_is_deleted.load(Ordering::Relaxed) {
            (200, json!({"metadata": {"name": "runner", "namespace": "team-b"}}))
        } else {
            (
                404,
                json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}),
            )
        };
        let body = kube::client::Body::from(serde_json::to_vec(&answer)?);
        Ok(http::Response::builder().status(code).body(body)?)
    }
}

/// A signature is valid if it is "good".
fn reviewed(review: TokenReview) -> Value {
    let token = review.spec.token.clone();
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let good = token.ends_with(".good");
    let mut review = serde_json::to_value(review).unwrap();
    review["status"] =
        json!({"authenticated": good, "audiences": [AUDIENCE], "user": {"username": claims["sub"], "groups": ["g"]}});
    review
}

/// A token of a ServiceAccount of namespace `team-a`.
pub fn token(name: &str, audience: &str, signature: &str) -> String {
    let sub = format!("system:serviceaccount:team-a:{name}");
    let claims = json!({"aud": [audience], "exp": jiff::Timestamp::now().as_second() + 600, "sub": sub});
    format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A valid token.
pub fn good(name: &str) -> String {
    token(name, AUDIENCE, "good")
}

pub struct Running {
    pub address: SocketAddr,
    pub api: Arc<Api>,
    pub health: Health,
    pub lines: Arc<Mutex<Vec<Value>>>,
    pub metrics: Metrics,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
}

/// Starts a gateway with this configuration.
pub async fn start(config: Config) -> Running {
    start_with(config, AUTHENTICATION_TIMEOUT).await
}

/// [`start`], with the time in which a call on a new connection must be granted a right.
pub async fn start_with(config: Config, authentication_timeout: Duration) -> Running {
    let api = Arc::new(Api::default());
    let shared = api.clone();
    let service = tower::service_fn(move |request| {
        let api = shared.clone();
        async move { api.respond(request).await }
    });
    let metrics = Metrics::default();
    let client = api_client(kube::Client::new(service, "default"), &metrics);
    let slots = ConnectionSlots::new(&config.limits, authentication_timeout);
    let identity = Arc::new(Identity::new(client.clone(), &config));
    let limits = Arc::new(Limits::new(&config.limits));
    let services = Services::new(Shared {
        api: client,
        cache: SandboxCache::new(&[]),
        runners: Runners::new(&config),
        identity: identity.clone(),
        agents: AgentClient::new(KeyRing::default()),
        config: Arc::new(config),
        draining: CancellationToken::new(),
    });
    let lines = Arc::new(Mutex::new(vec![]));
    let written = lines.clone();
    let layer = AuthLayer {
        identity,
        limits,
        metrics: metrics.clone(),
        sink: Arc::new(move |line| written.lock().unwrap().push(serde_json::from_str(line).unwrap())),
    };
    let health = Health::new().await;
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (send, receive) = mpsc::channel(8);
    tokio::spawn(connection::accept(
        listener,
        None,
        slots,
        metrics.clone(),
        send,
        stop.clone(),
    ));
    let serving = server::serve(layer, routes(services, &health), receive, stop.clone());
    let served = tokio::spawn(async move { serving.await.unwrap() });
    Running {
        address,
        api,
        health,
        lines,
        metrics,
        stop,
        served,
    }
}

impl Running {
    pub async fn channel(&self) -> Channel {
        let endpoint = tonic::transport::Endpoint::new(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Waits for this many lines of the access log.
    pub async fn lines(&self, count: usize) -> Vec<Value> {
        for _ in 0..500 {
            let lines = self.lines.lock().unwrap().clone();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("fewer than {count} lines: {:?}", self.lines.lock().unwrap());
    }
}

/// Sends a header with each call.
#[derive(Clone)]
pub struct Header(&'static str, String);

impl Interceptor for Header {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert(self.0, MetadataValue::try_from(&self.1).unwrap());
        Ok(request)
    }
}

/// Calls with a token.
pub fn with(channel: Channel, token: &str) -> InterceptedService<Channel, Header> {
    InterceptedService::new(channel, Header("authorization", format!("Bearer {token}")))
}

/// Calls with a key in the W&B form.
pub fn with_key(channel: Channel, key: &str) -> InterceptedService<Channel, Header> {
    InterceptedService::new(channel, Header("x-wandb-api-key", key.into()))
}
