//! Bodies of requests and answers as they pass: what comes in is weighed before it is kept, what goes out is followed to its end.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Request, Status};

use super::audit::Record;
use super::error::{reason, status};
use super::limits::{Admission, Room};

/// Longest time for a message that takes room.
const UPLOAD: Duration = Duration::from_secs(120);

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

/// A request's body. Sizes are announced before each message, so that too large ones end before they are read, and large ones wait for
/// room while HTTP/2's flow control holds the sender back.
pub struct Weighed {
    body: Body,
    lengths: Lengths,
    largest: usize,
    room: Room,
    broken: BrokenOff,
    waits: Option<(BoxFuture<'static, ()>, Frame<Bytes>)>,
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

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some((room, _)) = &mut self.waits else {
            return Poll::Ready(None);
        };
        ready!(room.poll_unpin(cx));
        self.until = (self.lengths.left > 0).then(|| Box::pin(tokio::time::sleep(UPLOAD)));
        Poll::Ready(self.waits.take().map(|(_, frame)| frame))
    }
}

impl http_body::Body for Weighed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = ready!(self.poll_room(cx)) {
            return Poll::Ready(Some(Ok(frame)));
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
            // What was cancelled ends as if nothing had happened, but is not at the end of its stream.
            if next.is_none() && !self.body.is_end_stream() {
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
        if length as usize <= Room::SMALL {
            return Poll::Ready(Some(Ok(frame)));
        }
        self.waits = Some((self.room.clone().take(length).boxed(), frame));
        self.poll_room(cx).map(|frame| frame.map(Ok))
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
    _admission: Option<Admission>,
}

impl Followed {
    /// Follows `body` to the end of its call. The call's place and room are given back then.
    pub fn new(body: Body, record: Record, admission: Option<Admission>) -> Followed {
        Followed {
            body,
            record,
            _admission: admission,
        }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
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
}
