//! Bodies of requests and answers as they pass: what comes in is weighed before it is kept, what goes out is followed to its end.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};

use super::audit::Record;
use super::error::{reason, status};
use super::limits::{Admission, Reservation, Room};

/// Messages above this size take room, of which there is only so much.
const SMALL: u32 = 1 << 20;
/// Longest time for a message that takes room.
const UPLOAD: Duration = Duration::from_secs(120);

/// The room that a body takes, for as long as its call lasts.
pub type Held = Arc<OnceLock<Reservation>>;

/// A request's body. Sizes are announced before each message, so that too large ones end before they are read, and large ones wait for
/// room while HTTP/2's flow control holds the sender back.
pub struct Weighed {
    body: Body,
    lengths: Lengths,
    largest: usize,
    room: Room,
    held: Held,
    waits: Option<(BoxFuture<'static, Option<Reservation>>, Frame<Bytes>)>,
    until: Option<Pin<Box<Sleep>>>,
}

impl Weighed {
    /// Weighs `body`: no message above `largest` bytes.
    pub fn new(body: Body, largest: usize, room: Room, held: Held) -> Weighed {
        Weighed {
            body,
            lengths: Lengths::default(),
            largest,
            room,
            held,
            waits: None,
            until: None,
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        let Some((room, _)) = &mut self.waits else {
            return Poll::Ready(None);
        };
        let reservation = ready!(room.poll_unpin(cx));
        if let Some(reservation) = reservation {
            let _ = self.held.set(reservation);
        }
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
        if length <= SMALL || self.held.get().is_some() {
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
    _held: Held,
}

impl Followed {
    /// Follows `body` to the end of its call. The call's place and the room of its request are given back then.
    pub fn new(body: Body, record: Record, admission: Option<Admission>, held: Held) -> Followed {
        Followed {
            body,
            record,
            _admission: admission,
            _held: held,
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
