//! A connection to one agent: each call carries a fresh token and can be reset.

use bytes::Bytes;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use http_body::{Body as HttpBody, Frame, SizeHint};
use jiff::Timestamp;
use ring::signature::Ed25519KeyPair;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

use crate::token;

/// Seconds for which a token is reused.
const REUSE: i64 = token::LIFETIME_SECONDS / 2;

/// A channel to an agent that adds credentials to its calls.
#[derive(Clone)]
pub struct Connection {
    channel: Channel,
    /// None where the transport is authenticated: `pods/exec` of the API server.
    credentials: Option<Arc<Credentials>>,
}

/// In a request's extensions: cancelling the token resets the call. Dropping the responses alone does not: a request
/// stream that is still open keeps the call alive, and one that ends looks like the end of the input.
#[derive(Clone)]
pub struct ResetToken(pub CancellationToken);

pub(super) struct Credentials {
    key: Arc<Ed25519KeyPair>,
    pod_uid: String,
    last: Mutex<Option<(i64, HeaderValue)>>,
}

impl Credentials {
    pub(super) fn new(key: Arc<Ed25519KeyPair>, pod_uid: &str) -> Credentials {
        Credentials {
            key,
            pod_uid: pod_uid.into(),
            last: Mutex::new(None),
        }
    }

    fn header(&self, now: i64) -> HeaderValue {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((signed_at, header)) = last.as_ref()
            && (0..REUSE).contains(&(now - signed_at))
        {
            return header.clone();
        }
        let text = format!("Bearer {}", token::sign(&self.key, &self.pod_uid, now));
        // Always succeeds: a token is base64 and a dot.
        let mut header = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        header.set_sensitive(true);
        *last = Some((now, header.clone()));
        header
    }
}

impl Connection {
    pub(super) fn new(channel: Channel, credentials: Option<Credentials>) -> Connection {
        Connection {
            channel,
            credentials: credentials.map(Arc::new),
        }
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(credentials) = &self.credentials {
            let header = credentials.header(Timestamp::now().as_second());
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        if let Some(ResetToken(token)) = request.extensions_mut().remove::<ResetToken>() {
            request = request.map(|body| {
                let cancelled = Box::pin(token.cancelled_owned());
                Body::new(ResettableBody { body, cancelled })
            });
        }
        self.channel.call(request)
    }
}

struct ResettableBody {
    body: Body,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for ResettableBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Status::cancelled("the call was reset"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
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
    use ring::rand::SystemRandom;
    use ring::signature::KeyPair;

    #[test]
    fn a_fresh_token_is_reused() {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Arc::new(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap());
        let credentials = Credentials::new(key.clone(), "pod-a");
        let first = credentials.header(1_000);
        assert_eq!(credentials.header(1_000 + REUSE - 1), first);
        let later = credentials.header(1_000 + REUSE);
        assert_ne!(later, first);
        assert_ne!(credentials.header(900), later, "a clock that was set back");
        let bare = first.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(
            token::verify(key.public_key().as_ref(), bare, "pod-a", 1_000 + REUSE),
            Ok(())
        );
    }
}
