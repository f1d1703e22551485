use super::*;
use crate::gateway::config;
use crate::gateway::edge::limits::Limits;
use std::time::Duration;

#[test]
fn lengths_are_found_wherever_the_data_is_split() {
    let mut stream = vec![];
    for length in [0_u32, 3, 300, 1] {
        stream.push(0);
        stream.extend(length.to_be_bytes());
        stream.extend(vec![0xff; length as usize]);
    }
    for chunk in [1, 2, 5, 7, 100, stream.len()] {
        let mut lengths = Lengths::default();
        let largest = stream.chunks(chunk).filter_map(|c| lengths.announced(c)).max();
        assert_eq!((largest, lengths.have, lengths.left), (Some(300), 0, 0), "{chunk}");
    }
    assert_eq!(
        Lengths::default().announced(&[0, 0xff, 0xff, 0xff, 0xff]),
        Some(u32::MAX)
    );
    assert_eq!(Lengths::default().announced(&[0, 0, 0, 0]), None);
}

struct Cancelled;

impl http_body::Body for Cancelled {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(Some(Err(Status::cancelled("by the client"))))
    }
}

async fn is_aborted(body: Body) -> bool {
    let limits = Limits::new(&config::Limits::default());
    let aborted = Aborted::default();
    let admission = limits.admit("a", "t", true).unwrap();
    let mut metered = MeteredBody::new(body, 100, admission.budget, aborted.clone());
    while let Some(Ok(_)) = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut metered), cx)).await {}
    aborted.is_set()
}

#[tokio::test]
async fn a_cancelled_body_is_aborted() {
    assert!(!is_aborted(Body::empty()).await);
    assert!(is_aborted(Body::new(Cancelled)).await);
}

/// Yields its frames, and then is pending for ever.
struct Stalling(std::collections::VecDeque<Bytes>);

impl http_body::Body for Stalling {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0
            .pop_front()
            .map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

/// Bytes reserved for a message of this size of which `arrived` bytes have come, and how the call ends if no more do.
async fn stalled_after(size: usize, arrived: usize) -> (usize, Option<Code>) {
    let total = 8 << 20;
    let limits = Limits::new(&config::Limits {
        large_body_bytes: total,
        ..Default::default()
    });
    let mut message = vec![0];
    message.extend(u32::try_from(size).unwrap().to_be_bytes());
    message.extend(vec![0; arrived]);
    let frames = message.chunks(16 << 10).map(Bytes::copy_from_slice).collect();
    let admission = limits.admit("a", "t", false).unwrap();
    let mut metered = MeteredBody::new(
        Body::new(Stalling(frames)),
        2 << 20,
        admission.budget,
        Aborted::default(),
    );
    let mut next = async || std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut metered), cx)).await;
    while let Ok(frame) = tokio::time::timeout(Duration::from_secs(1), next()).await {
        frame.unwrap().unwrap();
    }
    let reserved = total as usize - limits.free_body_bytes();
    let end = tokio::time::timeout(2 * transfer_time(0), next()).await;
    (reserved, end.ok().map(|end| end.unwrap().unwrap_err().code()))
}

#[tokio::test(start_paused = true)]
async fn a_large_message_reserves_memory_once_a_part_has_arrived_and_must_not_stall_then() {
    assert_eq!(stalled_after(1 << 20, 100).await, (0, None), "only announced");
    assert_eq!(
        stalled_after(1 << 20, SMALL_BODY + 1).await,
        (1 << 20, Some(Code::DeadlineExceeded))
    );
    assert_eq!(
        stalled_after(2 << 20, LARGE_ARRIVED).await,
        (0, None),
        "too little of it"
    );
    assert_eq!(
        stalled_after(2 << 20, LARGE_ARRIVED + 1).await,
        (2 << 20, Some(Code::DeadlineExceeded))
    );
    assert_eq!(stalled_after(1 << 20, 1 << 20).await, (1 << 20, None), "it is complete");
}

#[tokio::test(start_paused = true)]
async fn messages_above_16_kib_reserve_memory() {
    assert_eq!(stalled_after(SMALL_BODY, SMALL_BODY).await, (0, None));
    assert_eq!(stalled_after(100_000, 100_000).await, (100_000, None));
}
