use super::*;
use tokio_tungstenite::tungstenite::protocol::Role;

type Socket = WebSocketStream<DuplexStream>;

/// The API server's end of the connection, and our end of the stream.
async fn open(can_close: bool) -> (Socket, DuplexStream, StartupDiagnostics) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let diagnostics = StartupDiagnostics::default();
    let client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
    tokio::spawn(pump(client, theirs, can_close, diagnostics.clone()));
    (
        WebSocketStream::from_raw_socket(far, Role::Server, None).await,
        ours,
        diagnostics,
    )
}

async fn next(server: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match server.next().await? {
            Ok(Message::Binary(frame)) => return Some(frame.to_vec()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

fn frame(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

#[tokio::test]
async fn bytes_are_copied_both_ways_and_the_end_of_input_is_sent() {
    let (mut server, mut ours, diagnostics) = open(true).await;
    ours.write_all(b"hello").await.unwrap();
    assert_eq!(next(&mut server).await.unwrap(), b"\0hello");
    server.send(frame(STDOUT, b"out")).await.unwrap();
    server.send(frame(STDERR, b"war\nning")).await.unwrap();
    let mut buffer = [0; 3];
    ours.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"out");
    ours.shutdown().await.unwrap();
    assert_eq!(next(&mut server).await.unwrap(), [CLOSE, STDIN]);
    server.send(frame(STDOUT, b"last")).await.unwrap();
    server.send(frame(STATUS, br#"{"status":"Success"}"#)).await.unwrap();
    let mut rest = vec![];
    ours.read_to_end(&mut rest).await.unwrap();
    assert_eq!(
        (rest.as_slice(), diagnostics.text().as_deref()),
        (&b"last"[..], Some("warning"))
    );
}

#[tokio::test]
async fn a_lost_connection_ends_the_stream() {
    let (server, mut ours, diagnostics) = open(true).await;
    drop(server);
    assert_eq!(
        tokio::time::timeout(EXIT_TIMEOUT / 2, ours.read(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    assert_eq!(diagnostics.text(), None);
}

#[tokio::test]
async fn the_reason_of_a_failed_start_is_kept() {
    let (mut server, mut ours, diagnostics) = open(true).await;
    server
        .send(frame(STATUS, br#"{"status":"Failure","message":"no such file"}"#))
        .await
        .unwrap();
    assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(diagnostics.text().as_deref(), Some("no such file"));
    diagnostics.add(&"x".repeat(5000));
    assert_eq!(diagnostics.text().unwrap().len(), MAX_DIAGNOSTICS);
}

#[tokio::test]
async fn a_dropped_client_ends_the_connection() {
    for can_close in [true, false] {
        let (mut server, ours, _) = open(can_close).await;
        drop(ours);
        let last = tokio::time::timeout(EXIT_TIMEOUT / 2, next(&mut server)).await.unwrap();
        assert_eq!(last, can_close.then(|| vec![CLOSE, STDIN]));
    }
}

#[tokio::test]
async fn output_waits_for_its_reader_while_input_continues() {
    let (mut server, mut ours, _) = open(true).await;
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 64
            && tokio::time::timeout(Duration::from_millis(300), server.send(frame(STDOUT, &[7; FRAME])))
                .await
                .is_ok()
        {
            sent += 1;
        }
        (server, sent)
    });
    let (mut server, sent) = flood.await.unwrap();
    assert!(sent < 64, "2 MiB cannot be in flight");
    ours.write_all(b"still").await.unwrap();
    assert_eq!(next(&mut server).await.unwrap(), b"\0still");
}
