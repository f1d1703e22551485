//! The agent as PID 1 of the main command.

use crate::support::{Agent, POD, TempDir, binary, free_port, key, public, run, runs, shell, start, within};
use rustix::process::Signal;
use sandbox_operator::agent_contract::POD_UID_VARIABLE;
use sandbox_operator::proto::agent::StopRequest;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the agent without a server. Returns exit code, stdout and stderr.
fn plain(options: &[&str], command: &[&str]) -> (i32, String, String) {
    let output = binary()
        .arg("run")
        .args(options)
        .arg("--")
        .args(command)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_exits_with_the_exit_code_of_the_main_command() {
    assert_eq!(
        plain(&[], &["sh", "-c", "echo out; echo err >&2; exit 7"]),
        (7, "out\n".into(), "err\n".into())
    );
    assert_eq!(plain(&[], &["sh", "-c", "kill -TERM $$"]).0, 128 + 15);
    let (code, out, err) = plain(&[], &["no-such-program"]);
    assert_eq!((code, out.as_str()), (127, ""));
    assert_eq!(
        err,
        "sandbox-operator agent: start no-such-program: No such file or directory (os error 2)\n"
    );
    let (code, _, err) = plain(&[], &["echo hello world"]);
    assert!(
        code == 127 && err.contains(r#"separate items: ["echo", "hello", "world"]"#),
        "{err}"
    );
    assert_eq!(plain(&[], &["/"]).0, 126);
    let (_, limit, _) = plain(
        &["--max-processes", "100"],
        &["sh", "-c", "grep 'Max processes' /proc/self/limits"],
    );
    assert_eq!(
        limit.split_whitespace().skip(2).take(2).collect::<Vec<_>>(),
        ["100", "100"]
    );
}

#[tokio::test]
async fn signals_reach_the_process_group_of_the_main_command() {
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::USR1, "USR1"),
        (Signal::HUP, "HUP"),
        (Signal::WINCH, "WINCH"),
    ] {
        let script = format!(
            "(trap 'echo child; exit' {name}; touch child; while :; do sleep 0.02; done) & trap 'wait; echo main; exit 3' {name}; touch main; while :; do sleep 0.02; done"
        );
        let agent = Agent::start(&["sh", "-c", &script]);
        for file in ["main", "child"] {
            within(file, async || agent.directory.join(file).exists().then_some(())).await;
        }
        agent.signal(signal);
        let (code, out, _) = agent.end().await;
        assert_eq!((code, out.as_str()), (3, "child\nmain\n"), "{name}");
    }
}

#[tokio::test]
async fn without_a_command_it_runs_until_it_is_stopped() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        let agent = Agent::start(&[]);
        assert_eq!(run(&agent.client().await, start(&["true"])).await.exit, Some(0));
        agent.signal(Signal::USR1);
        agent.signal(signal);
        assert_eq!(agent.end().await, (0, String::new(), String::new()));
    }
}

#[tokio::test]
async fn orphans_are_reaped() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let mut orphans = vec![];
    for _ in 0..20 {
        let ended = run(&client, shell("(sh -c 'sleep 0.2; exit 9' & echo $!)")).await;
        orphans.push(ended.text().trim().parse::<i32>().unwrap());
    }
    for pid in orphans {
        within("an orphan to be gone", async || {
            (!fs::exists(format!("/proc/{pid}")).unwrap()).then_some(())
        })
        .await;
    }
    let ended = run(&client, shell("exit 4")).await;
    assert_eq!(ended.exit, Some(4));
}

#[tokio::test]
async fn stop_kills_the_main_command_after_the_grace_period() {
    let stop = async |agent: &Agent, grace_seconds| {
        let answered = agent.client().await.stop(StopRequest { grace_seconds }).await;
        answered.unwrap();
    };
    // The main command ends on SIGTERM.
    let agent = Agent::start(&[
        "sh",
        "-c",
        "trap 'echo bye; exit 5' TERM; touch up; while :; do sleep 0.02; done",
    ]);
    within("the trap", async || agent.directory.join("up").exists().then_some(())).await;
    stop(&agent, 30).await;
    let (code, out, _) = agent.end().await;
    assert_eq!((code, out.as_str()), (5, "bye\n"));
    // Neither the main command nor its child ends on SIGTERM.
    for (grace, least) in [(1, 1000), (0, 0)] {
        let agent = Agent::start(&[
            "sh",
            "-c",
            "trap '' TERM; sleep 300 & echo $! > child; touch up; wait; sleep 300",
        ]);
        within("the trap", async || agent.directory.join("up").exists().then_some(())).await;
        let child: i32 = fs::read_to_string(agent.directory.join("child"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let begun = Instant::now();
        stop(&agent, grace).await;
        assert_eq!(agent.end().await.0, 128 + 9);
        let took = begun.elapsed();
        assert!(
            took >= Duration::from_millis(least) && took < Duration::from_secs(20),
            "{took:?}"
        );
        within("the child's end", async || (!runs(child)).then_some(())).await;
    }
    // There is no main command.
    let agent = Agent::start(&[]);
    stop(&agent, 300).await;
    assert_eq!(agent.end().await.0, 0);
}

#[tokio::test]
async fn the_main_command_does_not_wait_for_the_port() {
    let port = free_port();
    let taken = std::net::TcpListener::bind(("::", port)).unwrap();
    let agent = Agent::with(port, &[], &["sh", "-c", "touch up; sleep 300"]);
    within("the main command", async || {
        agent.directory.join("up").exists().then_some(())
    })
    .await;
    drop(taken);
    assert_eq!(run(&agent.client().await, start(&["true"])).await.exit, Some(0));
    agent
        .client()
        .await
        .stop(StopRequest { grace_seconds: 0 })
        .await
        .unwrap();
    let (_, _, err) = agent.end().await;
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains(&format!("port {port}: Address already in use")), "{err}");
}

#[tokio::test]
async fn nothing_is_served_without_a_key_or_the_pods_uid() {
    let keys = ["--key".to_owned(), public(&key())];
    for (options, pod) in [(&keys[..], None), (&[], Some(POD)), (&keys, Some(""))] {
        let port = free_port();
        let mut command = binary();
        command.args(["run", "--port", &port.to_string()]).args(options);
        command
            .env_remove(POD_UID_VARIABLE)
            .envs(pod.map(|uid| (POD_UID_VARIABLE, uid)));
        let mut agent = command.args(["--", "sh", "-c", "sleep 0.3; exit 8"]).spawn().unwrap();
        let mut refused = true;
        while agent.try_wait().unwrap().is_none() {
            refused &= std::net::TcpStream::connect(("127.0.0.1", port)).is_err();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(refused);
        assert_eq!(agent.wait().unwrap().code(), Some(8));
    }
    let (code, _, err) = plain(&["--key", "c2hvcnQ="], &["true"]);
    assert_eq!(code, 2);
    assert!(err.contains("5 bytes; a public key has 32"), "{err}");
}

#[test]
fn files_are_copied_before_the_main_command_starts() {
    let (from, to) = (TempDir::new(), TempDir::new());
    fs::create_dir(from.join("pkg")).unwrap();
    fs::write(from.join("pkg/run.sh"), "#!/bin/sh\necho copied $1\n").unwrap();
    fs::set_permissions(from.join("pkg/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(from.join("..data")).unwrap();
    let run = |files: &str| {
        let mut command: Command = binary();
        command
            .args(["run", "--files", files, "--", "pkg/run.sh", "well"])
            .current_dir(&to.0)
            .output()
            .unwrap()
    };
    let output = run(from.0.to_str().unwrap());
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"copied well\n"[..]),
        "{output:?}"
    );
    assert!(!to.join("..data").exists());
    let output = run("/no/such/folder");
    assert_eq!(output.status.code(), Some(126));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "sandbox-operator agent: copy files: /no/such/folder: No such file or directory (os error 2)\n"
    );
}

#[tokio::test]
async fn an_idle_agent_uses_little_memory() {
    let agent = Agent::start(&["sleep", "300"]);
    drop(agent.client().await);
    let (own, resident) = agent.memory();
    println!("idle: {own} KiB of its own, {resident} KiB resident");
    assert!(own < 5 * 1024, "{own} KiB");
}
