//! Callers at work: each does one thing after the other.

use std::time::Instant;
use tokio::task::JoinSet;

use crate::ground::{Failure, PATIENCE};
use crate::stats::Samples;

/// `callers` at once, `count` times in all. What each does first is not measured.
pub async fn run<W>(callers: usize, count: usize, work: impl Fn(usize) -> W + Clone + Send + 'static) -> Result<Samples, Failure>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    each(callers, 1, &work).await?;
    each(callers, count.div_ceil(callers), &work).await
}

async fn each<W>(callers: usize, times: usize, work: &(impl Fn(usize) -> W + Clone + Send + 'static)) -> Result<Samples, Failure>
where
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let mut samples = Samples::default();
    let began = Instant::now();
    // Dropped with all that still work.
    let mut at_work = JoinSet::new();
    for caller in 0..callers {
        let work = work.clone();
        at_work.spawn(async move {
            let mut took = Vec::with_capacity(times);
            for _ in 0..times {
                let began = Instant::now();
                bounded(work(caller)).await?;
                took.push(began.elapsed());
            }
            Ok::<_, Failure>(took)
        });
    }
    while let Some(took) = at_work.join_next().await {
        samples.latencies.extend(took??);
    }
    samples.span = began.elapsed();
    Ok(samples)
}

/// `work`, but not for ever.
pub async fn bounded<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}").into()))
}
