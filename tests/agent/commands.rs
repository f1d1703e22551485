//! Commands without a terminal.

use crate::support::{Agent, Call, PATIENCE, close, run, runs, shell, start, stdin, within};
use sandbox_operator::proto::agent::exec_response::Message as ResponseMessage;
use sandbox_operator::proto::agent::{ExecStart, TerminalSize};
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test]
async fn a_command_gets_arguments_environment_and_working_directory() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    std::fs::create_dir(agent.directory.join("work")).unwrap();
    let ended = run(
        &client,
        ExecStart {
            env: [("A".to_owned(), "1 2".to_owned())].into(),
            working_dir: "work".into(),
            ..start(&[
                "sh",
                "-c",
                r#"echo "$1|$A|${PWD##*/}|$SANDBOX_OPERATOR_POD_UID|"; echo oops >&2; exit 7"#,
                "sh",
                "a  b",
            ])
        },
    )
    .await;
    assert_eq!(ended.text(), "a  b|1 2|work||\n");
    assert_eq!(ended.stderr, b"oops\n");
    assert_eq!((ended.ready, ended.exit, ended.error), (true, Some(7), None));
    let pwd = run(&client, start(&["pwd"])).await;
    assert_eq!(
        pwd.text().trim(),
        agent.directory.0.to_str().unwrap(),
        "by default the agent's own"
    );
    let killed = run(&client, shell("kill -KILL $$")).await;
    assert_eq!(killed.exit, Some(128 + 9));
}

#[tokio::test]
async fn a_failed_start_reports_the_reason() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    std::fs::write(agent.directory.join("plain"), "text").unwrap();
    let in_folder = |working_dir: &str| ExecStart {
        working_dir: working_dir.into(),
        ..start(&["true"])
    };
    for (start, code, text) in [
        (start(&["no-such-program"]), 127, "no-such-program: No such file"),
        (start(&["/no/such/program"]), 127, "/no/such/program: No such file"),
        (start(&["./plain"]), 126, "./plain: Permission denied"),
        (start(&["/"]), 126, "/: Permission denied"),
        (start(&[]), 126, "the command is empty"),
        (start(&["echo hello"]), 127, r#"as separate items: ["echo", "hello"]"#),
        (in_folder("nowhere"), 126, "working directory nowhere: No such file"),
        (in_folder("plain"), 126, "true: Not a directory"),
    ] {
        let ended = run(&client, start).await;
        let (got, message) = ended.error.unwrap();
        assert_eq!((got, ended.exit, ended.ready), (code, None, false), "{message}");
        assert!(message.contains(text), "{message}");
    }
    let nothing = client
        .clone()
        .exec(tokio_stream::empty())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

/// Up to the limits of `execve` every byte arrives. Beyond them the message names the string that is too long.
#[tokio::test]
async fn arguments_and_variables_may_be_as_long_as_linux_accepts() {
    const LIMIT: usize = 131_071;
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let with = |argument: usize, variable: usize, terminal: bool| ExecStart {
        env: [("BIG".to_owned(), "x".repeat(variable))].into(),
        terminal: terminal.then_some(TerminalSize { columns: 80, rows: 24 }),
        ..start(&["sh", "-c", "echo ${#1} ${#BIG}", "sh", &"x".repeat(argument)])
    };
    for terminal in [false, true] {
        let ended = run(&client, with(LIMIT, LIMIT - "BIG=".len(), terminal)).await;
        assert_eq!(
            (ended.text().trim(), ended.exit),
            ("131071 131067", Some(0)),
            "{:?}",
            ended.error
        );
        for (start, text) in [
            (
                with(LIMIT + 1, 1, terminal),
                "argument 4 has 131072 bytes; Linux takes at most 131071",
            ),
            (
                with(1, LIMIT - "BIG=".len() + 1, terminal),
                "environment variable BIG has 131072 bytes as NAME=value; Linux takes at most 131071",
            ),
        ] {
            let (code, message) = run(&client, start).await.error.unwrap();
            assert!(code == 126 && message.contains(text), "{code} {message}");
        }
    }
    let argument = "x".repeat(LIMIT);
    let too_many: Vec<&str> = std::iter::once("true")
        .chain(std::iter::repeat_n(argument.as_str(), 25))
        .collect();
    let (code, message) = run(&client, start(&too_many)).await.error.unwrap();
    let text = "bytes in all; Linux takes at most";
    assert!(code == 126 && message.contains(text), "{code} {message}");
}

#[tokio::test]
async fn input_ends_with_close_and_not_with_the_requests() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let data: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();

    let mut call = Call::start(&client, start(&["cat"])).await;
    assert!(matches!(call.next().await, Some(ResponseMessage::Ready(_))));
    let requests = call.requests.clone();
    let sender = {
        let data = data.clone();
        tokio::spawn(async move {
            for part in data.chunks(64 * 1024) {
                requests.send(stdin(part.to_vec())).await.unwrap();
            }
            requests.send(close()).await.unwrap();
        })
    };
    let ended = call.rest().await;
    sender.await.unwrap();
    assert!(ended.stdout == data && ended.exit == Some(0));

    // After `close` the call stays open; further input is dropped.
    let call = Call::start(&client, shell("sort; sleep 0.2; echo done")).await;
    for request in [stdin("b\n"), stdin("a\n"), close(), stdin("c\n"), close()] {
        call.send(request).await;
    }
    let keep = call.requests.clone();
    let ended = call.finish().await;
    drop(keep);
    assert_eq!((ended.text(), ended.exit), ("a\nb\ndone\n", Some(0)));

    // A request stream that ends without `close` may have been cancelled.
    let mut call = Call::start(&client, shell("echo begun; cat; echo the whole")).await;
    assert_eq!(call.line().await, "begun\n");
    let waits = tokio::time::timeout(Duration::from_millis(300), call.rest()).await;
    assert!(waits.is_err());
}

#[tokio::test]
async fn unread_input_does_not_block_other_calls() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    // The command has closed its input.
    let call = Call::start(&client, shell("exec <&-; sleep 0.3; echo fine")).await;
    for _ in 0..32 {
        call.send(stdin(vec![0; 64 * 1024])).await;
    }
    let ended = call.finish().await;
    assert_eq!((ended.text(), ended.exit), ("fine\n", Some(0)));
    // Many commands that never read, on one connection: another call is served.
    let mut stuck = vec![];
    for _ in 0..64 {
        let call = Call::start(&client, start(&["sleep", "300"])).await;
        for _ in 0..4 {
            let _ = call.requests.try_send(stdin(vec![0; 64 * 1024]));
        }
        stuck.push(call);
    }
    let ended = tokio::time::timeout(PATIENCE, run(&client, start(&["echo", "free"])))
        .await
        .unwrap();
    assert_eq!(ended.text(), "free\n");
}

/// Starts a command with a child in its process group and one that is only in its session. Returns their process ids.
async fn family(call: &mut Call) -> Vec<i32> {
    let line = call.line().await;
    line.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_cancelled_or_expired_call_kills_the_process_group() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let script = "trap '' TERM HUP; sleep 300 & echo $$ $!; wait; wait; sleep 300";

    let mut call = Call::start(&client, shell(script)).await;
    let pids = family(&mut call).await;
    assert!(pids.iter().all(|pid| runs(*pid)));
    drop(call);
    for pid in pids {
        within("the end of a cancelled command", async || (!runs(pid)).then_some(())).await;
    }

    let begun = Instant::now();
    let mut call = Call::request(&client, shell(script), |mut request| {
        request.set_timeout(Duration::from_secs(1));
        request
    })
    .await;
    let pids = family(&mut call).await;
    let status = loop {
        match call.responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no status"),
            Err(status) => break status,
        }
    };
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    assert!(begun.elapsed() >= Duration::from_millis(900));
    for pid in pids {
        within("the end of a late command", async || (!runs(pid)).then_some(())).await;
    }
}

#[tokio::test]
async fn the_agent_enforces_the_deadline() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    // Only the header has this deadline: the client does not enforce it.
    let mut call = Call::request(&client, shell("echo $$; sleep 300"), |mut request| {
        request.metadata_mut().insert("grpc-timeout", "500m".parse().unwrap());
        request
    })
    .await;
    let pid: i32 = call.line().await.trim().parse().unwrap();
    let status = call.responses.message().await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    within("its end", async || (!runs(pid)).then_some(())).await;
}

#[tokio::test]
async fn a_background_process_neither_holds_the_call_nor_ends_with_it() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let begun = Instant::now();
    let script = "(trap '' HUP; sleep 0.5; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo $? > alive; sleep 300) & echo $!";
    let ended = run(&client, shell(script)).await;
    assert_eq!(ended.exit, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "did not wait for the child");
    let pid: i32 = ended.text().trim().parse().unwrap();
    let written = agent.directory.join("alive");
    let code = within("the child's output to be taken", async || {
        std::fs::read_to_string(&written)
            .ok()
            .filter(|text| text.ends_with('\n'))
    })
    .await;
    assert_eq!(code, "0\n");
    assert!(runs(pid));
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    );
}

#[tokio::test]
async fn output_written_before_the_exit_is_sent_before_the_exit_code() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    // A child process holds the pipe open, so that there is no end of file.
    for round in 0..50 {
        let ended = run(&client, shell("sleep 2 & head -c 60000 /dev/zero; echo end")).await;
        assert_eq!((ended.stdout.len(), ended.exit), (60_004, Some(0)), "round {round}");
    }
}

#[tokio::test]
async fn two_hundred_commands_at_once() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let calls = (0..200).map(|n| {
        let client = client.clone();
        tokio::spawn(async move {
            let ended = run(&client, shell(&format!("seq {n} 2000; sleep 1; exit {}", n % 100))).await;
            let lines: Vec<usize> = ended.text().lines().map(|line| line.parse().unwrap()).collect();
            assert!(lines.into_iter().eq(n..=2000), "{n}");
            assert_eq!(ended.exit, Some(i32::try_from(n % 100).unwrap()));
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}
