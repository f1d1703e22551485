//! Many bytes, each of them compared with what it must be.

use bytes::Bytes;
use futures::stream;
use std::time::{Duration, Instant};

use crate::calls::{self, words};
use crate::content::{Check, content};
use crate::ground::Failure;
use crate::load::bounded;
use crate::report::Transfer;
use crate::scene::Scene;
use crate::stats::Samples;

/// The largest file in one piece.
const FILE: usize = 32 << 20;
const PATH: &str = "/tmp/bench/content";
const STREAMED: &str = "/tmp/bench/streamed";

/// How bytes go.
#[derive(Clone, Copy)]
enum Way {
    WriteFile,
    ReadFile,
    /// As the SDK writes what does not fit into one piece.
    Input,
    /// As the SDK reads such files, and all output of commands.
    Output,
    WebSocket,
    Kubectl,
}

const WAYS: [(Way, &str); 6] = [
    (Way::WriteFile, "WriteFile"),
    (Way::ReadFile, "ReadFile"),
    (Way::Input, "StreamExec, input"),
    (Way::Output, "StreamExec, output"),
    (Way::WebSocket, "pods/exec, WebSocket, output"),
    (Way::Kubectl, "kubectl exec, output"),
];

/// `rounds` of each way; output is the file `times` over.
pub async fn measure(scene: &Scene, rounds: usize, times: usize) -> Result<Vec<Transfer>, Failure> {
    let content = content(FILE);
    let mut all = WAYS.map(|(way, name)| (way, name, Samples::default(), 0));
    // Round by round, so that what else happens on the machine happens to every way.
    for round in 1..=rounds {
        eprintln!("files and output: round {round} of {rounds}");
        for (way, _, samples, lost) in &mut all {
            let (took, missing) = bounded(once(scene, *way, &content, times)).await?;
            samples.add(Samples {
                latencies: vec![took],
                span: took,
            });
            *lost += missing;
        }
    }
    let transfer = |(way, name, samples, lost): (Way, &str, Samples, u64)| Transfer {
        name: name.into(),
        bytes: (FILE * repeats(way, times)) as u64,
        timing: samples.timing(),
        lost,
    };
    Ok(all.map(transfer).into())
}

fn repeats(way: Way, times: usize) -> usize {
    match way {
        Way::WriteFile | Way::ReadFile | Way::Input => 1,
        Way::Output | Way::WebSocket | Way::Kubectl => times,
    }
}

/// How long it took, and how many bytes were lost.
async fn once(scene: &Scene, way: Way, content: &Bytes, times: usize) -> Result<(Duration, u64), Failure> {
    let (mut caller, place) = (scene.caller(0), scene.place(0));
    let id = place.sandbox_id.as_str();
    let cat = || [words(&["cat"]), vec![PATH.to_owned(); times]].concat();
    let mut check = Check::new(content, repeats(way, times));
    let mut take = |data: &[u8]| check.take(data);
    let began = Instant::now();
    match way {
        Way::WriteFile => calls::write_file(&mut caller, id, PATH, content.clone()).await?,
        Way::ReadFile => take(&calls::read_file(&mut caller, id, PATH).await?),
        Way::Input => {
            let command = words(&["sh", "-c", "cat > \"$1\"", "write", STREAMED]);
            calls::stream_exec(&mut caller, id, command, calls::input(content.clone()), &mut |_| {}).await?;
        }
        Way::Output => calls::stream_exec(&mut caller, id, cat(), stream::empty(), &mut take).await?,
        Way::WebSocket => calls::websocket(scene.pods(), &place.pod, cat(), &mut take).await?,
        Way::Kubectl => calls::kubectl(scene.namespace(), &place.pod, cat(), &mut take).await?,
    }
    let took = began.elapsed();
    // What was written is looked at when the time is over.
    match way {
        Way::WriteFile => take(&calls::read_file(&mut caller, id, PATH).await?),
        Way::Input => take(&calls::read_file(&mut caller, id, STREAMED).await?),
        _ => {}
    }
    Ok((took, check.lost()))
}
