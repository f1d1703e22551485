//! Request bodies: messages are limited by their announced size, and large ones reserve memory before
//! they are buffered.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::{Code, Request, Status};

use crate::gateway::edge::body_budget::{BodyBudget, MAX_TRANSFER, SMALL_BODY, transfer_time};
use crate::gateway::error::{reason, status};

/// Messages above this size reserve memory after [`LARGE_ARRIVED`] bytes have arrived, others after [`SMALL_BODY`].
const MEDIUM_BODY: usize = 1 << 20;
const LARGE_ARRIVED: usize = 256 << 10;

/// In a request's extensions: whether its body ended because the client aborted the call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aborted(Arc<AtomicBool>);

impl Aborted {
    /// That of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Aborted {
        request.extensions().get().cloned().unwrap_or_default()
    }

    /// Whether the call was aborted. Meaningful only after the body has ended.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A pending reservation, and the frame that follows it.
type Pending = (BoxFuture<'static, Result<(), Status>>, Frame<Bytes>);

/// A request body. gRPC announces the size of each message, so that too large ones end before they are read. A large
/// message reserves memory once a part of it has arrived; until then HTTP/2's flow control pauses the sender.
pub(crate) struct MeteredBody {
    body: Body,
    lengths: Lengths,
    max_message: usize,
    budget: BodyBudget,
    aborted: Aborted,
    pending: Option<Pending>,
    incoming: Option<Incoming>,
}

/// A message that has arrived in part.
struct Incoming {
    bytes: usize,
    /// Whether it has its reservation.
    reserved: bool,
    since: Instant,
    /// Ends the call if the rest has not arrived.
    deadline: Pin<Box<Sleep>>,
}

impl Incoming {
    fn new(bytes: usize) -> Incoming {
        Incoming {
            bytes,
            reserved: false,
            since: Instant::now(),
            deadline: Box::pin(tokio::time::sleep(MAX_TRANSFER)),
        }
    }

    /// How many bytes to reserve once `arrived` have arrived: all, because calls that hold a part and wait for the rest
    /// would block each other. A large reservation requires that much of the message has arrived.
    fn to_reserve(&self, arrived: usize) -> Option<usize> {
        let free = if self.bytes > MEDIUM_BODY {
            LARGE_ARRIVED
        } else {
            SMALL_BODY
        };
        (!self.reserved && arrived > free).then_some(self.bytes)
    }

    /// Its upload time starts with the reservation.
    fn set_reserved(&mut self) {
        (self.reserved, self.since) = (true, Instant::now());
        self.deadline.as_mut().reset(self.since + transfer_time(0));
    }

    /// Extends the deadline by what has arrived.
    fn extend_deadline(&mut self, arrived: usize) {
        if self.reserved {
            self.deadline.as_mut().reset(self.since + transfer_time(arrived));
        }
    }
}

impl MeteredBody {
    /// Limits the messages of `body` to `max_message` bytes. Sets `aborted` if the body ends without the end of its
    /// stream.
    pub(crate) fn new(body: Body, max_message: usize, budget: BodyBudget, aborted: Aborted) -> MeteredBody {
        MeteredBody {
            body,
            lengths: Lengths::default(),
            max_message,
            budget,
            aborted,
            pending: None,
            incoming: None,
        }
    }

    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((reservation, _)) = &mut self.pending else {
            return Poll::Ready(None);
        };
        let reserved = ready!(reservation.poll_unpin(cx));
        match &mut self.incoming {
            Some(incoming) if self.lengths.left > 0 => incoming.set_reserved(),
            _ => self.incoming = None,
        }
        Poll::Ready(self.pending.take().map(|(_, frame)| reserved.map(|()| frame)))
    }

    /// How many bytes to reserve before `data` is passed on.
    fn meter(&mut self, data: &[u8]) -> Result<Option<usize>, Status> {
        let announced = self.lengths.announced(data).unwrap_or_default() as usize;
        if announced > self.max_message {
            let text = format!(
                "a message of {announced} bytes; this method takes at most {}",
                self.max_message
            );
            return Err(status(Code::ResourceExhausted, reason::INVALID_REQUEST, text));
        }
        let left = self.lengths.left;
        if announced > 0 {
            // The message before it was passed on.
            self.budget.release_request();
            self.incoming = (left > 0 || self.lengths.last > SMALL_BODY).then(|| Incoming::new(self.lengths.last));
        }
        let Some(incoming) = &mut self.incoming else {
            return Ok(None);
        };
        let arrived = incoming.bytes - left;
        if let Some(bytes) = incoming.to_reserve(arrived) {
            return Ok(Some(bytes));
        }
        incoming.extend_deadline(arrived);
        if left == 0 {
            self.incoming = None;
        }
        Ok(None)
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = ready!(self.poll_pending(cx)) {
            return Poll::Ready(Some(frame));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(next) = polled else {
            if let Some(incoming) = &mut self.incoming {
                ready!(incoming.deadline.poll_unpin(cx));
                let text = "the request body took too long to arrive";
                return Poll::Ready(Some(Err(status(Code::DeadlineExceeded, reason::INVALID_REQUEST, text))));
            }
            return Poll::Pending;
        };
        let Some(Ok(frame)) = next else {
            // tonic reports a reset stream as an end. Even an end without an error may not be the end of the stream.
            if next.is_some() || !self.body.is_end_stream() {
                self.aborted.0.store(true, Ordering::Release);
            }
            return Poll::Ready(next);
        };
        let reserve = match frame.data_ref() {
            Some(data) => self.meter(data),
            None => Ok(None),
        };
        match reserve {
            Err(status) => Poll::Ready(Some(Err(status))),
            Ok(None) => Poll::Ready(Some(Ok(frame))),
            Ok(Some(bytes)) => {
                self.pending = Some((self.budget.clone().reserve_request(bytes).boxed(), frame));
                self.poll_pending(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Parses the framing of gRPC: a byte of flags, four bytes of length, the message.
#[derive(Default)]
struct Lengths {
    header: [u8; 5],
    have: usize,
    /// Length of the last announced message.
    last: usize,
    /// Bytes of it that have not arrived yet.
    left: usize,
}

impl Lengths {
    /// The largest length that `data` announces, if any.
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
mod tests;
