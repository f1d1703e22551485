//! Transfers of large content. Every byte is verified.

use bytes::Bytes;
use futures::stream;
use std::time::{Duration, Instant};

use crate::calls::{self, words};
use crate::content::{Check, content};
use crate::fixture::Failure;
use crate::load::bounded;
use crate::report::Transfer;
use crate::setup::Setup;
use crate::stats::Samples;

/// The largest file in one message.
const FILE: usize = 32 << 20;
const PATH: &str = "/tmp/bench/content";
const STREAMED: &str = "/tmp/bench/streamed";

/// How content is transferred.
#[derive(Clone, Copy)]
enum Method {
    WriteFile,
    ReadFile,
    /// As the SDK writes larger files.
    Input,
    /// As the SDK reads larger files and the output of commands.
    Output,
    WebSocket,
    Kubectl,
}

const METHODS: [(Method, &str); 6] = [
    (Method::WriteFile, "WriteFile"),
    (Method::ReadFile, "ReadFile"),
    (Method::Input, "StreamExec, input"),
    (Method::Output, "StreamExec, output"),
    (Method::WebSocket, "pods/exec, WebSocket, output"),
    (Method::Kubectl, "kubectl exec, output"),
];

/// Runs `rounds` of each method. Output repeats the file `times` times.
pub async fn measure(setup: &Setup, rounds: usize, times: usize) -> Result<Vec<Transfer>, Failure> {
    let content = content(FILE);
    let mut all = METHODS.map(|(method, name)| (method, name, Samples::default(), 0));
    // Round by round, so that other load on the machine affects all methods.
    for round in 1..=rounds {
        eprintln!("files and output: round {round} of {rounds}");
        for (method, _, samples, lost) in &mut all {
            let (took, missing) = bounded(once(setup, *method, &content, times)).await?;
            samples.add(Samples {
                latencies: vec![took],
                span: took,
            });
            *lost += missing;
        }
    }
    let transfer = |(method, name, samples, lost): (Method, &str, Samples, u64)| Transfer {
        name: name.into(),
        bytes: (FILE * repeats(method, times)) as u64,
        timing: samples.timing(),
        lost,
    };
    Ok(all.map(transfer).into())
}

fn repeats(method: Method, times: usize) -> usize {
    match method {
        Method::WriteFile | Method::ReadFile | Method::Input => 1,
        Method::Output | Method::WebSocket | Method::Kubectl => times,
    }
}

/// Returns the duration and the number of lost bytes.
async fn once(setup: &Setup, method: Method, content: &Bytes, times: usize) -> Result<(Duration, u64), Failure> {
    let (mut caller, sandbox) = (setup.caller(0), setup.sandbox(0));
    let id = sandbox.sandbox_id.as_str();
    let cat = || [words(&["cat"]), vec![PATH.to_owned(); times]].concat();
    let mut check = Check::new(content, repeats(method, times));
    let mut sink = |data: &[u8]| check.take(data);
    let began = Instant::now();
    match method {
        Method::WriteFile => calls::write_file(&mut caller, id, PATH, content.clone()).await?,
        Method::ReadFile => sink(&calls::read_file(&mut caller, id, PATH).await?),
        Method::Input => {
            let command = words(&["sh", "-c", "cat > \"$1\"", "write", STREAMED]);
            calls::stream_exec(&mut caller, id, command, calls::input(content.clone()), &mut |_| {}).await?;
        }
        Method::Output => calls::stream_exec(&mut caller, id, cat(), stream::empty(), &mut sink).await?,
        Method::WebSocket => calls::websocket(setup.pods(), &sandbox.pod, cat(), &mut sink).await?,
        Method::Kubectl => calls::kubectl(setup.namespace(), &sandbox.pod, cat(), &mut sink).await?,
    }
    let took = began.elapsed();
    // Written content is verified outside of the measured time.
    match method {
        Method::WriteFile => sink(&calls::read_file(&mut caller, id, PATH).await?),
        Method::Input => sink(&calls::read_file(&mut caller, id, STREAMED).await?),
        _ => {}
    }
    Ok((took, check.lost()))
}
