//! Concurrent callers. Each makes one call after the other.

use std::time::Instant;
use tokio::task::JoinSet;

use crate::fixture::{Failure, TIMEOUT};
use crate::stats::Samples;

/// Runs `work` with `callers` concurrent callers, `count` times in total, after one call each that is not measured.
pub async fn run<W>(
    callers: usize,
    count: usize,
    work: impl Fn(usize) -> W + Clone + Send + 'static,
) -> Result<Samples, Failure>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    each(callers, 1, &work).await?;
    each(callers, count.div_ceil(callers), &work).await
}

async fn each<W>(
    callers: usize,
    times: usize,
    work: &(impl Fn(usize) -> W + Clone + Send + 'static),
) -> Result<Samples, Failure>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let mut samples = Samples::default();
    let began = Instant::now();
    // Dropping the set aborts all callers.
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let work = work.clone();
        tasks.spawn(async move {
            let mut took = Vec::with_capacity(times);
            for _ in 0..times {
                let began = Instant::now();
                bounded(work(caller)).await?;
                took.push(began.elapsed());
            }
            Ok::<_, Failure>(took)
        });
    }
    while let Some(took) = tasks.join_next().await {
        samples.latencies.extend(took??);
    }
    samples.span = began.elapsed();
    Ok(samples)
}

/// `work` with a timeout.
pub async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = tokio::time::timeout(TIMEOUT, work).await;
    done.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}").into()))
}
