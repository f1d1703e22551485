//! What idle streams cost the gateway.

use futures::{StreamExt, TryStreamExt, stream};
use std::time::{Duration, Instant};
use tonic::Streaming;

use crate::callers::{Caller, Callers};
use crate::calls::{self, words};
use crate::gateway::Gateway;
use crate::ground::{Failure, PATIENCE};
use crate::load::{self, bounded};
use crate::report::Memory;
use crate::scene::Scene;
use sandbox_operator::proto::sandbox as pb;

/// Streams that are opened at once.
const AT_ONCE: usize = 16;
/// What has just happened is over by then.
const SETTLE: Duration = Duration::from_secs(3);

/// So many streams over the callers' connections, then as many more with a connection each.
pub async fn measure(scene: &Scene, callers: &Callers, gateway: &Gateway, streams: usize) -> Result<Vec<Memory>, Failure> {
    // Connections, and what is remembered of callers and agents, are there before.
    let warm = scene.clone();
    load::run(scene.callers(), scene.callers(), move |n| {
        let (mut caller, scene) = (warm.caller(n), warm.clone());
        async move { calls::stream_exec(&mut caller, &scene.place(n).sandbox_id, words(&["true"]), stream::empty(), &mut |_| {}).await }
    })
    .await?;
    let mut readings = vec![reading(gateway, "none").await?];
    let shared = open(scene, streams, async |n| Ok(scene.caller(n))).await?;
    readings.push(reading(gateway, "on shared connections").await?);
    let own = open(scene, streams, async |n| callers.connect(n).await).await?;
    readings.push(reading(gateway, "and with one each").await?);
    for (reading, wanted) in readings.iter().zip([0, streams, 2 * streams]) {
        if reading.streams != wanted {
            return Err(format!("{} streams instead of {wanted}", reading.streams).into());
        }
    }
    drop((shared, own));
    let began = Instant::now();
    while gateway.state().await?.streams > 0.0 {
        if began.elapsed() > PATIENCE {
            return Err("streams that were left do not end".into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(readings)
}

async fn open(
    scene: &Scene,
    streams: usize,
    caller: impl AsyncFn(usize) -> Result<Caller, Failure>,
) -> Result<Vec<Streaming<pb::ExecStreamResponse>>, Failure> {
    let caller = &caller;
    let begin = |n| {
        bounded(async move {
            let mut caller = caller(n).await?;
            calls::begin(&mut caller, &scene.place(n).sandbox_id, words(&["sleep", "3600"]), stream::empty()).await
        })
    };
    stream::iter((0..streams).map(begin)).buffer_unordered(AT_ONCE).try_collect().await
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
