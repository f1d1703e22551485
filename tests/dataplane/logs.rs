//! StreamLogs with a kubelet that closes connections at any time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;

use super::support::*;
use sandbox_operator::proto::sandbox as pb;

/// A log on a node.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lines: Vec<String>,
    ended: bool,
    /// Bytes after which each connection is closed.
    closes_after: Option<usize>,
    opened: u32,
}

impl Log {
    fn new(world: &World) -> Log {
        let log = Log::default();
        let kubelet = log.clone();
        world.set_kubelet(Arc::new(move |query| kubelet.answer(query)));
        log
    }

    /// A line at a time in milliseconds.
    fn say(&self, at: u64, text: &str) {
        let line = format!("2026-11-23T13:00:{:02}.{:03}000000Z {text}\n", at / 1000, at % 1000);
        self.0.lock().unwrap().lines.push(line);
    }

    fn end(&self, world: &World) {
        self.0.lock().unwrap().ended = true;
        world.container_has_ended();
    }

    fn text(&self) -> String {
        self.0
            .lock()
            .unwrap()
            .lines
            .iter()
            .map(|l| l.split_once(' ').unwrap().1)
            .collect()
    }

    fn answer(
        &self,
        query: &HashMap<String, String>,
    ) -> std::pin::Pin<Box<dyn futures::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send>> {
        assert_eq!(query.get("timestamps").map(String::as_str), Some("true"));
        let since = query
            .get("sinceTime")
            .map(|s| s.trim_end_matches('Z').to_owned())
            .unwrap_or_default();
        let follow = query.contains_key("follow");
        let mut kept = self.0.lock().unwrap();
        if let Some(bytes) = query.get("limitBytes") {
            let first = kept
                .lines
                .first()
                .map(|line| line.bytes().take(bytes.parse().unwrap()).collect());
            return parts(vec![Ok(first.unwrap_or_default())]);
        }
        kept.opened += 1;
        let (part, from) = match query.get("tailLines") {
            Some(entries) => last_entries(&kept.lines, entries.parse().unwrap()),
            None => (None, 0),
        };
        let (log, room) = (self.clone(), kept.closes_after.unwrap_or(usize::MAX));
        Box::pin(futures::stream::unfold(
            (part, from, room),
            move |(part, mut next, mut room)| {
                let (log, since) = (log.clone(), since.clone());
                async move {
                    if let Some(part) = part {
                        return Some((Ok(part.into_bytes()), (None, next, room)));
                    }
                    loop {
                        {
                            let kept = log.0.lock().unwrap();
                            while let Some(line) = kept.lines.get(next).filter(|_| room > 0) {
                                next += 1;
                                if line.split('Z').next().unwrap() >= since.as_str() {
                                    let piece = line.as_bytes()[..line.len().min(room)].to_vec();
                                    room -= piece.len();
                                    return Some((Ok(piece), (None, next, room)));
                                }
                            }
                            if !follow || kept.ended || room == 0 {
                                return None;
                            }
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            },
        ))
    }
}

/// Where the last entries of a log begin: a runtime makes an entry of each 16 KiB of a line. What there is of a line
/// that is cut looks like one.
fn last_entries(lines: &[String], mut entries: usize) -> (Option<String>, usize) {
    for (i, line) in lines.iter().enumerate().rev() {
        let (time, text) = line.split_once(' ').unwrap();
        let of_line = text.len().div_ceil(16 << 10);
        if of_line > entries {
            let part = (entries > 0).then(|| format!("{time} {}", &text[(of_line - entries) * (16 << 10)..]));
            return (part, i + 1);
        }
        entries -= of_line;
    }
    (None, 0)
}

fn request(follow: bool) -> pb::StreamLogsRequest {
    pb::StreamLogsRequest {
        sandbox_id: "box".into(),
        follow,
        ..pb::StreamLogsRequest::default()
    }
}

fn resume(session: &str, offset: u64) -> pb::StreamLogsRequest {
    pb::StreamLogsRequest {
        resume_log_session_id: session.into(),
        resume_log_offset: offset,
        ..request(true)
    }
}

/// All entries of a stream, within a time limit.
async fn entries(client: &mut Client, request: pb::StreamLogsRequest) -> Result<Vec<pb::LogEntry>, tonic::Status> {
    let all = async {
        let (mut stream, mut all) = (client.stream_logs(request).await?.into_inner(), vec![]);
        while let Some(entry) = stream.message().await? {
            all.push(entry);
        }
        Ok(all)
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap()
}

/// The text of a stream that ends without an error. Checks the offsets.
async fn text(client: &mut Client, request: pb::StreamLogsRequest) -> String {
    let mut offset = request.resume_log_offset;
    let mut text = vec![];
    for entry in entries(client, request).await.unwrap() {
        assert_eq!(entry.error, None);
        offset += entry.data.len() as u64;
        assert_eq!(entry.next_log_offset, offset);
        text.extend_from_slice(&entry.data);
    }
    String::from_utf8(text).unwrap()
}

/// The code of a stream that consists of one error.
async fn refused(client: &mut Client, request: pb::StreamLogsRequest) -> String {
    let entries = entries(client, request).await.unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].error.clone().unwrap().code
}

#[tokio::test]
async fn requested_parts_of_a_log_are_delivered() {
    let world = World::new();
    let log = Log::new(&world);
    for (at, line) in [
        (1000, "one"),
        (1500, "two"),
        (1500, "three"),
        (2000, ""),
        (2500, "five"),
    ] {
        log.say(at, line);
    }
    let mut client = Replica::new(&world).await.client;
    assert_eq!(text(&mut client, request(false)).await, log.text());
    let tail = |tail_lines| pb::StreamLogsRequest {
        tail_lines,
        ..request(false)
    };
    assert_eq!(text(&mut client, tail(3)).await, "three\n\nfive\n");
    assert_eq!(text(&mut client, tail(50)).await, log.text());
    let since = pb::StreamLogsRequest {
        since_time: Some(prost_types::Timestamp {
            seconds: 1_795_438_801,
            nanos: 500_000_001,
        }),
        timestamps: true,
        ..request(false)
    };
    assert_eq!(
        text(&mut client, since).await,
        "2026-11-23T13:00:02.000000000Z \n2026-11-23T13:00:02.500000000Z five\n"
    );
    log.end(&world);
    assert_eq!(
        text(&mut client, request(true)).await,
        log.text(),
        "following what has ended ends"
    );
}

#[tokio::test]
async fn a_follow_outlives_connections_and_ends_with_its_container() {
    let world = World::new();
    world.container_has_not_started();
    let log = Log::new(&world);
    log.0.lock().unwrap().closes_after = Some(333);
    let mut client = Replica::new(&world).await.client;
    let writer = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.container_runs();
        for i in 0..40 {
            // Several lines at one time, some out of order, some with more than one byte to a character.
            log.say(
                [i * 700, (i / 2) * 1400, i * 700 - (i % 3) * 200][(i % 3) as usize],
                &format!("line {i} é€😀"),
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        log.end(&world);
    };
    let (followed, ()) = tokio::join!(text(&mut client, request(true)), writer);
    assert_eq!(followed, log.text());
    assert!(log.0.lock().unwrap().opened > 5, "or nothing was tested");
}

#[tokio::test]
async fn any_replica_resumes_at_any_offset() {
    let world = World::new();
    let log = Log::new(&world);
    for i in 0..8 {
        log.say(1000 + i / 3 * 900, &format!("{}é", "x".repeat(i as usize)));
    }
    log.end(&world);
    for (tail_lines, timestamps) in [(0, false), (0, true), (4, false)] {
        let fresh = pb::StreamLogsRequest {
            tail_lines,
            timestamps,
            ..request(true)
        };
        let first = entries(&mut Replica::new(&world).await.client, fresh).await.unwrap();
        let session = first[0].log_session_id.clone();
        let whole: Vec<u8> = first.iter().flat_map(|e| e.data.to_vec()).collect();
        let mut other = Replica::new(&world).await.client;
        for offset in 0..=whole.len() {
            let rest = entries(&mut other, resume(&session, offset as u64)).await.unwrap();
            let bytes: Vec<u8> = rest.iter().flat_map(|e| e.data.to_vec()).collect();
            assert_eq!(bytes, whole[offset..], "offset {offset}");
            assert!(rest.iter().all(|e| e.log_session_id == session));
        }
        assert_eq!(
            refused(&mut other, resume(&session, whole.len() as u64 + 1)).await,
            "INVALID_RESUME_OFFSET"
        );
    }
}

#[tokio::test]
async fn a_session_that_cannot_be_resumed_is_an_error_in_the_stream() {
    let world = World::new();
    let log = Log::new(&world);
    log.say(1000, "one");
    log.say(9000, "two");
    let mut client = Replica::new(&world).await.client;
    let session = entries(&mut client, request(false)).await.unwrap()[0]
        .log_session_id
        .clone();
    assert_eq!(refused(&mut client, resume("garbage", 1)).await, "SESSION_NOT_FOUND");
    assert_eq!(
        refused(&mut client, resume(&session, 1000)).await,
        "INVALID_RESUME_OFFSET",
        "also while it runs"
    );
    log.0.lock().unwrap().lines.remove(0);
    assert_eq!(refused(&mut client, resume(&session, 4)).await, "STREAM_TRUNCATED");
    log.0.lock().unwrap().lines.clear();
    assert_eq!(refused(&mut client, resume(&session, 4)).await, "STREAM_TRUNCATED");
    world.pod_is_deleted();
    assert_eq!(
        refused(&mut client, resume(&session, 4)).await,
        "STREAM_TRUNCATED",
        "the log went with the pod"
    );
    world.another_pod();
    assert_eq!(refused(&mut client, resume(&session, 4)).await, "SESSION_NOT_FOUND");
}

#[tokio::test]
async fn logs_of_a_container_that_has_not_started_are_awaited_or_refused() {
    let world = World::new();
    let log = Log::new(&world);
    let mut replica = Replica::new(&world).await;
    world.container_has_not_started();
    let status = entries(&mut replica.client, request(false)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).0.as_str()),
        (Code::FailedPrecondition, "CWSANDBOX_SANDBOX_NOT_RUNNING")
    );
    let other = pb::StreamLogsRequest {
        container: "other".into(),
        ..request(true)
    };
    assert_eq!(
        entries(&mut replica.client, other).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    world.container_runs();
    log.say(1000, "one");
    let mut stream = replica.client.stream_logs(request(true)).await.unwrap().into_inner();
    assert_eq!(&stream.message().await.unwrap().unwrap().data[..], b"one\n");
    replica.draining.cancel();
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).1), (Code::Unavailable, true));
}

#[tokio::test]
async fn a_failing_kubelet_is_retried_and_then_reported() {
    let world = World::new();
    world.set_kubelet(Arc::new(|_| {
        let failed = Err(std::io::Error::other("connection reset"));
        parts(vec![
            Ok(b"2026-11-23T13:00:01Z on\n".to_vec()),
            Ok(b"2026-11-23T13:00:02Z and".to_vec()),
            failed,
        ])
    }));
    let mut client = Replica::new(&world).await.client;
    let entries = entries(&mut client, request(true)).await.unwrap();
    let (last, before) = entries.split_last().unwrap();
    let text: Vec<u8> = before.iter().flat_map(|e| e.data.to_vec()).collect();
    assert_eq!(text, b"on\nand", "once");
    assert_eq!(last.error.clone().unwrap().code, "STREAM_INTERRUPTED");
    let status = self::entries(&mut client, request(false)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn the_requested_number_of_last_lines_is_delivered_however_long_they_are() {
    let world = World::new();
    let log = Log::new(&world);
    let line = |i: u64| format!("{i}{}", "x".repeat(160_000));
    (0..20).for_each(|i| log.say(i, &line(i)));
    log.end(&world);
    let mut client = Replica::new(&world).await.client;
    for lines in [1, 7, 10, 15, 20, 30] {
        let asked = pb::StreamLogsRequest {
            tail_lines: lines,
            ..request(false)
        };
        let expected: String = (20_u64.saturating_sub(lines as u64)..20)
            .map(|i| line(i) + "\n")
            .collect();
        assert!(text(&mut client, asked).await == expected, "{lines}");
    }
}

#[tokio::test]
async fn a_long_session_is_resumed_after_its_beginning_was_rotated() {
    let world = World::new();
    let log = Log::new(&world);
    (0..5_000).for_each(|i| log.say(i, &format!("{i:04}{}", "x".repeat(1_000))));
    log.end(&world);
    let mut client = Replica::new(&world).await.client;
    let all = entries(&mut client, request(true)).await.unwrap();
    let whole = log.text();
    let (first, last) = (&all[0], &all[all.len() - 2]);
    assert!(
        text(&mut client, resume(&last.log_session_id, 7)).await == whole[7..],
        "an id is good for all of its session"
    );
    log.0.lock().unwrap().lines.drain(..3_000);
    assert_ne!(first.log_session_id, last.log_session_id);
    let rest = text(&mut client, resume(&last.log_session_id, last.next_log_offset)).await;
    assert!(rest == whole[usize::try_from(last.next_log_offset).unwrap()..]);
    assert_eq!(
        refused(&mut client, resume(&first.log_session_id, first.next_log_offset)).await,
        "STREAM_TRUNCATED"
    );
    assert_eq!(
        refused(&mut client, resume(&last.log_session_id, 1)).await,
        "STREAM_TRUNCATED"
    );
}
