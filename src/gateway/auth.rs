//! The first layer, before any body is read: who calls, whether there is a place for the call, and the record of how it ended.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceExt};

use super::answer_body::Followed;
use super::audit::{Record, Sink};
use super::error::{reason, status, unimplemented};
use super::limits::{Admission, Limits};
use super::methods::Method;
use super::metrics::Metrics;
use super::request_body::{BrokenOff, Weighed};
use super::state::Gateway;
use crate::net::Peer;

/// Longest time that a call without credentials may take to say what it wants.
const OPEN_CALL: Duration = Duration::from_secs(10);

/// The first layer.
#[derive(Clone)]
pub struct Entrance {
    /// For its identities.
    pub gateway: Arc<Gateway>,
    /// What a caller may use.
    pub limits: Arc<Limits>,
    /// Counts the calls.
    pub metrics: Metrics,
    /// Takes the access log.
    pub sink: Sink,
}

impl<S> Layer<S> for Entrance {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            entrance: self.clone(),
            inner,
        }
    }
}

/// A service behind the entrance.
#[derive(Clone)]
pub struct Guarded<S> {
    entrance: Entrance,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each call makes the inner service ready for itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (entrance, inner) = (self.entrance.clone(), self.inner.clone());
        async move { Ok(entrance.pass(inner, request).await) }.boxed()
    }
}

impl Entrance {
    async fn pass<S>(&self, inner: S, mut request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let method = Method::of(request.uri().path());
        let peer = request.extensions().get::<Peer>().cloned();
        let mut record = Record::begin(method, address(peer.as_ref()), &self.metrics, &self.sink);
        let (admission, mut response) = match self.admit(method, peer.as_ref(), &mut request, &mut record).await {
            Err(status) => (None, status.into_http()),
            Ok(admission) => {
                // A panic ends its own call only, and the caller is told.
                let serve = AssertUnwindSafe(inner.oneshot(request)).catch_unwind();
                let most = if method.open && !method.streaming { OPEN_CALL } else { Duration::MAX };
                let response = match tokio::time::timeout(most, record.within(serve)).await {
                    Ok(Ok(Ok(response))) => response,
                    Ok(Err(_panic)) => status(Code::Internal, "CWSANDBOX_INTERNAL", "the gateway failed at this call").into_http(),
                    Err(_) => status(Code::DeadlineExceeded, reason::INVALID_REQUEST, "the request took too long").into_http(),
                };
                (admission, response)
            }
        };
        // An answer without a body has its outcome here. tonic says no more than the code where there is no such method, or where a
        // message cannot be read.
        if let Some(bare) = record.outcome(response.headers()).filter(|s| s.details().is_empty()) {
            let status = match bare.code() {
                Code::Unimplemented => Some(unimplemented(&method.name)),
                Code::Internal if bare.message().contains("decode") => Some(unreadable()),
                _ => None,
            };
            if let Some(status) = status {
                record.set(&status);
                response = status.into_http();
            }
        }
        response.map(|body| Body::new(Followed::new(body, record, admission)))
    }

    async fn admit(
        &self,
        method: &'static Method,
        peer: Option<&Peer>,
        request: &mut Request<Body>,
        record: &mut Record,
    ) -> Result<Option<Admission>, Status> {
        if method.open {
            let admission = self.limits.admit_open(method.streaming)?;
            weigh(request, method, &admission);
            return Ok(Some(admission));
        }
        let caller = self.gateway.identity.authenticate(request.headers(), address(peer)).await?;
        if let Some(peer) = peer {
            peer.mark_authenticated();
        }
        record.caller = Some(caller.clone());
        let admission = self.limits.admit(&caller.user, &caller.namespace, method.streaming)?;
        weigh(request, method, &admission);
        // What nobody behind this needs, nobody behind this can leak.
        for header in [AUTHORIZATION.as_str(), "x-wandb-api-key"] {
            request.headers_mut().remove(header);
        }
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(admission.room.clone());
        Ok(Some(admission))
    }
}

fn unreadable() -> Status {
    status(
        Code::InvalidArgument,
        reason::INVALID_REQUEST,
        "the request is not a message of this method",
    )
}

/// What the request says is weighed from now on, before it is kept.
fn weigh(request: &mut Request<Body>, method: &Method, admission: &Admission) {
    let broken = BrokenOff::default();
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = Body::new(Weighed::new(body, method.largest, admission.room.clone(), broken.clone()));
    request.extensions_mut().insert(broken);
}

fn address(peer: Option<&Peer>) -> IpAddr {
    peer.and_then(Peer::address)
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}
