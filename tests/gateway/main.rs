//! The gateway's edge, over a real port with a gRPC client. The API server is a fake.
#![allow(clippy::unwrap_used)]

mod fairness;
mod support;

use sandbox_operator::gateway::config::{Authentication, Config, Limits};
use sandbox_operator::gateway::error::DOMAIN;
use sandbox_operator::proto::sandbox as pb;
use sandbox_operator::proto::sandbox::sandbox_service_client::SandboxServiceClient;
use sandbox_operator::proto::sandbox::settings_service_client::SettingsServiceClient;
use sha2::{Digest, Sha256};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use support::{AUDIENCE, Running, good, start, token, with, with_key};

/// The reason in the status details.
fn reason(status: &Status) -> String {
    assert!(!status.details().is_empty(), "no grpc-status-details-bin: {status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.domain, DOMAIN);
    info.reason
}

fn retry_delay(status: &Status) -> Duration {
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

/// A call that needs no permission: UNIMPLEMENTED if the caller is authenticated and admitted.
async fn call<T>(channel: T) -> Status
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<tower::BoxError>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error: Into<tower::BoxError> + Send,
{
    let request = pb::ConnectSandboxRequest::default();
    SandboxServiceClient::new(channel)
        .connect_sandbox(request)
        .await
        .unwrap_err()
}

fn is_admitted(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

#[tokio::test]
async fn missing_and_invalid_credentials_are_refused() {
    let gateway = start(Config::default()).await;
    let channel = gateway.channel().await;
    for refused in [
        call(channel.clone()).await,
        call(with(channel.clone(), "nonsense")).await,
        call(with(
            channel.clone(),
            &token("bot", "https://kubernetes.default.svc", "good"),
        ))
        .await,
        call(with(channel.clone(), &token("bot", AUDIENCE, "forged"))).await,
        call(with_key(channel.clone(), "unknown")).await,
    ] {
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::Unauthenticated, "CWSANDBOX_UNAUTHENTICATED")
        );
    }
    assert_eq!(
        gateway.api.token_reviews.load(Ordering::Relaxed),
        1,
        "only the forged one costs a TokenReview"
    );
    let admitted = call(with(channel, &good("bot"))).await;
    assert!(is_admitted(&admitted) && reason(&admitted) == "CWSANDBOX_NOT_IMPLEMENTED");
}

#[tokio::test]
async fn a_token_is_reviewed_once_and_new_ones_are_refused_while_the_api_server_is_down() {
    let gateway = start(Config::default()).await;
    let channel = gateway.channel().await;
    // A token that is created a second later differs.
    let bot = good("bot");
    let calls = (0..50).map(|_| call(with(channel.clone(), &bot)));
    assert!(futures::future::join_all(calls).await.iter().all(is_admitted));
    assert_eq!(gateway.api.token_reviews.load(Ordering::Relaxed), 1);
    gateway.api.down.store(true, Ordering::Relaxed);
    assert!(is_admitted(&call(with(channel.clone(), &bot)).await));
    let refused = call(with(channel.clone(), &good("other"))).await;
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "CWSANDBOX_BACKEND_UNAVAILABLE")
    );
    assert!(retry_delay(&refused) > Duration::ZERO);
    gateway.api.down.store(false, Ordering::Relaxed);
    assert!(
        is_admitted(&call(with(channel, &good("other"))).await),
        "a failure is not cached"
    );
}

/// A gateway with the API key `s3cret` of team-b/runner, and the directory of its keys.
async fn with_api_key() -> (Running, std::path::PathBuf) {
    let directory = std::env::temp_dir().join(format!("api-keys-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let name: String = Sha256::digest("s3cret").iter().map(|b| format!("{b:02x}")).collect();
    std::fs::write(directory.join(name), "team-b/runner\n").unwrap();
    let authentication = Authentication {
        api_keys: Some(directory.clone()),
        ..Authentication::default()
    };
    let config = Config {
        authentication,
        ..Config::default()
    };
    (start(config).await, directory)
}

#[tokio::test]
async fn an_api_key_identifies_the_service_account_in_its_file() {
    let (gateway, directory) = with_api_key().await;
    let channel = gateway.channel().await;
    assert!(is_admitted(&call(with_key(channel.clone(), "s3cret")).await));
    assert_eq!(call(with_key(channel, "other")).await.code(), Code::Unauthenticated);
    assert_eq!(
        gateway.lines(1).await[0]["caller"],
        "system:serviceaccount:team-b:runner"
    );
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn a_denied_call_names_the_missing_permission_and_other_namespaces_are_refused() {
    let gateway = start(Config::default()).await;
    gateway.api.denies.store(true, Ordering::Relaxed);
    let mut client = SandboxServiceClient::new(with(gateway.channel().await, &good("bot")));
    for _ in 0..3 {
        let denied = client.exec(pb::ExecRequest::default()).await.unwrap_err();
        assert_eq!(
            (denied.code(), reason(&denied).as_str()),
            (Code::PermissionDenied, "CWSANDBOX_PERMISSION_DENIED")
        );
        let metadata = denied.get_details_error_info().unwrap().metadata;
        let value = |name: &str| metadata[name].clone();
        assert_eq!(
            [value("verb"), value("resource"), value("namespace")],
            ["create", "sandboxes.sandbox-operator.dev/exec", "team-a"]
        );
    }
    assert_eq!(gateway.api.access_reviews.load(Ordering::Relaxed), 1);

    let elsewhere = start(Config {
        watch_namespaces: vec!["team-b".into()],
        ..Config::default()
    })
    .await;
    let refused = call(with(elsewhere.channel().await, &good("bot"))).await;
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_unknown_service_or_method_is_unimplemented_with_a_reason() {
    let gateway = start(Config::default()).await;
    let channel = with(gateway.channel().await, &good("bot"));
    let no_service = SettingsServiceClient::new(channel.clone());
    let refused = no_service
        .clone()
        .get_secret_store(pb::GetSecretStoreRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unimplemented, "CWSANDBOX_NOT_IMPLEMENTED")
    );
    assert!(
        refused.message().contains("SettingsService/GetSecretStore"),
        "{}",
        refused.message()
    );

    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/coreweave.sandbox.v1.SandboxService/Nothing");
    let codec = tonic_prost::ProstCodec::<pb::GetSandboxRequest, pb::Sandbox>::default();
    let refused = grpc
        .unary(tonic::Request::new(pb::GetSandboxRequest::default()), path, codec)
        .await;
    assert_eq!(reason(&refused.unwrap_err()), "CWSANDBOX_NOT_IMPLEMENTED");
}

#[tokio::test]
async fn a_caller_over_its_rate_gets_a_retry_delay() {
    let limits = Limits {
        requests_per_second: 1,
        burst: 2,
        ..Limits::default()
    };
    let gateway = start(Config {
        limits,
        ..Config::default()
    })
    .await;
    let channel = gateway.channel().await;
    for _ in 0..2 {
        assert!(is_admitted(&call(with(channel.clone(), &good("greedy"))).await));
    }
    let refused = call(with(channel.clone(), &good("greedy"))).await;
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "CWSANDBOX_RATE_LIMITED")
    );
    assert!(retry_delay(&refused) > Duration::ZERO && retry_delay(&refused) <= Duration::from_secs(1));
    assert!(is_admitted(&call(with(channel, &good("modest"))).await));
}

#[tokio::test]
async fn large_requests_pass_where_they_are_allowed_and_their_memory_is_released() {
    let gateway = start(Config::default()).await;
    let channel = with(gateway.channel().await, &good("bot"));
    let mut client = SandboxServiceClient::new(channel);
    let long = "x".repeat(5 << 20);
    let request = pb::GetSandboxRequest {
        sandbox_id: long.clone(),
    };
    let refused = client.get_sandbox(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "CWSANDBOX_INVALID_REQUEST")
    );
    // Together more than the budget.
    for _ in 0..5 {
        let request = pb::CreateSandboxRequest {
            request_id: "x".repeat(40 << 20),
            ..Default::default()
        };
        let answer = client.create_sandbox(request).await.unwrap_err();
        assert_ne!(answer.code(), Code::ResourceExhausted, "{answer:?}");
    }
}

#[tokio::test]
async fn health_and_reflection_need_no_credentials_and_list_the_served_services() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    let gateway = start(Config::default()).await;
    let mut health = HealthClient::new(gateway.channel().await);
    for (serving, status) in [
        (None, ServingStatus::NotServing),
        (Some(true), ServingStatus::Serving),
        (Some(false), ServingStatus::NotServing),
    ] {
        if let Some(serving) = serving {
            gateway.health.set_serving(serving).await;
        }
        for service in ["", "coreweave.sandbox.v1.SandboxService"] {
            let answer = health
                .check(HealthCheckRequest {
                    service: service.into(),
                })
                .await
                .unwrap();
            assert_eq!(answer.into_inner().status(), status, "{service}");
        }
    }
    let services = reflected(gateway.channel().await).await;
    assert!(
        services.contains(&"coreweave.sandbox.v1.SandboxService".to_owned()),
        "{services:?}"
    );
    assert!(
        !services
            .iter()
            .any(|s| s.contains("SettingsService") || s.contains("Agent")),
        "{services:?}"
    );
    assert_eq!(gateway.lines.lock().unwrap().len(), 0, "probes are not logged");
}

#[tokio::test]
async fn messages_without_credentials_are_small() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let gateway = start(Config::default()).await;
    let mut health = HealthClient::new(gateway.channel().await);
    let service = "x".repeat(4 << 10);
    let refused = health
        .check(HealthCheckRequest {
            service: service.clone(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let refused = health.watch(HealthCheckRequest { service }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
}

async fn reflected(channel: tonic::transport::Channel) -> Vec<String> {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    match answer.message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|s| s.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_call_is_logged_once_and_counted() {
    let gateway = start(Config::default()).await;
    let channel = gateway.channel().await;
    let mut client = SandboxServiceClient::new(with(channel.clone(), &good("bot")));
    let request = pb::GetSandboxRequest {
        sandbox_id: "sbx-1".into(),
    };
    let _ = client.get_sandbox(request).await;
    call(channel).await;
    let lines = gateway.lines(2).await;
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["method"], &lines[0]["sandbox"], &lines[0]["tenant"]),
        (&"SandboxService/GetSandbox".into(), &"sbx-1".into(), &"team-a".into())
    );
    assert_eq!(
        (&lines[1]["code"], &lines[1]["reason"], lines[1].get("caller")),
        (&"UNAUTHENTICATED".into(), &"CWSANDBOX_UNAUTHENTICATED".into(), None)
    );
    assert!(
        lines.iter().all(|l| !l.to_string().contains("e30.")),
        "a token in the log"
    );
    let metrics = gateway.metrics.text(0);
    for part in [
        "sandbox_gateway_rpc_seconds_count{method=\"SandboxService/ConnectSandbox\",code=\"UNAUTHENTICATED\"} 1",
        "sandbox_gateway_rpc_in_flight{method=\"SandboxService/GetSandbox\"} 0",
        "sandbox_gateway_connections 1",
        "\nprocess_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_stop_lets_calls_in_flight_finish_and_accepts_no_new_connection() {
    let gateway = start(Config::default()).await;
    let channel = gateway.channel().await;
    gateway.api.slow.store(true, Ordering::Relaxed);
    let in_flight = tokio::spawn(async move { call(with(channel, &good("bot"))).await });
    while !gateway
        .metrics
        .text(0)
        .contains("rpc_in_flight{method=\"SandboxService/ConnectSandbox\"} 1")
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gateway.stop.cancel();
    assert!(is_admitted(&in_flight.await.unwrap()));
    tokio::time::timeout(Duration::from_secs(5), gateway.served)
        .await
        .unwrap()
        .unwrap();
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err());
}

/// A caller who can create sandboxes but not read templates does not get the contents of a template.
#[tokio::test]
async fn a_template_needs_the_right_to_read_it() {
    let gateway = start(Config::default()).await;
    *gateway.api.denied_resource.lock().unwrap() = "sandboxtemplates";
    let request = pb::CreateSandboxFromTemplateRequest {
        request_id: "11111111-1111-4111-8111-111111111111".into(),
        template_id: "t".into(),
        ..pb::CreateSandboxFromTemplateRequest::default()
    };
    let mut client = SandboxServiceClient::new(with(gateway.channel().await, &good("bot")));
    let denied = client.create_sandbox_from_template(request.clone()).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let metadata = denied.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["resource"], "sandboxtemplates.sandbox-operator.dev");
    *gateway.api.denied_resource.lock().unwrap() = "";
    let mut other = SandboxServiceClient::new(with(gateway.channel().await, &good("reader")));
    let missing = other.create_sandbox_from_template(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing:?}");
}
