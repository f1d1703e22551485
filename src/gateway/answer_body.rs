//! Bodies of answers: what goes out is followed to its end.

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::{Code, Status};

use super::audit::Record;
use super::error::{reason, status};
use super::limits::{Admission, Room};

/// Longest time in which a large answer must be taken.
const DELIVERY: Duration = Duration::from_secs(120);
/// Bytes of a large answer that are handed on at once.
const PIECE: usize = 64 << 10;

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

    #[tokio::test]
    async fn a_large_answer_goes_in_pieces() {
        let large = Large::new(Bytes::from(vec![7; 3 * PIECE + 1]), None);
        let sizes: Vec<usize> = std::iter::from_fn(|| large.next()).map(|piece| piece.unwrap().len()).collect();
        assert_eq!(sizes, [PIECE, PIECE, PIECE, 1]);
        *large.rest.lock().unwrap() = None;
        assert_eq!(large.next().unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
}
