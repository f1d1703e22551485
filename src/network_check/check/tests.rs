use super::*;
use crate::kube::ApiMetrics;
use crate::network_check::Enforcement;
use crate::network_probe::{Attempt, ProbeReport, Sample};
use http::{Method, Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// Method and last part of the path of each call, without the check's id.
type Calls = Arc<Mutex<Vec<String>>>;

/// An API server where the server's pod runs at once, and the client's container has the state `client`.
fn api(client: Option<Value>) -> (ApiClient, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (seen, client) = (seen.clone(), client.clone());
        async move {
            let (parts, body) = request.into_parts();
            let (method, path) = (parts.method, parts.uri.path().to_owned());
            let body: Value = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
            let name = body["metadata"]["name"]
                .as_str()
                .or(path.rsplit('/').next())
                .unwrap_or_default();
            let role = name.rsplit('-').next().unwrap_or_default();
            let kind = if path.contains("/pods") { "pod" } else { "policy" };
            if method != Method::GET {
                seen.lock().unwrap().push(format!("{method} {role} {kind}"));
            }
            let answer = match (method, kind) {
                (Method::POST, _) => {
                    let mut created = body.clone();
                    created["metadata"]["uid"] = name.into();
                    created
                }
                (Method::GET, "pod") => {
                    let container = |state: &Value| json!([{"name": "probe", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": state}]);
                    let status = match (role, &client) {
                        ("server", _) => json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}),
                        (_, Some(state)) => json!({"phase": "Succeeded", "containerStatuses": container(state)}),
                        (_, None) => json!({"phase": "Pending"}),
                    };
                    json!({"metadata": {"name": name, "namespace": "probes", "uid": name}, "spec": {"containers": [], "nodeName": "n"}, "status": status})
                }
                (Method::GET, _) => {
                    let old = json!({"metadata": {"name": "probe-0-leftover", "namespace": "probes", "uid": "o", "creationTimestamp": "2000-01-01T00:00:00Z"}});
                    json!({"metadata": {}, "items": [old]})
                }
                _ => json!({"kind": "Status", "status": "Success"}),
            };
            Ok::<_, tower::BoxError>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    let metrics = ApiMetrics::register(&mut Registry::default());
    (ApiClient::new(Client::new(service, "default"), metrics), calls)
}

fn settings() -> ProbeSettings {
    ProbeSettings {
        namespace: "probes".into(),
        ..ProbeSettings::default()
    }
}

const ALL: [&str; 6] = [
    "DELETE leftover policy",
    "POST server policy",
    "POST client policy",
    "POST server pod",
    "POST client pod",
    "DELETE server policy",
];

/// As for sandboxes. The server's policy owns all other objects.
#[tokio::test]
async fn policies_are_created_before_pods_and_their_owner_is_deleted_at_the_end() {
    let report = ProbeReport {
        samples: vec![Sample {
            address: "10.0.0.1".parse().unwrap(),
            allowed: Attempt::Connected,
            ingress_denied: Attempt::Blocked,
            egress_denied: Attempt::Blocked,
        }],
        milliseconds: 1,
    };
    let message = serde_json::to_string(&report).unwrap();
    let (client, calls) = api(Some(json!({"terminated": {"exitCode": 0, "message": message}})));
    let found = check(&client, &settings(), &CancellationToken::new()).await;
    assert_eq!(found.result, Enforcement::Enforced, "{found:?}");
    assert_eq!(*calls.lock().unwrap(), ALL);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_gets_no_report_ends_and_leaves_nothing() {
    let (client, calls) = api(None);
    let found = check(&client, &settings(), &CancellationToken::new()).await;
    assert_eq!(found.result, Enforcement::Unknown);
    assert!(
        found.message.contains("within 90 s: its phase is Pending"),
        "{}",
        found.message
    );
    assert_eq!(*calls.lock().unwrap(), ALL);
}

#[tokio::test]
async fn a_check_that_is_stopped_leaves_nothing() {
    let (client, calls) = api(None);
    let stop = CancellationToken::new();
    stop.cancel();
    let found = check(&client, &settings(), &stop).await;
    assert_eq!(found.result, Enforcement::Unknown);
    let calls = calls.lock().unwrap();
    assert_eq!(calls.last().map(String::as_str), ALL.last().copied(), "{calls:?}");
}

#[test]
fn only_objects_that_no_check_can_still_use_are_leftovers() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut policy = NetworkPolicy::default();
    assert!(!is_leftover(&policy, at(1000)));
    policy.metadata.creation_timestamp = Some(Time(at(0)));
    assert!(!is_leftover(&policy, at(299)) && is_leftover(&policy, at(301)));
}
