use super::*;
use crate::gateway::edge::body_budget::SMALL_BODY;
use futures::FutureExt;
use std::time::Duration;
use tonic::transport::server::Connected;
use tonic_types::StatusExt;

fn limits(requests_per_second: u32, burst: u32) -> Limits {
    Limits::new(&config::Limits {
        requests_per_second,
        burst,
        concurrent_calls: 2,
        concurrent_streams: 1,
        large_body_bytes: 100,
        ..config::Limits::default()
    })
}

#[test]
fn a_user_over_its_rate_gets_a_retry_delay_and_others_are_not_affected() {
    let limits = limits(1, 2);
    assert!(limits.admit("a", "t", false).is_ok() && limits.admit("a", "t", false).is_ok());
    let refused = limits.admit("a", "t", false).err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, reason::RATE_LIMITED);
    let delay = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(
        delay > Duration::from_millis(500) && delay <= Duration::from_secs(1),
        "{delay:?}"
    );
    assert!(limits.admit("b", "u", false).is_ok());
}

#[test]
fn calls_and_streams_count_until_they_end() {
    let limits = limits(1000, 1000);
    let (one, _two) = (
        limits.admit("a", "t", false).unwrap(),
        limits.admit("a", "t", false).unwrap(),
    );
    assert_eq!(
        limits.admit("a", "t", false).err().unwrap().code(),
        Code::ResourceExhausted
    );
    let stream = limits.admit("a", "t", true).unwrap();
    assert!(limits.admit("a", "t", true).is_err());
    assert!(limits.admit("b", "u", false).is_ok());
    drop((one, stream));
    assert!(limits.admit("a", "t", false).is_ok() && limits.admit("a", "t", true).is_ok());
}

#[tokio::test]
async fn users_of_a_tenant_share_its_half_of_the_memory() {
    let limits = Limits::new(&config::Limits {
        large_body_bytes: 100 * u32::try_from(SMALL_BODY).unwrap(),
        ..config::Limits::default()
    });
    let budget = |user: &str, tenant: &str| limits.admit(user, tenant, false).unwrap().budget;
    let first = budget("a1", "a");
    assert!(first.clone().reserve_request(30 * SMALL_BODY).now_or_never().is_some());
    assert!(
        budget("a2", "a")
            .reserve_request(30 * SMALL_BODY)
            .now_or_never()
            .is_none()
    );
    assert!(
        budget("b", "b")
            .reserve_request(50 * SMALL_BODY)
            .now_or_never()
            .is_some()
    );
}

#[test]
fn calls_without_credentials_have_permits_of_their_own() {
    let limits = limits(1000, 1000);
    let checks: Vec<_> = (0..UNAUTHENTICATED_CALLS)
        .map(|_| limits.admit_unauthenticated(false).unwrap())
        .collect();
    assert_eq!(
        limits.admit_unauthenticated(false).err().unwrap().code(),
        Code::ResourceExhausted
    );
    assert!(limits.admit_unauthenticated(true).is_ok() && limits.admit("a", "t", false).is_ok());
    drop(checks);
    assert!(limits.admit_unauthenticated(false).is_ok());
}

#[tokio::test]
async fn a_tenant_searches_few_logs_at_once() {
    let limits = limits(1000, 1000);
    let (one, other) = (
        limits.admit("a", "t", true).unwrap(),
        limits.admit("b", "u", true).unwrap(),
    );
    let acquire = |admission: &Admission| LogSearchPermits::acquire(Some(&admission.log_searches)).now_or_never();
    let searches: Vec<_> = (0..LOG_SEARCHES).map(|_| acquire(&one).flatten().unwrap()).collect();
    assert!(acquire(&one).is_none());
    assert!(acquire(&other).is_some());
    drop(searches);
    assert!(acquire(&one).is_some());
}

#[test]
fn users_without_calls_are_dropped() {
    let limits = limits(1000, 1000);
    let kept = limits.admit("kept", "t", false).unwrap();
    for i in 0..5000 {
        let _ = limits.admit(&i.to_string(), &i.to_string(), false);
    }
    assert!(
        limits.users.lock().unwrap().len() <= MAX_IDLE + 1 && limits.tenants.lock().unwrap().len() <= 2 * MAX_IDLE + 2
    );
    assert!(limits.users.lock().unwrap().contains_key("kept"));
    drop(kept);
}

#[test]
fn many_accounts_of_a_tenant_have_four_times_what_one_has() {
    let limits = limits(10, 10);
    let calls: Vec<_> = (0..8)
        .map(|i| limits.admit(&format!("a{i}"), "t", false).unwrap())
        .collect();
    assert!(limits.admit("b", "t", false).is_err() && limits.admit("e", "u", false).is_ok());
    drop(calls);
    let admitted = (0..100)
        .filter(|i| limits.admit(&format!("c{i}"), "t", false).is_ok())
        .count();
    assert!(admitted < 40, "{admitted} calls, four times the burst of one account");
    assert!(limits.admit("d", "u", false).is_ok());
}

#[test]
fn a_tenant_has_half_of_the_memory_for_the_windows_of_streams() {
    let limits = Limits::new(&config::Limits {
        stream_bytes: 8 * STREAM_WINDOW,
        ..config::Limits::default()
    });
    let admit = |tenant: &str, count: u32| -> Vec<Admission> {
        let accounts = (0..count).map(|i| format!("{tenant}{i}"));
        accounts
            .map_while(|account| limits.admit(&account, tenant, true).ok())
            .collect()
    };
    let (a, b) = (admit("a", 10), admit("b", 10));
    assert_eq!((a.len(), b.len()), (4, 4));
    assert!(admit("c", 1).is_empty(), "all of it is in use");
    drop(a);
    assert_eq!(admit("c", 10).len(), 4);
}

#[tokio::test]
async fn a_tenant_has_so_many_connections() {
    let limits = Limits::new(&config::Limits {
        connections_per_namespace: 1,
        ..config::Limits::default()
    });
    let connection = || {
        let unauthenticated = crate::net::UnauthenticatedConn::new(Duration::from_secs(10), None);
        crate::net::Connection::new((), ([10, 0, 0, 1], 1).into(), unauthenticated, ())
    };
    let peer = |connection: &crate::net::Connection<(), ()>| Connected::connect_info(connection);
    let (first, second) = (connection(), connection());
    assert!(limits.admit_connection(Some(&peer(&first)), "a").is_ok());
    assert!(
        limits.admit_connection(Some(&peer(&first)), "a").is_ok(),
        "another call"
    );
    assert!(limits.admit_connection(Some(&peer(&second)), "a").is_err());
    assert!(limits.admit_connection(Some(&peer(&second)), "b").is_ok());
    drop(first);
    assert!(limits.admit_connection(Some(&peer(&connection())), "a").is_ok());
    assert!(limits.admit_connection(None, "a").is_ok());
}
