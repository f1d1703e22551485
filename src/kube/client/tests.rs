use super::*;
use ::kube::client::Body;
use http::{Request, Response};
use prometheus_client::registry::Registry;

fn client<F: Future<Output = u16> + Send + 'static>(answer: fn() -> F) -> (ApiClient, Registry) {
    let service = tower::service_fn(move |_: Request<Body>| async move {
        let code = answer().await;
        let status = serde_json::json!({"kind": "Status", "status": "Failure", "code": code, "reason": if code == 409 { "Conflict" } else { "NotFound" }});
        Ok::<_, tower::BoxError>(
            Response::builder()
                .status(code)
                .body(Body::from(status.to_string().into_bytes()))?,
        )
    });
    let mut registry = Registry::default();
    let metrics = ApiMetrics::register(&mut registry);
    (ApiClient::new(Client::new(service, "default"), metrics), registry)
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_times_out_and_is_counted() {
    let (client, registry) = client(std::future::pending);
    let error = client.get::<Pod>("n", "p").await.unwrap_err();
    assert!(timed_out(&error), "{error}");
    assert_eq!(
        crate::telemetry::chain(&error).matches("no answer within 15 s").count(),
        1,
        "{error}"
    );
    let text = crate::telemetry::metrics_text(&registry);
    assert!(
        text.contains(r#"api_request_seconds_count{verb="get",kind="Pod",code="408"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn errors_of_the_api_server_are_no_timeouts_and_a_delete_ignores_a_successor() {
    let (client, _) = client(|| std::future::ready(409));
    assert!(!timed_out(&client.get::<Pod>("n", "p").await.unwrap_err()));
    let target = Target {
        namespace: "n",
        name: "p",
        uid: "u",
    };
    assert!(client.delete::<Pod>(target).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_calls_in_flight_holds_and_the_wait_counts() {
    let (client, _) = client(|| async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        404
    });
    let client = client.with_max_in_flight(1).with_timeout(Duration::from_secs(10));
    let (first, second) = tokio::join!(client.get::<Pod>("n", "p"), client.get::<Pod>("n", "p"));
    assert_eq!(first.unwrap(), None);
    assert!(timed_out(&second.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn the_slow_calls_of_one_namespace_leave_places_for_others() {
    let (client, _) = client(|| async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        404
    });
    let client = client
        .with_max_in_flight(4)
        .with_share_per_namespace(2)
        .with_timeout(Duration::from_secs(10));
    let hostile = futures::future::join_all((0..20).map(|_| client.get::<Pod>("hostile", "p")));
    let (hostile, other) = tokio::join!(hostile, client.get::<Pod>("other", "p"));
    assert_eq!(other.unwrap(), None);
    assert_eq!(hostile.iter().filter(|result| result.is_ok()).count(), 2);
}
