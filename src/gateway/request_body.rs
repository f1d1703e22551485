//! Bodies of requests: what comes in is weighed before it is kept.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::{Code, Request, Status};

use super::error::{reason, status};
use super::limits::Room;

/// Longest time in which a large message must come in, once it has room.
const UPLOAD: Duration = Duration::from_secs(120);
/// How long a large message may stand still. Beyond that it must come at [`RATE`]: others wait for the room that it has.
const STILL: Duration = Duration::from_secs(10);
/// Bytes per second.
const RATE: usize = 256 << 10;

/// In a request's extensions: whether its body ended because the call was broken off.
#[derive(Clone, Debug, Default)]
pub struct BrokenOff(Arc<AtomicBool>);

impl BrokenOff {
    /// That of a request.
    pub fn of<T>(request: &Request<T>) -> BrokenOff {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Whether it is so. To be asked when the body has ended.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// For room, and what comes when there is.
type Wait = (BoxFuture<'static, Result<(), Status>>, Frame<Bytes>);

/// A request's body. Sizes are announced before each message, so that too large ones end before they are read. Large ones wait for room,
/// once more of them has come than small ones have, while HTTP/2's flow control holds the sender back.
pub struct Weighed {
    body: Body,
    lengths: Lengths,
    largest: usize,
    room: Room,
    broken: BrokenOff,
    waits: Option<Wait>,
    incoming: Option<Incoming>,
}

/// A message that has begun to come in.
struct Incoming {
    bytes: usize,
    /// It has its room, or needs none.
    placed: bool,
    since: Instant,
    /// When it is too late for the rest.
    until: Pin<Box<Sleep>>,
}

impl Incoming {
    fn new(bytes: usize) -> Incoming {
        Incoming {
            bytes,
            placed: bytes <= Room::SMALL,
            since: Instant::now(),
            until: Box::pin(tokio::time::sleep(UPLOAD)),
        }
    }

    /// Its time begins anew with its room.
    fn place(&mut self) {
        (self.placed, self.since) = (true, Instant::now());
        self.until.as_mut().reset(self.since + STILL);
    }

    /// What has come of it earns it the time for more.
    fn progress(&mut self, arrived: usize) {
        if self.placed && self.bytes > Room::SMALL {
            let earned = Duration::from_secs((arrived / RATE) as u64);
            self.until.as_mut().reset(self.since + (STILL + earned).min(UPLOAD));
        }
    }
}

impl Weighed {
    /// Weighs `body`: no message above `largest` bytes.
    pub fn new(body: Body, largest: usize, room: Room, broken: BrokenOff) -> Weighed {
        Weighed {
            body,
            lengths: Lengths::default(),
            largest,
            room,
            broken,
            waits: None,
            incoming: None,
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((room, _)) = &mut self.waits else {
            return Poll::Ready(None);
        };
        let room = ready!(room.poll_unpin(cx));
        match &mut self.incoming {
            Some(incoming) if self.lengths.left > 0 => incoming.place(),
            _ => self.incoming = None,
        }
        Poll::Ready(self.waits.take().map(|(_, frame)| room.map(|()| frame)))
    }

    /// For how many bytes there must be room before `data` is passed on.
    fn weigh(&mut self, data: &[u8]) -> Result<Option<usize>, Status> {
        let announced = self.lengths.announced(data).unwrap_or_default() as usize;
        if announced > self.largest {
            let text = format!("a message of {announced} bytes; this method takes {} at most", self.largest);
            return Err(status(Code::ResourceExhausted, reason::INVALID_REQUEST, text));
        }
        let left = self.lengths.left;
        if announced > 0 {
            // The one before it was passed on.
            self.room.request_is_gone();
            self.incoming = (left > 0).then(|| Incoming::new(self.lengths.last));
        }
        let Some(incoming) = &mut self.incoming else {
            return Ok(None);
        };
        let arrived = incoming.bytes - left;
        if !incoming.placed && arrived > Room::SMALL {
            return Ok(Some(incoming.bytes));
        }
        incoming.progress(arrived);
        if left == 0 {
            self.incoming = None;
        }
        Ok(None)
    }
}

impl http_body::Body for Weighed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = ready!(self.poll_room(cx)) {
            return Poll::Ready(Some(frame));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(next) = polled else {
            if let Some(incoming) = &mut self.incoming {
                ready!(incoming.until.poll_unpin(cx));
                let text = "the body of the request took too long";
                return Poll::Ready(Some(Err(status(Code::DeadlineExceeded, reason::INVALID_REQUEST, text))));
            }
            return Poll::Pending;
        };
        let Some(Ok(frame)) = next else {
            // tonic takes what was cancelled for ended. What ends without an error may still not be at the end of its stream.
            if next.is_some() || !self.body.is_end_stream() {
                self.broken.0.store(true, Ordering::Release);
            }
            return Poll::Ready(next);
        };
        let room = match frame.data_ref() {
            Some(data) => self.weigh(data),
            None => Ok(None),
        };
        match room {
            Err(status) => Poll::Ready(Some(Err(status))),
            Ok(None) => Poll::Ready(Some(Ok(frame))),
            Ok(Some(bytes)) => {
                self.waits = Some((self.room.clone().for_request(bytes).boxed(), frame));
                self.poll_room(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waits.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Follows the frames of gRPC: a byte of flags, four bytes of length, the message.
#[derive(Default)]
struct Lengths {
    header: [u8; 5],
    have: usize,
    /// Bytes of the last message.
    last: usize,
    /// Bytes of it that have not come yet.
    left: usize,
}

impl Lengths {
    /// The largest length that `data` announces, if it announces any.
    fn announced(&mut self, mut data: &[u8]) -> Option<u32> {
        let mut largest = None;
        while !data.is_empty() {
            if self.left > 0 {
                let skip = self.left.min(data.len());
                self.left -= skip;
                data = &data[skip..];
                continue;
            }
            let take = (self.header.len() - self.have).min(data.len());
            self.header[self.have..self.have + take].copy_from_slice(&data[..take]);
            self.have += take;
            data = &data[take..];
            if self.have == self.header.len() {
                let [_, length @ ..] = self.header;
                let length = u32::from_be_bytes(length);
                (self.have, self.last, self.left) = (0, length as usize, length as usize);
                largest = largest.max(Some(length));
            }
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_found_wherever_the_data_is_cut() {
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
        assert_eq!(Lengths::default().announced(&[0, 0xff, 0xff, 0xff, 0xff]), Some(u32::MAX));
        assert_eq!(Lengths::default().announced(&[0, 0, 0, 0]), None);
    }

    struct Cancelled;

    impl http_body::Body for Cancelled {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(Some(Err(Status::cancelled("by the caller"))))
        }
    }

    /// Whether the end of a body is its sender's.
    async fn ends(body: Body) -> bool {
        let limits = super::super::limits::Limits::new(&super::super::config::Limits::default());
        let broken = BrokenOff::default();
        let admission = limits.admit("a", "t", true).unwrap();
        let mut weighed = Weighed::new(body, 100, admission.room, broken.clone());
        while let Some(Ok(_)) = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut weighed), cx)).await {}
        !broken.is_so()
    }

    #[tokio::test]
    async fn what_was_cancelled_is_broken_off() {
        assert!(ends(Body::empty()).await);
        assert!(!ends(Body::new(Cancelled)).await);
    }

    /// Hands out its frames one by one, and then waits for ever.
    struct Slow(std::collections::VecDeque<Bytes>);

    impl http_body::Body for Slow {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            self.0.pop_front().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
        }
    }

    /// Bytes of room that a message of 1 MiB has when so many of its bytes have come, and how the call ends if no more do.
    async fn room_of(arrived: usize) -> (usize, Option<Code>) {
        let all = 4 << 20;
        let limits = super::super::limits::Limits::new(&super::super::config::Limits {
            large_body_bytes: all,
            ..Default::default()
        });
        let mut message = vec![0];
        message.extend((1_u32 << 20).to_be_bytes());
        message.extend(vec![0; arrived]);
        let frames = message.chunks(16 << 10).map(Bytes::copy_from_slice).collect();
        let admission = limits.admit("a", "t", false).unwrap();
        let mut weighed = Weighed::new(Body::new(Slow(frames)), 2 << 20, admission.room, BrokenOff::default());
        let mut next = async || std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut weighed), cx)).await;
        while let Ok(frame) = tokio::time::timeout(Duration::from_secs(1), next()).await {
            frame.unwrap().unwrap();
        }
        let taken = all as usize - limits.free();
        let end = tokio::time::timeout(2 * STILL, next()).await;
        (taken, end.ok().map(|end| end.unwrap().unwrap_err().code()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_takes_room_when_much_of_it_has_come_and_must_go_on_then() {
        assert_eq!(room_of(100).await, (0, None), "announced is not there");
        assert_eq!(room_of(Room::SMALL + 1).await, (1 << 20, Some(Code::DeadlineExceeded)));
        assert_eq!(room_of(1 << 20).await, (1 << 20, None), "it is there as a whole");
    }
}
