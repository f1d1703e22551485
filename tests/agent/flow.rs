//! Output of commands: immediate, complete, in order, and with back-pressure.

use crate::support::{Agent, Call, run, shell, start};
use sandbox_operator::proto::agent::exec_response::Message as ResponseMessage;
use std::time::{Duration, Instant};

#[tokio::test]
async fn each_write_is_sent_at_once_as_a_frame() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let mut call = Call::start(
        &client,
        shell("for i in 1 2 3 4 5 6 7 8 9 10; do echo line$i; sleep 0.2; done"),
    )
    .await;
    assert!(matches!(call.next().await, Some(ResponseMessage::Ready(_))));
    let begun = Instant::now();
    for i in 1..=10 {
        let frame = call.next().await;
        assert_eq!(frame, Some(ResponseMessage::Stdout(format!("line{i}\n").into())));
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(call.next().await, Some(ResponseMessage::Exit(0)));
}

#[tokio::test]
async fn two_million_lines_arrive_complete_and_in_order() {
    let agent = Agent::start(&[]);
    let mut call = Call::start(&agent.client().await, start(&["seq", "2000000"])).await;
    let (mut rest, mut expected, mut exit) = (vec![], 1u32, None);
    while let Some(message) = call.next().await {
        match message {
            ResponseMessage::Stdout(data) => {
                rest.extend_from_slice(&data);
                let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                for line in std::str::from_utf8(&rest[..whole]).unwrap().lines() {
                    assert_eq!(line.parse(), Ok(expected));
                    expected += 1;
                }
                rest.drain(..whole);
            }
            ResponseMessage::Exit(code) => exit = Some(code),
            _ => {}
        }
    }
    assert_eq!((expected, exit), (2_000_001, Some(0)));
}

#[tokio::test]
async fn a_gibibyte_arrives_complete_with_little_memory() {
    let agent = Agent::start(&[]);
    let mut call = Call::start(&agent.client().await, start(&["head", "-c", "1073741824", "/dev/zero"])).await;
    let (mut bytes, mut exit) = (0, None);
    while let Some(message) = call.next().await {
        match message {
            ResponseMessage::Stdout(data) => {
                assert!(data.len() <= 64 * 1024);
                bytes += data.len();
            }
            ResponseMessage::Exit(code) => exit = Some(code),
            _ => {}
        }
    }
    assert_eq!((bytes, exit), (1 << 30, Some(0)));
    assert!(agent.memory().0 < 16 * 1024, "{} KiB", agent.memory().0);
}

#[tokio::test]
async fn unread_output_blocks_the_command() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    let before = agent.memory().0;
    let mut calls = vec![];
    for _ in 0..50 {
        calls.push(Call::start(&client, start(&["yes"])).await);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = agent.memory().0.saturating_sub(before);
    assert!(grown < 50 * 512, "{grown} KiB for 50 unread commands");
    // Their output is not lost.
    for call in &mut calls {
        call.next().await;
        assert!(matches!(call.next().await, Some(ResponseMessage::Stdout(_))));
    }
}

#[tokio::test]
async fn characters_are_not_split() {
    let agent = Agent::start(&[]);
    let client = agent.client().await;
    std::fs::write(agent.directory.join("text"), format!("x{}", "ä€𝄞".repeat(100_000))).unwrap();
    let ended = run(&client, start(&["cat", "text"])).await;
    assert_eq!(ended.stdout.len(), 900_001);
    assert!(ended.frames.len() > 10);
    for frame in &ended.frames {
        assert!(std::str::from_utf8(frame).is_ok(), "{:x?}", &frame[frame.len() - 4..]);
    }
    // Bytes that are not text arrive as well, to the last one.
    let ended = run(
        &client,
        shell(r"head -c 4095 /dev/zero; printf '\303'; sleep 0.5; head -c 65535 /dev/zero; printf '\342'"),
    )
    .await;
    assert_eq!(ended.stdout.len(), 4096 + 65536);
    assert_eq!((ended.stdout[4095], ended.stdout.last()), (0o303, Some(&0o342)));
}
