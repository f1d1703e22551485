//! Exec and StreamExec.

use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::support::*;
use pb::exec_stream_request::Message as Input;
use pb::exec_stream_response::Message as Output;
use sandbox_operator::proto::sandbox as pb;

type Outputs = Streaming<pb::ExecStreamResponse>;

fn words(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(String::from).to_vec()
}

fn init(script: &str) -> pb::ExecStreamInit {
    pb::ExecStreamInit {
        sandbox_id: "box".into(),
        command: words(script),
        ..pb::ExecStreamInit::default()
    }
}

fn message(message: Input) -> pb::ExecStreamRequest {
    pb::ExecStreamRequest { message: Some(message) }
}

/// Starts a command whose input stays open.
async fn start(
    client: &mut Client,
    init: pb::ExecStreamInit,
    timeout: Option<Duration>,
) -> (mpsc::Sender<pb::ExecStreamRequest>, Result<Outputs, Status>) {
    let (input, inputs) = mpsc::channel(1);
    input.send(message(Input::Init(init))).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(inputs));
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let outputs = client.stream_exec(request).await.map(tonic::Response::into_inner);
    (input, outputs)
}

/// Runs a command without input.
async fn run(client: &mut Client, init: pb::ExecStreamInit) -> Result<Vec<Output>, Status> {
    let (input, outputs) = start(client, init, None).await;
    drop(input);
    rest(&mut outputs?).await
}

async fn rest(outputs: &mut Outputs) -> Result<Vec<Output>, Status> {
    let mut all = vec![];
    while let Some(output) = outputs.message().await? {
        all.extend(output.message);
    }
    Ok(all)
}

fn bytes(outputs: &[Output], channel: pb::exec_stream_output::Stream) -> Vec<u8> {
    let of = outputs.iter().filter_map(|o| match o {
        Output::Output(frame) if frame.stream() == channel => Some(&frame.data[..]),
        _ => None,
    });
    of.collect::<Vec<_>>().concat()
}

fn exit_code(outputs: &[Output]) -> Option<i32> {
    match outputs.last()? {
        Output::Exit(exit) => Some(exit.exit_code),
        _ => None,
    }
}

#[tokio::test]
async fn a_stream_has_ready_then_output_then_exit() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let outputs = run(&mut client, init("echo out; echo err >&2; exit 3")).await.unwrap();
    assert!(matches!(outputs[0], Output::Ready(_)), "{outputs:?}");
    assert_eq!(bytes(&outputs, pb::exec_stream_output::Stream::Stdout), b"out\n");
    assert_eq!(bytes(&outputs, pb::exec_stream_output::Stream::Stderr), b"err\n");
    assert_eq!(exit_code(&outputs), Some(3));
    let unknown = pb::ExecStreamInit {
        command: vec!["/no/such/program".into()],
        ..init("")
    };
    let outputs = run(&mut client, unknown).await.unwrap();
    assert!(
        matches!(outputs.last(), Some(Output::Error(error)) if error.code == "EXEC_FAILED"),
        "{outputs:?}"
    );
}

#[tokio::test]
async fn each_write_arrives_at_once() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let (input, outputs) = start(
        &mut client,
        init("for i in 1 2 3 4 5; do echo line$i; sleep 0.2; done"),
        None,
    )
    .await;
    drop(input);
    let (mut outputs, mut lines, mut times) = (outputs.unwrap(), vec![], vec![]);
    while let Some(output) = outputs.message().await.unwrap() {
        if let Some(Output::Output(frame)) = output.message {
            lines.push(String::from_utf8(frame.data.to_vec()).unwrap());
            times.push(Instant::now());
        }
    }
    assert_eq!(lines, ["line1\n", "line2\n", "line3\n", "line4\n", "line5\n"]);
    assert!(times[4] - times[0] > Duration::from_millis(500));
}

#[tokio::test]
async fn megabytes_of_input_arrive_and_their_end_ends_the_command() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let (input, outputs) = start(&mut client, init("cat"), None).await;
    let mut outputs = outputs.unwrap();
    let sent: Vec<u8> = (0..5 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let pieces: Vec<_> = sent.chunks(1_000_000).map(<[u8]>::to_vec).collect();
    let feeding = tokio::spawn(async move {
        for piece in pieces {
            input.send(message(Input::Stdin(piece.into()))).await.unwrap();
        }
        input.send(message(Input::Close(pb::ExecStreamClose {}))).await.unwrap();
        input
    });
    let received = rest(&mut outputs).await.unwrap();
    assert!(
        bytes(&received, pb::exec_stream_output::Stream::Stdout) == sent,
        "all of it, in order"
    );
    assert_eq!(exit_code(&received), Some(0));
    feeding.await.unwrap();
}

#[tokio::test]
async fn a_terminal_has_the_requested_size() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let terminal = pb::ExecStreamInit {
        tty: true,
        tty_width: 100,
        tty_height: 40,
        ..init("stty size; read line; stty size")
    };
    let (input, outputs) = start(&mut client, terminal, None).await;
    let mut outputs = outputs.unwrap();
    let mut text = String::new();
    while !text.contains("40 100") {
        if let Some(Output::Output(frame)) = outputs.message().await.unwrap().unwrap().message {
            text.push_str(&String::from_utf8_lossy(&frame.data));
        }
    }
    let resize = pb::ExecStreamResize { width: 120, height: 50 };
    input.send(message(Input::Resize(resize))).await.unwrap();
    input.send(message(Input::Stdin("\n".into()))).await.unwrap();
    let received = rest(&mut outputs).await.unwrap();
    let text = String::from_utf8(bytes(&received, pb::exec_stream_output::Stream::Stdout)).unwrap();
    assert!(text.contains("50 120"), "{text}");
    assert_eq!(exit_code(&received), Some(0));
}

#[tokio::test]
async fn a_deadline_ends_the_command() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let (_input, outputs) = start(
        &mut client,
        init("echo $$ > pid; sleep 1000"),
        Some(Duration::from_secs(1)),
    )
    .await;
    let status = rest(&mut outputs.unwrap()).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let pid = std::fs::read_to_string(agent.folder.join("pid")).unwrap();
    eventually("the command is gone", || {
        !std::path::Path::new(&format!("/proc/{}", pid.trim())).exists()
    })
    .await;
}

#[tokio::test]
async fn an_aborted_call_ends_the_command_before_it_sees_the_end_of_its_input() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let replica = Replica::with_agent(&world, &agent).await;
    for i in 0..10 {
        let script = format!("echo $$ > pid{i}; cat > part{i} && mv part{i} whole{i}");
        let deadline = (i % 2 == 0).then_some(Duration::from_secs(2));
        let address = replica.address;
        // A runtime of its own, so that the client can disappear without closing the connection.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let mut client = Client::connect(format!("http://{address}")).await.unwrap();
            let (input, outputs) = start(&mut client, init(&script), deadline).await;
            input.send(message(Input::Stdin("half of it".into()))).await.unwrap();
            let mut outputs = outputs.unwrap();
            while outputs.message().await.is_ok() {}
            std::future::pending::<()>().await;
            drop(input);
        });
        let file = |name: &str| std::fs::read_to_string(agent.folder.join(format!("{name}{i}"))).unwrap_or_default();
        eventually("the input is there", || file("part") == "half of it").await;
        let process = format!("/proc/{}", file("pid").trim());
        let runtime = match deadline {
            Some(_) => Some(runtime),
            None => {
                runtime.shutdown_background();
                None
            }
        };
        eventually("the command is gone", || !std::path::Path::new(&process).exists()).await;
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
        assert_eq!(
            file("whole"),
            "",
            "the command took a partial upload for a complete one"
        );
    }
}

#[tokio::test]
async fn a_lost_agent_means_that_the_sandbox_has_ended_or_is_retryable() {
    let world = World::new();
    for ended in [true, false] {
        let mut agent = RunningAgent::start();
        let mut client = Replica::with_agent(&world, &agent).await.client;
        let (_input, outputs) = start(&mut client, init("cat"), None).await;
        let mut outputs = outputs.unwrap();
        assert!(outputs.message().await.unwrap().is_some());
        agent.kill();
        if ended {
            world.container_has_ended();
        }
        let status = rest(&mut outputs).await.unwrap_err();
        let expected = match ended {
            true => (Code::Cancelled, ("CWSANDBOX_SANDBOX_NOT_RUNNING".to_owned(), false)),
            false => (Code::Unavailable, ("CWSANDBOX_BACKEND_UNAVAILABLE".to_owned(), true)),
        };
        assert_eq!((status.code(), reason(&status)), expected);
        world.container_runs();
    }
}

#[tokio::test]
async fn a_stopping_replica_ends_streams_with_a_retryable_error() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut replica = Replica::with_agent(&world, &agent).await;
    let (_input, outputs) = start(&mut replica.client, init("cat"), None).await;
    let mut outputs = outputs.unwrap();
    assert!(outputs.message().await.unwrap().is_some());
    replica.draining.cancel();
    let status = rest(&mut outputs).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).1), (Code::Unavailable, true));
}

#[tokio::test]
async fn an_invalid_command_is_refused() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let late = [message(Input::Stdin("x".into()))];
    let status = client.stream_exec(tokio_stream::iter(late)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let twice = [message(Input::Init(init("cat"))), message(Input::Init(init("true")))];
    let mut outputs = client
        .stream_exec(tokio_stream::iter(twice))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(rest(&mut outputs).await.unwrap_err().code(), Code::InvalidArgument);
    world.set_state("CREATING");
    let status = run(&mut client, init("true")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).0.as_str()),
        (Code::FailedPrecondition, "CWSANDBOX_SANDBOX_NOT_RUNNING")
    );
}

#[tokio::test]
async fn the_output_of_exec_is_bounded() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let request = |script: &str, max_output_bytes| pb::ExecRequest {
        sandbox_id: "box".into(),
        command: words(script),
        max_output_bytes,
        ..pb::ExecRequest::default()
    };
    let response = client
        .exec(request("head -c 300000 /dev/zero; echo err >&2; exit 4", 1000))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (
            response.stdout.len(),
            response.stdout_truncated,
            response.stdout_bytes_produced
        ),
        (1000, true, 300_000)
    );
    assert_eq!(
        (&response.stderr[..], response.stderr_truncated, response.exit_code),
        (&b"err\n"[..], false, 4)
    );
    let missing = pb::ExecRequest {
        command: vec!["/no/such".into()],
        ..request("", 0)
    };
    let response = client.exec(missing).await.unwrap().into_inner();
    assert_eq!((response.exit_code, response.stderr.is_empty()), (127, false));
}

#[tokio::test]
async fn a_slow_reader_slows_the_command() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let mut client = Replica::with_agent(&world, &agent).await.client;
    let script = "i=0; while [ $i -lt 400 ]; do head -c 100000 /dev/zero; i=$((i+1)); echo $i > written; done";
    let (_input, outputs) = start(&mut client, init(script), None).await;
    let mut outputs = outputs.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written: u32 = std::fs::read_to_string(agent.folder.join("written"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        written < 100,
        "{written} of 400 chunks of 100 kB were taken from the command though no client read them"
    );
    let received = rest(&mut outputs).await.unwrap();
    assert_eq!(
        bytes(&received, pb::exec_stream_output::Stream::Stdout).len(),
        40_000_000
    );
}

#[tokio::test]
async fn a_container_without_an_agent_needs_a_setting() {
    let world = World::new();
    world.container_has_no_agent();
    let mut client = Replica::new(&world).await.client;
    let status = run(&mut client, init("true")).await.err().unwrap();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("gateway.execViaApiServer"), "{status:?}");
}

#[tokio::test]
async fn a_command_that_runs_does_not_hold_the_memory_of_its_request() {
    let (world, agent) = (World::new(), RunningAgent::start());
    let limits = sandbox_operator::gateway::config::Limits {
        large_body_bytes: 512 << 10,
        ..Default::default()
    };
    let replica = Replica::with_limits(&world, &agent, limits).await;
    // Each takes most of the tenant's half.
    let large = |script: &str| pb::ExecRequest {
        sandbox_id: "box".into(),
        command: words(script)
            .into_iter()
            .chain(["x".repeat(100 << 10), "y".repeat(100 << 10)])
            .collect(),
        ..pb::ExecRequest::default()
    };
    let run = |request| {
        let mut client = replica.client.clone();
        async move { client.exec(request).await.map(|done| done.into_inner().exit_code) }
    };
    let waiting = (0..3).map(|i| {
        tokio::spawn(run(large(&format!(
            "touch started-{i}; until [ -e go ]; do sleep 0.05; done"
        ))))
    });
    let waiting: Vec<_> = waiting.collect();
    eventually("all commands run", || {
        (0..3).all(|i| agent.folder.join(format!("started-{i}")).exists())
    })
    .await;
    assert_eq!(run(large("exit 3")).await.unwrap(), 3);
    std::fs::write(agent.folder.join("go"), "").unwrap();
    for done in waiting {
        assert_eq!(done.await.unwrap().unwrap(), 0);
    }
}
