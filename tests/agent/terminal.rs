//! Commands on a terminal.

use crate::support::{Agent, Call, close, request, run, runs, shell, start, stdin, within};
use sandbox_operator::proto::agent::exec_request::Message as RequestMessage;
use sandbox_operator::proto::agent::exec_response::Message as ResponseMessage;
use sandbox_operator::proto::agent::{ExecStart, TerminalSize};

fn on_terminal(start: ExecStart) -> ExecStart {
    ExecStart {
        terminal: Some(TerminalSize { columns: 100, rows: 30 }),
        ..start
    }
}

#[tokio::test]
async fn a_terminal_has_a_size_and_can_be_resized() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let script = "stty size; tty >&2; trap 'stty size; exit 5' WINCH; echo waiting; while :; do sleep 0.05; done";
    let mut call = Call::start(&client, on_terminal(shell(script))).await;
    assert_eq!(call.line().await, "30 100\r\n");
    let tty = call.line().await;
    assert!(tty.starts_with("/dev/pts/"), "{tty}");
    assert_eq!(call.line().await, "waiting\r\n");
    call.send(request(RequestMessage::Resize(TerminalSize { columns: 80, rows: 24 })))
        .await;
    assert_eq!(call.line().await, "24 80\r\n");
    assert_eq!(call.next().await, Some(ResponseMessage::Exit(5)));
}

#[tokio::test]
async fn a_terminal_takes_input_its_end_and_interrupts() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let mut call = Call::start(
        &client,
        on_terminal(shell("stty -echo; echo ready; cat; echo over; sleep 300")),
    )
    .await;
    assert_eq!(call.line().await, "ready\r\n");
    call.send(stdin("hello\n")).await;
    assert_eq!(call.line().await, "hello\r\n");
    call.send(close()).await;
    assert_eq!(call.line().await, "over\r\n");
    drop(call);

    let mut call = Call::start(
        &client,
        on_terminal(shell("stty -echo; echo ready; cat; echo; echo over; sleep 300")),
    )
    .await;
    assert_eq!(call.line().await, "ready\r\n");
    call.send(stdin("half a line")).await;
    call.send(close()).await;
    assert_eq!(call.line().await, "half a line\r\n");
    assert_eq!(call.line().await, "over\r\n");
    drop(call);

    // A shell ignores an interrupt between two commands.
    let script = "stty -echo; trap 'exit 130' INT; echo ready; sleep 300 & wait";
    let mut call = Call::start(&client, on_terminal(shell(script))).await;
    assert_eq!(call.line().await, "ready\r\n");
    call.send(stdin("\x03")).await;
    let ended = call.finish().await;
    assert_eq!(ended.exit, Some(128 + 2));
}

#[tokio::test]
async fn on_a_terminal_a_failed_start_reports_the_reason_and_all_output_arrives() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let ended = run(&client, on_terminal(start(&["no-such-program"]))).await;
    let (code, message) = ended.error.unwrap();
    assert_eq!((code, ended.ready), (127, false));
    assert!(message.starts_with("no-such-program: No such file"), "{message}");
    let ended = run(&client, on_terminal(start(&["/"]))).await;
    assert_eq!(ended.error.unwrap().0, 126);
    for round in 0..10 {
        let ended = run(&client, on_terminal(shell("seq 1 20000; exit 3"))).await;
        assert_eq!(ended.exit, Some(3), "round {round}");
        assert!(
            ended
                .text()
                .lines()
                .map(|line| line.parse::<u32>().unwrap())
                .eq(1..=20_000),
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_cancelled_call_kills_all_jobs_of_its_session() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    // With job control each job has its own process group. Both ignore the hangup.
    let script = "trap '' HUP TERM; set -m; sleep 300 & echo $$ $!; wait; sleep 300";
    let mut call = Call::start(&client, on_terminal(shell(script))).await;
    let line = call.line().await;
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.iter().filter(|pid| runs(**pid)).count(), 2, "{line}");
    drop(call);
    for pid in pids {
        within("the end of the session", async || (!runs(pid)).then_some(())).await;
    }
}
