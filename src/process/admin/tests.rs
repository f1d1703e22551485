use super::*;
use axum::routing::get;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> SocketAddr {
    let listener = net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/metrics", get(|| async { "x".repeat(64 << 20) }));
    tokio::spawn(serve(listener, router));
    address
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All that arrives until the server closes the connection.
async fn read(mut stream: TcpStream) -> Vec<u8> {
    let mut all = vec![];
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut all).await;
    all
}

#[tokio::test]
async fn connections_with_half_a_request_do_not_keep_a_probe_out() {
    let address = start().await;
    let mut idle = vec![];
    for _ in 0..2 * MAX_CONNECTIONS {
        idle.push(send(address, "GET /healthz HTTP/1.1\r\nhost:").await);
    }
    let answer = read(send(address, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await).await;
    assert!(
        answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"ok"),
        "{answer:?}"
    );
    // The oldest was closed for a newer one.
    read(idle.swap_remove(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_whole_request_is_closed() {
    let address = start().await;
    for text in ["", "GET /healthz HTTP/1.1\r\nhost:"] {
        let started = tokio::time::Instant::now();
        let answer = read(send(address, text).await).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        assert!(started.elapsed() <= CONNECTION_TIMEOUT, "{text:?}");
    }
}

#[tokio::test]
async fn large_headers_are_refused() {
    let address = start().await;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", "x".repeat(2 * MAX_BUFFER));
    assert!(!read(send(address, &request).await).await.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_response_is_disconnected() {
    let address = start().await;
    let stream = send(address, "GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n").await;
    // The response does not fit into the buffers of the sockets.
    stream.readable().await.unwrap();
    tokio::time::sleep(2 * CONNECTION_TIMEOUT).await;
    assert!(read(stream).await.len() < 64 << 20);
}
