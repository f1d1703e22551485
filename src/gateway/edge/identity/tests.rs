use super::*;
use crate::gateway::metrics::Metrics;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const AUDIENCE: &str = "sandbox-operator.dev";

#[test]
fn only_a_service_account_authenticated_for_our_audience_is_a_caller() {
    let review = |authenticated, audiences: &[&str], name: &str| {
        let status = TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: Some(audiences.iter().map(ToString::to_string).collect()),
            user: Some(UserInfo {
                username: Some(name.into()),
                groups: Some(vec!["g".into()]),
                extra: Some(BTreeMap::from([("k".into(), vec!["v".into()])])),
                uid: None,
            }),
            error: None,
        };
        caller_of(status, AUDIENCE)
    };
    let caller = review(true, &[AUDIENCE], "system:serviceaccount:team-a:bot").unwrap();
    assert_eq!(
        (caller.namespace.as_str(), caller.groups.len(), caller.extra.len()),
        ("team-a", 1, 1)
    );
    assert_eq!(review(false, &[AUDIENCE], "system:serviceaccount:team-a:bot"), None);
    assert_eq!(review(true, &[], "system:serviceaccount:team-a:bot"), None);
    assert_eq!(review(true, &["other"], "system:serviceaccount:team-a:bot"), None);
    for name in [
        "alice",
        "system:node:n1",
        "system:serviceaccount::bot",
        "system:serviceaccount:team-a:",
    ] {
        assert_eq!(review(true, &[AUDIENCE], name), None, "{name}");
    }
    assert_eq!(caller_of(TokenReviewStatus::default(), AUDIENCE), None);
}

/// An identity with an API server that accepts tokens with the signature `good`, and counts the reviews.
fn identity() -> (Identity, Arc<AtomicU32>) {
    let reviews = Arc::new(AtomicU32::new(0));
    let counted = reviews.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let body = request.into_body().collect_bytes().await?;
            let mut review: serde_json::Value = serde_json::from_slice(&body)?;
            let good = review["spec"]["token"].as_str().unwrap_or_default().ends_with(".good");
            let user = json!({"username": "system:serviceaccount:team-a:bot"});
            review["status"] = json!({"authenticated": good, "audiences": [AUDIENCE], "user": user});
            let body = kube::client::Body::from(review.to_string().into_bytes());
            Ok::<_, tower::BoxError>(http::Response::builder().status(201).body(body)?)
        }
    });
    let api = ApiClient::new(kube::Client::new(service, "default"), Metrics::default().api);
    (Identity::new(api, &Config::default()), reviews)
}

fn headers(token: &str) -> HeaderMap {
    let value = format!("Bearer {token}").parse().unwrap();
    HeaderMap::from_iter([(http::header::AUTHORIZATION, value)])
}

fn token(id: u32, signature: &str) -> String {
    let claims = json!({"aud": [AUDIENCE], "exp": jiff::Timestamp::now().as_second() + 6000, "jti": id});
    format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[tokio::test]
async fn forged_tokens_from_the_same_address_do_not_lock_out_a_valid_one() {
    let (identity, reviews) = identity();
    let (peer, start) = (IpAddr::from([10, 0, 0, 1]), Instant::now());
    let valid = headers(&token(0, "good"));
    let authenticate = async |headers: &HeaderMap, peer, now| {
        let caller = identity.authenticate_at(headers, peer, now).await;
        caller.map_err(|status| status.code())
    };
    assert!(authenticate(&valid, peer, start).await.is_ok());
    // The valid one is cached for 60 s, and then reviewed again.
    let later = start + 2 * VALID_TTL;
    let mut id = 1;
    while authenticate(&headers(&token(id, "forged")), peer, later).await == Err(Code::Unauthenticated) {
        id += 1;
    }
    assert!((200..300).contains(&id), "{id}");
    let before = reviews.load(Ordering::Relaxed);
    assert!(authenticate(&valid, peer, later).await.is_ok());
    assert_eq!(reviews.load(Ordering::Relaxed), before + 1, "it was reviewed again");
    let other = IpAddr::from([10, 0, 0, 2]);
    assert!(authenticate(&headers(&token(9999, "good")), other, later).await.is_ok());
}

#[tokio::test]
async fn addresses_of_one_ipv6_prefix_fail_together() {
    let (identity, _) = identity();
    let now = Instant::now();
    let mut refused = 0;
    for i in 0..400_u32 {
        let peer: IpAddr = format!("2001:db8::{i:x}").parse().unwrap();
        let result = identity.authenticate_at(&headers(&token(i, "forged")), peer, now).await;
        refused += u32::from(result.unwrap_err().code() == Code::ResourceExhausted);
    }
    assert_eq!(refused, 200);
}
