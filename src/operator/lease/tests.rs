use super::*;
use crate::kube::ApiMetrics;
use futures::FutureExt;
use http::{Method, Request, Response};
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// An API server that has one Lease.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    lease: Option<Value>,
    version: u64,
    /// No answer to any call.
    hangs: bool,
}

impl Server {
    fn candidate(&self, identity: &str) -> Elector {
        let server = self.clone();
        let service = tower::service_fn(move |request| server.clone().answer(request));
        let metrics = ApiMetrics::register(&mut Registry::default());
        Elector::new(
            ApiClient::new(kube::Client::new(service, "n"), metrics),
            "n",
            "lease",
            identity,
        )
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        if self.0.lock().unwrap().hangs {
            std::future::pending::<()>().await;
        }
        let method = request.method().clone();
        let body = request.into_body().collect_bytes().await?;
        let (code, answer) = self.store(&method, serde_json::from_slice(&body).ok());
        Ok(Response::builder()
            .status(code)
            .body(Body::from(answer.to_string().into_bytes()))?)
    }

    fn store(&self, method: &Method, body: Option<Value>) -> (u16, Value) {
        let mut stored = self.0.lock().unwrap();
        let failure = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason}),
            )
        };
        let is_current =
            |new: &Value, old: &Value| new["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"];
        match (method, body, stored.lease.clone()) {
            (&Method::GET, _, Some(lease)) => (200, lease),
            (&Method::POST, Some(_), Some(_)) => failure(409, "AlreadyExists"),
            (&Method::PUT, Some(new), Some(old)) if !is_current(&new, &old) => failure(409, "Conflict"),
            (&Method::POST, Some(mut new), None) | (&Method::PUT, Some(mut new), Some(_)) => {
                stored.version += 1;
                new["metadata"]["resourceVersion"] = stored.version.to_string().into();
                stored.lease = Some(new.clone());
                (200, new)
            }
            _ => failure(404, "NotFound"),
        }
    }

    fn hang(&self, hangs: bool) {
        self.0.lock().unwrap().hangs = hangs;
    }

    fn spec(&self) -> LeaseSpec {
        let lease = self.0.lock().unwrap().lease.clone().unwrap();
        serde_json::from_value(lease["spec"].clone()).unwrap()
    }

    fn holder(&self) -> String {
        self.spec().holder_identity.unwrap_or_default()
    }
}

async fn time_to_acquire(candidate: &Elector) -> Duration {
    let start = Instant::now();
    candidate.acquire().await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_takes_its_own_lease_at_once() {
    let server = Server::default();
    assert_eq!(time_to_acquire(&server.candidate("a")).await, Duration::ZERO);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(time_to_acquire(&server.candidate("a")).await, Duration::ZERO);
    assert_eq!(server.spec().lease_transitions, Some(1), "the holder is the same");
}

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_killed_replica_is_taken_when_it_ends_and_not_before() {
    let server = Server::default();
    server.candidate("a").acquire().await;
    let took = time_to_acquire(&server.candidate("b")).await;
    assert!((DURATION..=DURATION + ACQUIRE_PAUSE).contains(&took), "{took:?}");
    assert_eq!(
        (server.holder().as_str(), server.spec().lease_transitions),
        ("b", Some(2))
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_not_taken() {
    let server = Server::default();
    let (a, b) = (server.candidate("a"), server.candidate("b"));
    a.acquire().await;
    tokio::select! {
        lost = a.hold() => panic!("{lost:?}"),
        () = b.acquire() => panic!("b took it"),
        () = sleep(Duration::from_secs(600)) => {}
    }
    assert_eq!(server.holder(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_as_long_as_its_holder_wrote() {
    let server = Server::default();
    server.candidate("a").acquire().await;
    server.0.lock().unwrap().lease.as_mut().unwrap()["spec"]["leaseDurationSeconds"] = 15.into();
    let took = time_to_acquire(&server.candidate("b")).await;
    assert!((15..=16).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_answers_steps_down_before_its_lease_ends_and_leads_again_later() {
    let server = Server::default();
    let a = server.candidate("a");
    a.acquire().await;
    let start = Instant::now();
    server.hang(true);
    assert_eq!(a.hold().await, Lost::NotRenewed);
    assert_eq!(start.elapsed(), RENEW_DEADLINE);
    server.hang(false);
    assert_eq!(time_to_acquire(&a).await, Duration::ZERO);
    let held = timeout(Duration::from_secs(60), a.hold()).await;
    assert!(held.is_err(), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_api_server_does_not_cost_the_lease() {
    let server = Server::default();
    let a = server.candidate("a");
    a.acquire().await;
    let outage = async {
        sleep(Duration::from_secs(30)).await;
        server.hang(true);
        sleep(Duration::from_secs(2)).await;
        server.hang(false);
        sleep(Duration::from_secs(30)).await;
    };
    tokio::select! {
        lost = a.hold() => panic!("{lost:?}"),
        () = outage => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_or_deleted_steps_down() {
    let server = Server::default();
    let a = server.candidate("a");
    a.acquire().await;
    server.0.lock().unwrap().lease.as_mut().unwrap()["spec"]["holderIdentity"] = "b".into();
    assert_eq!(a.hold().await, Lost::Taken);
    assert_eq!(server.holder(), "b");
    server.0.lock().unwrap().lease = None;
    assert_eq!(a.hold().await, Lost::Taken);
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_one_gets_the_lease() {
    let server = Server::default();
    let (a, b) = (server.candidate("a"), server.candidate("b"));
    for _ in 0..2 {
        // First a lease that does not exist yet, then one that was released.
        let start = Instant::now();
        tokio::select! {
            () = futures::future::join(a.acquire(), b.acquire()).map(|_| ()) => assert!(start.elapsed() >= DURATION, "both lead"),
            () = sleep(DURATION / 2) => {}
        }
        a.release().await;
        b.release().await;
        assert_eq!(server.holder(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_by_the_next_attempt() {
    let server = Server::default();
    let (a, b) = (server.candidate("a"), server.candidate("b"));
    a.acquire().await;
    let waiting = tokio::spawn(async move { b.acquire().await });
    sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    a.release().await;
    waiting.await.unwrap();
    assert!(start.elapsed() <= ACQUIRE_PAUSE, "{:?}", start.elapsed());
}
