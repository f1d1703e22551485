//! Response bodies: tracked to their end, and large ones sent in chunks within a time limit.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::gateway::edge::access_log::Record;
use crate::gateway::edge::body_budget::BodyBudget;
use crate::gateway::edge::limits::Admission;
use crate::gateway::error::{reason, status};

/// Time in which the client must read a large response.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Messages above this size are sent in chunks.
const LARGE: usize = 256 << 10;
/// Bytes of a chunk of a large response.
const CHUNK: usize = 64 << 10;

/// A response body. The call's record and its admission end with it.
pub(crate) struct TrackedBody {
    body: Body,
    record: Record,
    admission: Option<Admission>,
    large: Option<Large>,
    /// Completes when the call must end because it has held memory for too long.
    overdue: Option<BoxFuture<'static, Status>>,
}

/// A large message. A client that does not read it in time gets no more of it, so that other calls get the memory.
struct Large {
    rest: Arc<Mutex<Option<Bytes>>>,
    _stop_timer: DropGuard,
}

impl Large {
    fn new(data: Bytes, budget: Option<BodyBudget>) -> Large {
        let rest = Arc::new(Mutex::new(Some(data)));
        let stop_timer = CancellationToken::new();
        let (unread, stopped) = (rest.clone(), stop_timer.clone());
        tokio::spawn(async move {
            if stopped
                .run_until_cancelled(tokio::time::sleep(READ_TIMEOUT))
                .await
                .is_some()
            {
                *unread.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if let Some(budget) = budget {
                    budget.release_response();
                }
            }
        });
        Large {
            rest,
            _stop_timer: stop_timer.drop_guard(),
        }
    }

    /// The next chunk; `None` at the end.
    fn next(&self) -> Option<Result<Bytes, Status>> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rest) = rest.as_mut() else {
            let text = "the client did not read the response in time";
            return Some(Err(status(Code::DeadlineExceeded, reason::INVALID_REQUEST, text)));
        };
        let chunk = rest.split_to(rest.len().min(CHUNK));
        (!chunk.is_empty()).then_some(Ok(chunk))
    }
}

impl TrackedBody {
    /// Tracks `body` to the end of its call, when the admission is released.
    pub(crate) fn new(body: Body, record: Record, admission: Option<Admission>) -> TrackedBody {
        let overdue = admission.as_ref().map(|a| a.budget.clone().overdue().boxed());
        TrackedBody {
            body,
            record,
            admission,
            large: None,
            overdue,
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(large) = &self.large {
            match large.next() {
                Some(chunk) => return Poll::Ready(Some(chunk.map(Frame::data))),
                None => self.large = None,
            }
        }
        let next = ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
        match next {
            Some(Ok(frame)) if frame.data_ref().is_some_and(|data| data.len() > LARGE) => {
                let data = frame.into_data().unwrap_or_default();
                self.large = Some(Large::new(data, self.admission.as_ref().map(|a| a.budget.clone())));
                self.poll_inner(cx)
            }
            next => Poll::Ready(next),
        }
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = match self.poll_inner(cx) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                let Some(overdue) = &mut self.overdue else {
                    return Poll::Pending;
                };
                let status = ready!(overdue.poll_unpin(cx));
                self.overdue = None;
                Some(Err(status))
            }
        };
        match &next {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.record.set_from_headers(trailers);
                }
            }
            Some(Err(status)) => self.record.set_status(status),
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
    async fn a_large_response_is_sent_in_chunks() {
        let large = Large::new(Bytes::from(vec![7; 3 * CHUNK + 1]), None);
        let sizes: Vec<usize> = std::iter::from_fn(|| large.next())
            .map(|chunk| chunk.unwrap().len())
            .collect();
        assert_eq!(sizes, [CHUNK, CHUNK, CHUNK, 1]);
        *large.rest.lock().unwrap() = None;
        assert_eq!(large.next().unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    }
}
