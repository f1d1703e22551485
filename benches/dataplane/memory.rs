//! Memory of idle streams in the gateway.

use futures::{StreamExt, TryStreamExt, stream};
use std::time::{Duration, Instant};
use tonic::Streaming;

use crate::callers::{Caller, Callers};
use crate::calls::{self, words};
use crate::fixture::{Failure, TIMEOUT};
use crate::gateway::Gateway;
use crate::load::{self, bounded};
use crate::report::Memory;
use crate::setup::Setup;
use sandbox_operator::proto::sandbox as pb;

/// Streams that are opened concurrently.
const AT_ONCE: usize = 16;
/// Time for the gateway to settle.
const SETTLE: Duration = Duration::from_secs(3);

/// Opens `streams` streams on the callers' connections, then as many with a connection each.
pub async fn measure(
    setup: &Setup,
    callers: &Callers,
    gateway: &Gateway,
    streams: usize,
) -> Result<Vec<Memory>, Failure> {
    // Warm up connections and caches.
    let warm = setup.clone();
    load::run(setup.callers(), setup.callers(), move |n| {
        let (mut caller, setup) = (warm.caller(n), warm.clone());
        async move {
            calls::stream_exec(
                &mut caller,
                &setup.sandbox(n).sandbox_id,
                words(&["true"]),
                stream::empty(),
                &mut |_| {},
            )
            .await
        }
    })
    .await?;
    let mut readings = vec![reading(gateway, "none").await?];
    let shared = open(setup, streams, async |n| Ok(setup.caller(n))).await?;
    readings.push(reading(gateway, "on shared connections").await?);
    let own = open(setup, streams, async |n| callers.connect(n).await).await?;
    readings.push(reading(gateway, "and with one each").await?);
    for (reading, wanted) in readings.iter().zip([0, streams, 2 * streams]) {
        if reading.streams != wanted {
            return Err(format!("{} streams instead of {wanted}", reading.streams).into());
        }
    }
    drop((shared, own));
    let began = Instant::now();
    while gateway.state().await?.streams > 0.0 {
        if began.elapsed() > TIMEOUT {
            return Err("dropped streams are still open".into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(readings)
}

async fn open(
    setup: &Setup,
    streams: usize,
    caller: impl AsyncFn(usize) -> Result<Caller, Failure>,
) -> Result<Vec<Streaming<pb::ExecStreamResponse>>, Failure> {
    let caller = &caller;
    let begin = |n| {
        bounded(async move {
            let mut caller = caller(n).await?;
            calls::begin(
                &mut caller,
                &setup.sandbox(n).sandbox_id,
                words(&["sleep", "3600"]),
                stream::empty(),
            )
            .await
        })
    };
    stream::iter((0..streams).map(begin))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

async fn reading(gateway: &Gateway, what: &str) -> Result<Memory, Failure> {
    tokio::time::sleep(SETTLE).await;
    let state = gateway.state().await?;
    Ok(Memory {
        what: what.into(),
        streams: state.streams as usize,
        connections: state.connections as usize,
        resident: state.usage.resident,
    })
}
