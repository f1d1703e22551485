//! Callers of the gateway: ServiceAccounts of the benchmark's namespace, with tokens for the gateway.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::fixture::{Failure, Fixture};
use sandbox_operator::api::GROUP;
use sandbox_operator::proto::sandbox::sandbox_service_client::SandboxServiceClient;

/// Number of ServiceAccounts. One may make 500 calls per second.
const ACCOUNTS: usize = 8;
/// Maximum message size of the SDK.
const LARGEST: usize = 100 << 20;

/// A client of the gateway.
pub type Caller = SandboxServiceClient<InterceptedService<Channel, Token>>;

/// Sends a token with each call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Creates callers.
#[derive(Clone)]
pub struct Callers {
    url: String,
    tokens: Vec<Token>,
}

impl Callers {
    /// Creates the ServiceAccounts and binds them to the role of the gateway's users.
    pub async fn new(fixture: &Fixture, url: String, role: &str) -> Result<Callers, Failure> {
        let namespace = &fixture.sandboxes.namespace;
        let accounts: Api<ServiceAccount> = Api::namespaced(fixture.client.clone(), namespace);
        let names: Vec<String> = (0..ACCOUNTS).map(|number| format!("caller-{number}")).collect();
        for name in &names {
            let account = json!({"metadata": {"name": name}});
            accounts
                .create(&PostParams::default(), &serde_json::from_value(account)?)
                .await?;
        }
        let subjects = names
            .iter()
            .map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        let binding = json!({
            "metadata": {"name": "callers"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": subjects.collect::<Vec<_>>(),
        });
        let bindings: Api<RoleBinding> = Api::namespaced(fixture.client.clone(), namespace);
        bindings
            .create(&PostParams::default(), &serde_json::from_value(binding)?)
            .await?;
        let mut tokens = vec![];
        for name in &names {
            let request: TokenRequest =
                serde_json::from_value(json!({"spec": {"audiences": [GROUP], "expirationSeconds": 7200}}))?;
            let answer = accounts
                .create_token_request(name, &PostParams::default(), &request)
                .await?;
            let token = answer.status.and_then(|s| s.token).ok_or("no token")?;
            tokens.push(Token(format!("Bearer {token}").parse()?));
        }
        Ok(Callers { url, tokens })
    }

    /// A caller with its own connection, like each `Sandbox` object of the SDK.
    pub async fn connect(&self, number: usize) -> Result<Caller, Failure> {
        let channel = Endpoint::from_shared(self.url.clone())?.connect().await?;
        let token = self.tokens[number % self.tokens.len()].clone();
        let service = InterceptedService::new(channel, token);
        Ok(SandboxServiceClient::new(service)
            .max_decoding_message_size(LARGEST)
            .max_encoding_message_size(LARGEST))
    }
}
