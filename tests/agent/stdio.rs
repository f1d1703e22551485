//! `agent stdio`: one client on standard input and output.

use crate::support::{Bearer, Call, Client, PATIENCE, binary, run, runs, shell, within};
use hyper_util::rt::TokioIo;
use sandbox_operator::proto::agent::agent_client::AgentClient;
use sandbox_operator::proto::agent::{ReadFileRequest, StopRequest};
use std::process::Stdio;
use std::sync::Mutex;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

async fn agent() -> (Child, Client) {
    let mut command = Command::from(binary());
    command
        .arg("stdio")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut agent = command.spawn().unwrap();
    let pipes = Mutex::new(Some(tokio::io::join(
        agent.stdout.take().unwrap(),
        agent.stdin.take().unwrap(),
    )));
    let connector = tower::service_fn(move |_| {
        let pipes = pipes.lock().unwrap().take();
        async move {
            pipes
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("only one connection"))
        }
    });
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(connector)
        .await
        .unwrap();
    (agent, AgentClient::with_interceptor(channel, Bearer(None)))
}

#[tokio::test]
async fn it_serves_without_a_token_and_ends_with_the_connection() {
    let (mut agent, client) = agent().await;
    let ended = run(&client, shell("seq 1 100000; exit 6")).await;
    assert_eq!((ended.stdout.len(), ended.exit), (588_895, Some(6)));
    let request = ReadFileRequest {
        path: "/proc/self/comm".into(),
        max_bytes: 0,
    };
    let mut file = client.clone().read_file(request).await.unwrap().into_inner();
    assert!(
        file.message()
            .await
            .unwrap()
            .unwrap()
            .data
            .starts_with(b"sandbox-operato")
    );
    let stop = client.clone().stop(StopRequest::default()).await.unwrap_err();
    assert_eq!(stop.code(), Code::FailedPrecondition);

    // Commands that still run are killed.
    let mut call = Call::start(&client, shell("trap '' HUP; sleep 300 & echo $$ $!; wait")).await;
    let pids: Vec<i32> = call
        .line()
        .await
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    drop((call, file, client));
    let status = timeout(PATIENCE, agent.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    for pid in pids {
        within("the command's end", async || (!runs(pid)).then_some(())).await;
    }
}
