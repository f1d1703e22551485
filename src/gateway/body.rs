//! Bodies of requests and answers as they pass: what comes in is weighed before it is kept, what goes out is followed to its end.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::{Code, Request, Status};

use super::audit::Record;
use super::error::{reason, status};
use super::limits::{Admission, Room};

/// Longest time in which a message must come in, once it was announced.
const UPLOAD: Duration = Duration::from_secs(120);
/// Longest time in which a large answer must be taken.
const DELIVERY: Duration = Duration::from_secs(120);
/// Bytes of a large answer that are handed on at once.
const PIECE: usize = 64 << 10;

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

/// A request's body. Sizes are announced before each message, so that too large ones end before they are read, and large ones wait for
/// room while HTTP/2's flow control holds the sender back.
pub struct Weighed {
    body: Body,
    lengths: Lengths,
    largest: usize,
    room: Room,
    broken: BrokenOff,
    waits: Option<Wait>,
    until: Option<Pin<Box<Sleep>>>,
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
            until: None,
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((room, _)) = &mut self.waits else {
            return Poll::Ready(None);
        };
        let room = ready!(room.poll_unpin(cx));
        self.until = (self.lengths.left > 0).then(|| Box::pin(tokio::time::sleep(UPLOAD)));
        Poll::Ready(self.waits.take().map(|(_, frame)| room.map(|()| frame)))
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
            if let Some(until) = &mut self.until {
                ready!(until.poll_unpin(cx));
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
        let announced = frame.data_ref().and_then(|data| self.lengths.announced(data));
        if self.lengths.left == 0 {
            self.until = None;
        }
        let Some(length) = announced else {
            return Poll::Ready(Some(Ok(frame)));
        };
        if length as usize > self.largest {
            let text = format!("a message of {length} bytes; this method takes {} at most", self.largest);
            return Poll::Ready(Some(Err(status(Code::ResourceExhausted, reason::INVALID_REQUEST, text))));
        }
        self.waits = Some((self.room.clone().for_request(length as usize).boxed(), frame));
        self.poll_room(cx)
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
                (self.have, self.left) = (0, length as usize);
                largest = largest.max(Some(length));
            }
        }
        largest
    }
}

/// An answer's body, and what lasts as long as it.
pub struct Followed {
    body: Body,
    record: Record,
    admission: Option<Admission>,
    large: Option<Large>,
}

/// A large answer on its way. Who does not take it in time gets no more of it: others need the room.
struct Large {
    rest: Arc<Mutex<Option<Bytes>>>,
    _delivered: DropGuard,
}

impl Large {
    fn new(data: Bytes, room: Option<Room>) -> Large {
        let rest = Arc::new(Mutex::new(Some(data)));
        let delivered = CancellationToken::new();
        let (late, over) = (rest.clone(), delivered.clone());
        tokio::spawn(async move {
            if over.run_until_cancelled(tokio::time::sleep(DELIVERY)).await.is_some() {
                *late.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if let Some(room) = room {
                    room.answer_is_gone();
                }
            }
        });
        Large {
            rest,
            _delivered: delivered.drop_guard(),
        }
    }

    /// The next piece; none when all was taken.
    fn next(&self) -> Option<Result<Bytes, Status>> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = rest.as_mut() else {
            let text = "the answer was not taken in time";
            return Some(Err(status(Code::DeadlineExceeded, reason::INVALID_REQUEST, text)));
        };
        let piece = rest.split_to(rest.len().min(PIECE));
        (!piece.is_empty()).then_some(Ok(piece))
    }
}

impl Followed {
    /// Follows `body` to the end of its call. The call's place and room are given back then.
    pub fn new(body: Body, record: Record, admission: Option<Admission>) -> Followed {
        Followed {
            body,
            record,
            admission,
            large: None,
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(large) = &self.large {
            match large.next() {
                Some(piece) => return Poll::Ready(Some(piece.map(Frame::data))),
                None => self.large = None,
            }
        }
        let next = ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
        match next {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| data.len() > Room::SMALL) => {
                let data = frame.into_data().unwrap_or_default();
                self.large = Some(Large::new(data, self.admission.as_ref().map(|a| a.room.clone())));
                self.poll_inner(cx)
            }
            next => Poll::Ready(next),
        }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = ready!(self.poll_inner(cx));
        match &next {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.outcome(trailers);
                }
            }
            Some(Err(status)) => self.record.set(status),
            None => {}
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.large.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.large.is_some() {
            return SizeHint::default();
        }
        self.body.size_hint()
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
        let admission = limits.admit("a", true).unwrap();
        let mut weighed = Weighed::new(body, 100, admission.room, broken.clone());
        while let Some(Ok(_)) = std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut weighed), cx)).await {}
        !broken.is_so()
    }

    #[tokio::test]
    async fn what_was_cancelled_is_broken_off() {
        assert!(ends(Body::empty()).await);
        assert!(!ends(Body::new(Cancelled)).await);
    }

    #[tokio::test]
    async fn a_large_answer_goes_in_pieces() {
        let large = Large::new(Bytes::from(vec![7; 3 * PIECE + 1]), None);
        let sizes: Vec<usize> = std::iter::from_fn(|| large.next()).map(|piece| piece.unwrap().len()).collect();
        assert_eq!(sizes, [PIECE, PIECE, PIECE, 1]);
        *large.rest.lock().unwrap() = None;
        assert_eq!(large.next().unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
}
