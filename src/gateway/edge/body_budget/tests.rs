use super::*;
use futures::FutureExt;

/// In units of [`SMALL_BODY`]: 100 in total, 50 for each tenant.
const TENANT_LIMIT: u32 = 50 * SMALL_BODY as u32;

fn total() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(100 * SMALL_BODY))
}

fn tenant() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(TENANT_LIMIT as usize))
}

fn call(tenant: &Arc<Semaphore>, total: &Arc<Semaphore>) -> BodyBudget {
    BodyBudget::new(tenant.clone(), TENANT_LIMIT, total.clone())
}

#[tokio::test]
async fn large_requests_wait_for_memory_and_a_tenant_has_half_of_it() {
    let total = total();
    let [a, b, c] = [tenant(), tenant(), tenant()];
    let reserve = |budget: &BodyBudget, units: usize| budget.clone().reserve_request(units * SMALL_BODY).now_or_never();
    let (first, other) = (call(&a, &total), call(&b, &total));
    assert!(reserve(&first, 30).is_some());
    assert!(reserve(&call(&a, &total), 30).is_none(), "60 of 100 are more than half");
    assert!(reserve(&other, 50).is_some());
    assert!(reserve(&call(&c, &total), 30).is_none(), "110 of 100");
    assert!(
        reserve(&first, 10).is_some(),
        "a message replaces the reservation of the one before it"
    );
    assert!(reserve(&call(&c, &total), 30).is_some());
    assert!(reserve(&other, 1).is_some());
    assert!(
        reserve(&call(&b, &total), 50).is_some(),
        "a small message reserves nothing"
    );
}

#[tokio::test]
async fn a_response_reserves_twice_its_size_in_addition_to_its_request() {
    let (tenant, total) = (tenant(), total());
    let (one, two) = (call(&tenant, &total), call(&tenant, &total));
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
