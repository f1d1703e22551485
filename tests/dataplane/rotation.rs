//! StreamLogs while the kubelet rotates the log. The stand-in follows a log as kubelets do (`ReadLogs` in
//! k8s.io/cri-client).

use jiff::{SignedDuration, Timestamp};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

use super::support::*;
use sandbox_operator::proto::sandbox as pb;

type Body = Pin<Box<dyn futures::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send>>;

/// A log of which only the newest file can be opened.
#[derive(Clone)]
struct Node(Arc<Mutex<State>>);

struct State {
    files: Vec<Vec<String>>,
    now: Timestamp,
    lines: usize,
    text: String,
    ended: bool,
    /// The file system cannot be read.
    broken: bool,
    /// Messages that fit into the buffers on the way: an unread connection keeps the kubelet from reading on only when
    /// they are full.
    buffers: usize,
}

/// The kubelet's place in a file.
struct Place {
    file: usize,
    line: usize,
    /// Files that were created before the kubelet watched the folder, which it does from its first end of a file on, or
    /// that it has seen being created.
    seen: Option<usize>,
}

impl Node {
    fn new(world: &World) -> Node {
        let node = Node(Arc::new(Mutex::new(State {
            files: vec![vec![]],
            now: "2026-11-28T14:00:00Z".parse().unwrap(),
            lines: 0,
            text: String::new(),
            ended: false,
            broken: false,
            buffers: 0,
        })));
        let kubelet = node.clone();
        world.set_kubelet(Arc::new(move |query| kubelet.answer(query)));
        node
    }

    fn write(&self, lines: usize) {
        let newest = self.0.lock().unwrap().files.len() - 1;
        self.write_to(newest, lines);
    }

    fn write_to(&self, file: usize, lines: usize) {
        let mut state = self.0.lock().unwrap();
        for _ in 0..lines {
            let text = format!("{:07} {}\n", state.lines, "x".repeat(1_000));
            // Far enough from each other that only the checks can tell that no file is missing.
            state.now += SignedDuration::from_millis(30);
            let line = format!("{:.9} {text}", state.now);
            state.files[file].push(line);
            state.text.push_str(&text);
            state.lines += 1;
        }
    }

    fn rotate(&self) {
        self.0.lock().unwrap().files.push(vec![]);
    }

    fn end(&self, world: &World) {
        self.0.lock().unwrap().ended = true;
        world.container_has_ended();
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().text.clone()
    }

    fn answer(&self, query: &HashMap<String, String>) -> Body {
        let state = self.0.lock().unwrap();
        let newest = state.files.len() - 1;
        if let Some(bytes) = query.get("limitBytes") {
            let mut first = state.files[newest].first().cloned().unwrap_or_default().into_bytes();
            first.truncate(bytes.parse().unwrap());
            let broken = b"unable to retrieve container logs".to_vec();
            return parts(vec![Ok(if state.broken { broken } else { first })]);
        }
        let since = query
            .get("sinceTime")
            .map(|s| s.trim_end_matches('Z').to_owned())
            .unwrap_or_default();
        if !query.contains_key("follow") {
            let lines = state.files[newest]
                .iter()
                .filter(|line| line.as_str() >= since.as_str());
            return parts(vec![Ok(lines.cloned().collect::<String>().into_bytes())]);
        }
        let followed = self.clone().follow(newest, since);
        if state.buffers == 0 {
            return followed;
        }
        let (sent, buffer) = tokio::sync::mpsc::channel(state.buffers);
        tokio::spawn(async move {
            use futures::StreamExt;
            let mut followed = followed;
            while let Some(bytes) = followed.next().await {
                if sent.send(bytes).await.is_err() {
                    return;
                }
            }
        });
        Box::pin(futures::stream::unfold(buffer, |mut buffer| async move {
            Some((buffer.recv().await?, buffer))
        }))
    }

    fn follow(self, file: usize, since: String) -> Body {
        let place = Place {
            file,
            line: 0,
            seen: None,
        };
        Box::pin(futures::stream::unfold(
            (self, since, place),
            |(node, since, mut place)| async move {
                loop {
                    let bytes = node.step(&mut place, &since)?;
                    if !bytes.is_empty() {
                        return Some((Ok(bytes), (node, since, place)));
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            },
        ))
    }

    /// What the kubelet reads next; nothing at the end of the file, `None` at the end of the log.
    fn step(&self, place: &mut Place, since: &str) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let file = &state.files[place.file];
        let mut bytes = vec![];
        while bytes.len() < 32 << 10
            && let Some(line) = file.get(place.line)
        {
            place.line += 1;
            if line.as_str() >= since {
                bytes.extend_from_slice(line.as_bytes());
            }
        }
        if bytes.is_empty() && place.line == file.len() {
            let created = state.files.len();
            match place.seen {
                None => place.seen = Some(created),
                Some(seen) if created > seen => {
                    (place.file, place.line, place.seen) = (created - 1, 0, Some(seen + 1));
                }
                Some(_) if state.ended => return None,
                Some(_) => {}
            }
        }
        Some(bytes)
    }
}

/// What a caller gets of a log that is followed from its beginning, and the code of the error with which it ends. Reads
/// nothing before `begin`.
async fn follow(client: &mut Client, begin: impl Future<Output = ()>) -> (String, Option<String>) {
    let request = pb::StreamLogsRequest {
        sandbox_id: "box".into(),
        follow: true,
        ..pb::StreamLogsRequest::default()
    };
    let all = async {
        let mut stream = client.stream_logs(request).await.unwrap().into_inner();
        begin.await;
        let mut text = vec![];
        while let Some(entry) = stream.message().await.unwrap() {
            text.extend_from_slice(&entry.data);
            assert!(entry.error.is_some() || entry.next_log_offset == text.len() as u64);
            if let Some(error) = entry.error {
                assert!(
                    stream.message().await.unwrap().is_none(),
                    "nothing comes after an error"
                );
                return (String::from_utf8(text).unwrap(), Some(error.code));
            }
        }
        (String::from_utf8(text).unwrap(), None)
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap()
}

fn seconds(n: f64) -> tokio::time::Sleep {
    sleep(Duration::from_secs_f64(n))
}

/// Asserts it without printing megabytes.
fn assert_same(found: &str, expected: &str) {
    let (found, expected): (VecDeque<_>, VecDeque<_>) = (found.lines().collect(), expected.lines().collect());
    let different = found.iter().zip(&expected).position(|(a, b)| a != b);
    let at = different.map(|i| (&found[i][..7], &expected[i][..7]));
    assert_eq!((found.len(), at), (expected.len(), None));
}

#[tokio::test]
async fn every_line_is_delivered_once_through_rotations() {
    let world = World::new();
    let node = Node::new(&world);
    let mut client = Replica::new(&world).await.client;
    let writer = async {
        for file in 0..2 {
            node.write(2_000);
            seconds(0.5).await;
            node.write(1);
            seconds(1.0).await;
            node.rotate();
            // The runtime goes on in the old file after it has created the next one. A kubelet that reads along misses
            // that.
            seconds(0.05).await;
            node.write_to(file, 3);
            node.write(1);
            seconds(3.0).await;
        }
        node.write(500);
        seconds(0.5).await;
        node.end(&world);
    };
    let ((text, error), ()) = tokio::join!(follow(&mut client, async {}), writer);
    assert_same(&text, &node.text());
    assert_eq!(error, None);
}

#[tokio::test]
async fn a_caller_that_does_not_read_for_some_files_gets_every_line() {
    let world = World::new();
    let node = Node::new(&world);
    let mut client = Replica::new(&world).await.client;
    let writer = async {
        for _ in 0..3 {
            node.write(3_000);
            seconds(1.5).await;
            node.rotate();
        }
        node.write(10);
        seconds(1.5).await;
        node.end(&world);
    };
    let (text, error) = follow(&mut client, writer).await;
    assert_same(&text, &node.text());
    assert_eq!(error, None);
}

#[tokio::test]
async fn lines_that_cannot_be_had_are_an_error_before_any_later_line() {
    let world = World::new();
    let node = Node::new(&world);
    node.0.lock().unwrap().buffers = 1_000_000;
    let mut client = Replica::new(&world).await.client;
    let writer = async {
        node.write(2_000);
        seconds(1.0).await;
        let before = node.text();
        node.rotate();
        seconds(0.1).await;
        node.write_to(0, 3);
        node.write(3_000);
        before
    };
    let ((text, error), before) = tokio::join!(follow(&mut client, async {}), writer);
    assert_same(&text, &before);
    assert_eq!(error.as_deref(), Some("STREAM_TRUNCATED"));
}

#[tokio::test]
async fn a_kubelet_that_reads_ahead_until_the_buffers_are_full_loses_nothing() {
    let world = World::new();
    let node = Node::new(&world);
    node.0.lock().unwrap().buffers = 64;
    let mut client = Replica::new(&world).await.client;
    let writer = async {
        node.write(2_000);
        // It has read to the end and sees each next file.
        seconds(1.0).await;
        node.write(10_000);
        seconds(2.0).await;
        node.rotate();
        seconds(0.05).await;
        node.write_to(0, 3);
        node.write(100);
        seconds(4.0).await;
        node.end(&world);
    };
    let ((text, error), ()) = tokio::join!(follow(&mut client, async {}), writer);
    assert_same(&text, &node.text());
    assert_eq!(error, None);
}

#[tokio::test]
async fn a_file_that_may_have_been_missed_is_an_error() {
    let world = World::new();
    let node = Node::new(&world);
    let mut client = Replica::new(&world).await.client;
    let first = Mutex::new(String::new());
    let writer = async {
        node.write(3_000);
        *first.lock().unwrap() = node.text();
        seconds(1.5).await;
        node.0.lock().unwrap().broken = true;
        for _ in 0..2 {
            node.rotate();
            node.write(3_000);
            seconds(2.5).await;
        }
        node.0.lock().unwrap().broken = false;
        seconds(1.5).await;
    };
    let (text, error) = follow(&mut client, writer).await;
    assert_same(&text, &first.lock().unwrap());
    assert_eq!(error.as_deref(), Some("STREAM_TRUNCATED"));
}

#[tokio::test]
async fn a_rotation_after_the_last_line_is_no_loss() {
    for more in [0, 1] {
        let world = World::new();
        let node = Node::new(&world);
        let mut client = Replica::new(&world).await.client;
        let writer = async {
            node.write(2_000);
            seconds(1.0).await;
            node.rotate();
            seconds(4.0).await;
            node.write(more);
            seconds(0.5).await;
            node.end(&world);
        };
        let ((text, error), ()) = tokio::join!(follow(&mut client, async {}), writer);
        assert_same(&text, &node.text());
        assert_eq!(error, None);
    }
}
