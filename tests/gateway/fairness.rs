//! One caller, namespace or address cannot starve the others.

use futures::StreamExt;
use sandbox_operator::gateway::config::{Config, Limits};
use sandbox_operator::proto::sandbox as pb;
use sandbox_operator::proto::sandbox::sandbox_service_client::SandboxServiceClient;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tonic::Code;

use super::support::{good, start, start_with, with, with_key};
use super::{call, is_admitted, with_api_key};

#[tokio::test]
async fn an_api_key_is_not_valid_without_its_service_account() {
    let (gateway, directory) = with_api_key().await;
    gateway.api.account_is_deleted.store(true, Ordering::Relaxed);
    let refused = call(with_key(gateway.channel().await, "s3cret")).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn random_api_keys_are_limited_and_flush_neither_callers_nor_the_log() {
    let (gateway, directory) = with_api_key().await;
    let channel = gateway.channel().await;
    let bot = good("bot");
    assert!(is_admitted(&call(with(channel.clone(), &bot)).await));
    assert!(is_admitted(&call(with_key(channel.clone(), "s3cret")).await));
    let guesses = (0..400).map(|i| call(with_key(channel.clone(), &format!("guess-{i}"))));
    let refused = futures::future::join_all(guesses).await;
    let count = |code| refused.iter().filter(|status| status.code() == code).count();
    assert!(count(Code::Unauthenticated) >= 200, "{}", count(Code::Unauthenticated));
    assert!(
        count(Code::ResourceExhausted) >= 100,
        "{}",
        count(Code::ResourceExhausted)
    );
    // Both were valid a moment ago.
    assert!(is_admitted(&call(with(channel.clone(), &bot)).await));
    assert!(is_admitted(&call(with_key(channel.clone(), "s3cret")).await));
    let lines = async || {
        let left_out = gateway.metrics.text(0);
        let left_out = left_out
            .lines()
            .find_map(|l| l.strip_prefix("sandbox_gateway_access_log_left_out_total "));
        (
            gateway.lines(1).await.len(),
            left_out.unwrap().parse::<usize>().unwrap(),
        )
    };
    // A call's line is written a moment after its response.
    while lines().await.0 + lines().await.1 < 404 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (written, left_out) = lines().await;
    assert!(written < 150 && left_out > 250, "{written} lines, {left_out} left out");
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn valid_tokens_cost_their_address_nothing() {
    let gateway = start(Config::default()).await;
    let channel = gateway.channel().await;
    // More than the failures that one address may have.
    let calls = (0..300).map(|i| {
        let channel = channel.clone();
        async move { call(with(channel, &good(&format!("bot-{i}")))).await }
    });
    let admitted = futures::stream::iter(calls)
        .buffer_unordered(16)
        .filter(|s| std::future::ready(is_admitted(s)));
    assert_eq!(admitted.count().await, 300);
}

#[tokio::test]
async fn only_a_connection_with_a_granted_call_stays() {
    let gateway = start_with(Config::default(), Duration::from_millis(500)).await;
    let (granted, denied) = (gateway.channel().await, gateway.channel().await);
    let exec = async |channel: tonic::transport::Channel, name: &str| {
        let mut client = SandboxServiceClient::new(with(channel, &good(name)));
        client.exec(pb::ExecRequest::default()).await.unwrap_err().code()
    };
    // The fake denies or allows everything; results are cached by caller.
    assert_eq!(exec(granted.clone(), "bot").await, Code::InvalidArgument);
    gateway.api.denies.store(true, Ordering::Relaxed);
    assert_eq!(exec(denied.clone(), "guest").await, Code::PermissionDenied);
    assert!(gateway.metrics.text(0).contains("sandbox_gateway_connections 2"));
    while !gateway.metrics.text(0).contains("sandbox_gateway_connections 1") {
        // The channel reconnects only with its next call.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(exec(granted, "bot").await, Code::InvalidArgument);
    assert!(gateway.metrics.text(0).contains("sandbox_gateway_connections 1"));
    drop(denied);
}

#[tokio::test]
async fn a_namespace_has_its_share_of_the_connections() {
    let limits = Limits {
        connections_per_namespace: 2,
        ..Limits::default()
    };
    let gateway = start(Config {
        limits,
        ..Config::default()
    })
    .await;
    let mut codes = vec![];
    let mut channels = vec![];
    for i in 0..3 {
        let channel = gateway.channel().await;
        let mut client = SandboxServiceClient::new(with(channel.clone(), &good(&format!("bot-{i}"))));
        codes.push(client.exec(pb::ExecRequest::default()).await.unwrap_err().code());
        channels.push(channel);
    }
    assert_eq!(
        codes,
        [Code::InvalidArgument, Code::InvalidArgument, Code::ResourceExhausted]
    );
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let limits = Limits {
        connections_per_address: 2,
        ..Limits::default()
    };
    let gateway = start(Config {
        limits,
        ..Config::default()
    })
    .await;
    let _held = [gateway.channel().await, gateway.channel().await];
    use tokio::io::AsyncReadExt;
    let mut third = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    // Closed without a response.
    assert!(matches!(third.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(gateway.metrics.text(0).contains("connections_refused_total 1"));
}

#[tokio::test]
async fn calls_for_the_runners_share_one_list_of_the_nodes() {
    use pb::discovery_service_client::DiscoveryServiceClient;
    let gateway = start(Config::default()).await;
    let channel = with(gateway.channel().await, &good("bot"));
    let lists = (0..20).map(|_| {
        let mut client = DiscoveryServiceClient::new(channel.clone());
        async move {
            client
                .list_available_runners(pb::ListAvailableRunnersRequest::default())
                .await
        }
    });
    let lists = futures::future::join_all(lists).await;
    assert!(
        lists
            .iter()
            .all(|list| list.as_ref().unwrap().get_ref().runners.len() == 1)
    );
    assert_eq!(gateway.api.node_lists.load(Ordering::Relaxed), 1);
}
