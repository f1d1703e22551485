//! One sandbox: its records in a fake API server, its agent as a process, and a gateway before them.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::{Stream, StreamExt};
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tower::util::MapRequestLayer;

use sandbox_operator::agent_client::{AgentClient, KeyRing};
use sandbox_operator::api::GROUP;
use sandbox_operator::gateway::cluster::api::api_client;
use sandbox_operator::gateway::cluster::runners::Runners;
use sandbox_operator::gateway::cluster::sandbox_cache::SandboxCache;
use sandbox_operator::gateway::config::{self, Config};
use sandbox_operator::gateway::edge::auth::AuthLayer;
use sandbox_operator::gateway::edge::identity::Identity;
use sandbox_operator::gateway::edge::limits::Limits;
use sandbox_operator::gateway::metrics::Metrics;
use sandbox_operator::gateway::rpc::services::{Services, Shared};
use sandbox_operator::proto::sandbox::sandbox_data_plane_service_client::SandboxDataPlaneServiceClient;
use sandbox_operator::proto::sandbox::sandbox_data_plane_service_server::SandboxDataPlaneServiceServer;
use tokio_util::sync::CancellationToken;

pub type Client = SandboxDataPlaneServiceClient<Channel>;
type Parts = Pin<Box<dyn Stream<Item = Result<Vec<u8>, std::io::Error>> + Send>>;
/// What a kubelet answers when asked for a log: by the query of the request.
pub type Kubelet = Arc<dyn Fn(&HashMap<String, String>) -> Parts + Send + Sync>;

const POD_UID: &str = "11111111-2222-3333-4444-555555555555";
const KEY_ID: &str = "k1";

/// What the API server knows; tests change it.
#[derive(Clone)]
pub struct World(Arc<Mutex<Known>>);

struct Known {
    state: &'static str,
    pod: Option<Value>,
    kubelet: Option<Kubelet>,
}

impl World {
    pub fn new() -> World {
        World(Arc::new(Mutex::new(Known {
            state: "RUNNING",
            pod: Some(pod(running())),
            kubelet: None,
        })))
    }

    pub fn set_state(&self, state: &'static str) {
        self.0.lock().unwrap().state = state;
    }

    pub fn container_has_ended(&self) {
        self.0.lock().unwrap().pod = Some(pod(json!({"terminated": {"exitCode": 0}})));
    }

    pub fn container_has_not_started(&self) {
        self.0.lock().unwrap().pod = Some(pod(json!({"waiting": {"reason": "ContainerCreating"}})));
    }

    pub fn container_runs(&self) {
        self.0.lock().unwrap().pod = Some(pod(running()));
    }

    pub fn another_pod(&self) {
        let mut other = pod(running());
        other["metadata"]["uid"] = json!("99999999-2222-3333-4444-555555555555");
        self.0.lock().unwrap().pod = Some(other);
    }

    pub fn container_has_no_agent(&self) {
        let mut pod = pod(running());
        pod["metadata"]["annotations"] = json!({});
        self.0.lock().unwrap().pod = Some(pod);
    }

    pub fn pod_is_deleted(&self) {
        self.0.lock().unwrap().pod = None;
    }

    pub fn set_kubelet(&self, kubelet: Kubelet) {
        self.0.lock().unwrap().kubelet = Some(kubelet);
    }

    fn answer(&self, request: &Request<kube::client::Body>) -> Response<Body> {
        let known = self.0.lock().unwrap();
        let path = request.uri().path();
        let found = if path.ends_with("/tokenreviews") {
            let user = json!({"username": "system:serviceaccount:team:tester"});
            let status = json!({"authenticated": true, "audiences": [GROUP], "user": user});
            Some(
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status}),
            )
        } else if path.ends_with("/subjectaccessreviews") {
            Some(
                json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {}, "status": {"allowed": true}}),
            )
        } else if path.ends_with("/sandboxes/box") {
            Some(json!({
                "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox",
                "metadata": {"name": "box", "namespace": "team", "uid": "sandbox-uid"}, "spec": {},
                "status": {"state": known.state, "podName": "box-1", "startedAt": "2026-11-23T13:00:00Z"}
            }))
        } else if path.ends_with("/pods/box-1") {
            known.pod.clone()
        } else if path.ends_with("/pods/box-1/log") {
            let query = request.uri().query().unwrap_or_default();
            let query = query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (k.into(), v.replace("%3A", ":")))
                .collect();
            return Response::new(Body::from_stream(known.kubelet.as_ref().unwrap()(&query)));
        } else {
            None
        };
        let (code, body) = match found {
            Some(object) => (200, object),
            None => (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": path}),
            ),
        };
        Response::builder()
            .status(code)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap()
    }

    fn client(&self) -> kube::Client {
        let world = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let answer = world.answer(&request);
            async move { Ok::<_, std::convert::Infallible>(answer) }
        });
        kube::Client::new(service, "team")
    }
}

/// A container that has just started. Its agent may not listen yet: the gateway retries connections to a young pod.
fn running() -> Value {
    json!({"running": {"startedAt": jiff::Timestamp::now().to_string()}})
}

fn pod(state: Value) -> Value {
    let owner = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "name": "box", "uid": "sandbox-uid", "controller": true});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "box-1", "namespace": "team", "uid": POD_UID, "ownerReferences": [owner],
            "annotations": {"sandbox-operator.dev/agent-key": KEY_ID}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"podIP": "127.0.0.1", "containerStatuses":
            [{"name": "main", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "state": state}]}
    })
}

/// An agent as a process, in a folder of its own.
pub struct RunningAgent {
    process: Child,
    pub folder: PathBuf,
    port: u16,
    pkcs8: Vec<u8>,
}

impl RunningAgent {
    pub fn start() -> RunningAgent {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .unwrap()
            .as_ref()
            .to_vec();
        let public = STANDARD.encode(Ed25519KeyPair::from_pkcs8(&pkcs8).unwrap().public_key());
        let folder = std::env::temp_dir().join(format!("dataplane-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(env!("CARGO_BIN_EXE_sandbox-operator"))
            .args(["agent", "run", "--port", &port.to_string(), "--key", &public])
            .env(sandbox_operator::agent_contract::POD_UID_VARIABLE, POD_UID)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let agent = RunningAgent {
            process,
            folder,
            port,
            pkcs8,
        };
        agent.wait_until_it_listens();
        agent
    }

    /// The sandbox of these tests is not young: the gateway does not wait for its agent.
    fn wait_until_it_listens(&self) {
        for _ in 0..400 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the agent does not listen within 10 s");
    }

    /// As if the container had been killed.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A replica of the gateway, and a client of it.
pub struct Replica {
    pub client: Client,
    pub draining: CancellationToken,
    pub address: SocketAddr,
}

impl Replica {
    /// One before an agent.
    pub async fn with_agent(world: &World, agent: &RunningAgent) -> Replica {
        let keys = KeyRing::default();
        keys.insert(KEY_ID, &agent.pkcs8).unwrap();
        Replica::start(world, keys, agent.port, config::Limits::default()).await
    }

    /// A gateway with these limits, in front of an agent.
    pub async fn with_limits(world: &World, agent: &RunningAgent, limits: config::Limits) -> Replica {
        let keys = KeyRing::default();
        keys.insert(KEY_ID, &agent.pkcs8).unwrap();
        Replica::start(world, keys, agent.port, limits).await
    }

    /// One that needs no agent: for logs.
    pub async fn new(world: &World) -> Replica {
        Replica::start(world, KeyRing::default(), 1, config::Limits::default()).await
    }

    async fn start(world: &World, keys: KeyRing, port: u16, limits: config::Limits) -> Replica {
        let mut config = Config {
            limits,
            ..Config::default()
        };
        config.agents.port = port;
        config.max_file_bytes = 1 << 20;
        let metrics = Metrics::default();
        let api = api_client(world.client(), &metrics);
        let identity = Arc::new(Identity::new(api.clone(), &config));
        let layer = AuthLayer {
            identity: identity.clone(),
            limits: Arc::new(Limits::new(&config.limits)),
            metrics,
            sink: Arc::new(|_| {}),
        };
        let draining = CancellationToken::new();
        let services = Services::new(Shared {
            identity,
            api,
            cache: SandboxCache::new(&[]),
            runners: Runners::new(&config),
            agents: AgentClient::new(keys),
            config: Arc::new(config),
            draining: draining.clone(),
        });
        let service = SandboxDataPlaneServiceServer::new(services.sandboxes).max_decoding_message_size(8 << 20);
        let authorization = authorization();
        let add_credentials = MapRequestLayer::new(move |mut request: Request<tonic::body::Body>| {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
            request
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(
            Server::builder()
                .layer(add_credentials)
                .layer(layer)
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let client = Client::connect(format!("http://{address}"))
            .await
            .unwrap()
            .max_decoding_message_size(8 << 20);
        Replica {
            client,
            draining,
            address,
        }
    }
}

/// Credentials that the fake API server accepts.
fn authorization() -> HeaderValue {
    let claims = json!({"aud": [GROUP], "exp": jiff::Timestamp::now().as_second() + 600});
    format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
        .parse()
        .unwrap()
}

/// Waits until `holds`, at most 10 s.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 10 s: {what}");
}

/// The reason in an error's details, and whether it says when to try again.
pub fn reason(status: &tonic::Status) -> (String, bool) {
    use tonic_types::StatusExt;
    let details = status.get_error_details();
    (
        details.error_info().map(|i| i.reason.clone()).unwrap_or_default(),
        details.retry_info().is_some(),
    )
}

/// A stream of parts, each after a pause.
pub fn parts(parts: Vec<Result<Vec<u8>, std::io::Error>>) -> Parts {
    Box::pin(futures::stream::iter(parts).then(|part| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        part
    }))
}
