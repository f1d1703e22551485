use super::*;
use futures::FutureExt;

/// In units of [`SMALL_BODY`]: 100 in total, 50 for each tenant.
fn memory() -> Arc<BodyMemory> {
    BodyMemory::new(100 * SMALL_BODY as u32)
}

fn tenant(memory: &BodyMemory) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(memory.tenant_limit() as usize))
}

fn call(tenant: &Arc<Semaphore>, memory: &Arc<BodyMemory>) -> BodyBudget {
    BodyBudget::new(tenant.clone(), memory.clone())
}

#[tokio::test]
async fn large_requests_wait_for_memory_and_a_tenant_has_half_of_it() {
    let memory = memory();
    let [a, b, c] = [tenant(&memory), tenant(&memory), tenant(&memory)];
    let reserve = |budget: &BodyBudget, units: usize| budget.clone().reserve_request(units * SMALL_BODY).now_or_never();
    let (first, other) = (call(&a, &memory), call(&b, &memory));
    assert!(reserve(&first, 30).is_some());
    assert!(
        reserve(&call(&a, &memory), 30).is_none(),
        "60 of 100 are more than half"
    );
    assert!(reserve(&other, 50).is_some());
    assert!(reserve(&call(&c, &memory), 30).is_none(), "110 of 100");
    first.release_request();
    assert!(reserve(&first, 10).is_some());
    assert!(reserve(&call(&c, &memory), 30).is_some());
    other.release_request();
    assert!(reserve(&other, 1).is_some());
    assert!(
        reserve(&call(&b, &memory), 50).is_some(),
        "a small message reserves nothing"
    );
}

#[tokio::test]
async fn a_request_reserves_as_it_grows() {
    let memory = memory();
    let tenant = tenant(&memory);
    let budget = call(&tenant, &memory);
    let free = || tenant.available_permits() / SMALL_BODY;
    budget.clone().reserve_request(2 * SMALL_BODY).await.unwrap();
    assert_eq!(free(), 48);
    budget.clone().reserve_request(3 * SMALL_BODY).await.unwrap();
    assert_eq!(free(), 47);
    budget.clone().reserve_request(500 * SMALL_BODY).await.unwrap();
    assert_eq!(free(), 0, "no call has more than its tenant");
}

#[tokio::test]
async fn a_response_reserves_twice_its_size_in_addition_to_its_request() {
    let memory = memory();
    let tenant = tenant(&memory);
    let (one, two) = (call(&tenant, &memory), call(&tenant, &memory));
    let grow = async |budget: &BodyBudget, units: usize| {
        BodyBudget::reserve_response(Some(budget), units * SMALL_BODY, Duration::ZERO)
            .await
            .is_ok()
    };
    let free = || tenant.available_permits() / SMALL_BODY;
    one.clone().reserve_request(10 * SMALL_BODY).await.unwrap();
    assert!(grow(&one, 1).await && free() == 40);
    assert!(grow(&one, 10).await && free() == 20);
    assert!(grow(&one, 11).await && free() == 0, "40, and 10 of the request");
    assert!(!grow(&two, 2).await);
    one.release_response();
    assert!(grow(&two, 2).await);
    assert!(
        BodyBudget::reserve_response(None, usize::MAX / 4, Duration::ZERO)
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn two_tenants_cannot_hold_the_memory_for_ever() {
    let memory = memory();
    let [a, b, c] = [tenant(&memory), tenant(&memory), tenant(&memory)];
    let holders = [call(&a, &memory), call(&b, &memory)];
    for holder in &holders {
        holder.clone().reserve_request(50 * SMALL_BODY).await.unwrap();
    }
    // This is how the authentication layer ends a call.
    let ends: Vec<_> = holders
        .map(|holder| tokio::spawn(async move { holder.overdue().await.code() }))
        .into();
    let patient = call(&c, &memory);
    let refused = patient.clone().reserve_request(10 * SMALL_BODY).await;
    assert!(refused.is_err(), "they have not held it for long");
    assert!(ends.iter().all(|end| !end.is_finished()));
    tokio::time::sleep(MAX_HOLD).await;
    assert!(ends.iter().all(|end| !end.is_finished()), "nobody waits");
    assert!(patient.reserve_request(10 * SMALL_BODY).await.is_ok());
    assert_eq!(ends.iter().filter(|end| end.is_finished()).count(), 1, "one was enough");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_releases_what_is_revoked_goes_on() {
    let memory = memory();
    let [a, b] = [tenant(&memory), tenant(&memory)];
    let (one, other) = (call(&a, &memory), call(&b, &memory));
    BodyBudget::reserve_response(Some(&one), 25 * SMALL_BODY, MAX_WAIT)
        .await
        .unwrap();
    other.reserve_request(50 * SMALL_BODY).await.unwrap();
    tokio::time::sleep(MAX_HOLD).await;
    let waiting = call(&a, &memory);
    let (granted, ()) = tokio::join!(waiting.clone().reserve_request(2 * SMALL_BODY), async {
        BodyBudget::revoked(Some(&one)).await;
        one.release_response();
    });
    assert!(granted.is_ok());
    assert!(tokio::time::timeout(10 * GRACE, one.clone().overdue()).await.is_err());
    // Without this, it could hold memory for ever: revoking works once.
    assert!(one.clone().reserve_request(2 * SMALL_BODY).await.is_err());
    assert!(one.reserve_request(SMALL_BODY).await.is_ok());
}
