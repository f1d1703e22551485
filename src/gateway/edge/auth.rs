//! The layer before every service, which runs before a request body is read: authenticates the caller, applies the
//! limits, and writes the access log.

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

use crate::gateway::edge::access_log::{Record, Sink};
use crate::gateway::edge::body_budget::BodyBudget;
use crate::gateway::edge::credentials::API_KEY_HEADER;
use crate::gateway::edge::identity::Identity;
use crate::gateway::edge::limits::{Admission, Limits};
use crate::gateway::edge::methods::Method;
use crate::gateway::edge::request_body::{Aborted, MeteredBody};
use crate::gateway::edge::response_body::TrackedBody;
use crate::gateway::error::{reason, status, unimplemented};
use crate::gateway::metrics::Metrics;
use crate::net::Peer;

/// Longest duration of a unary call without credentials.
const UNAUTHENTICATED_TIMEOUT: Duration = Duration::from_secs(10);

/// The authentication layer.
#[derive(Clone)]
pub struct AuthLayer {
    /// Authenticates callers.
    pub identity: Arc<Identity>,
    /// Admits calls.
    pub limits: Arc<Limits>,
    /// Counts calls.
    pub metrics: Metrics,
    /// Takes the access log.
    pub sink: Sink,
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService {
            layer: self.clone(),
            inner,
        }
    }
}

/// A service behind the authentication layer.
#[derive(Clone)]
pub struct AuthService<S> {
    layer: AuthLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for AuthService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // `oneshot` waits until the inner service is ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (layer, inner) = (self.layer.clone(), self.inner.clone());
        async move { Ok(layer.handle(inner, request).await) }.boxed()
    }
}

impl AuthLayer {
    async fn handle<S>(&self, inner: S, mut request: Request<Body>) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let method = Method::of(request.uri().path());
        let peer = request.extensions().get::<Peer>().cloned();
        let refusals = self.limits.refusals.clone();
        let mut record = Record::start(method, address(peer.as_ref()), &self.metrics, &self.sink, refusals);
        let (admission, mut response) = match self.admit(method, peer.as_ref(), &mut request, &mut record).await {
            Err(status) => (None, status.into_http()),
            Ok(admission) => {
                let response = self.call(inner, request, method, &admission.budget, &record).await;
                (Some(admission), response)
            }
        };
        // A response without a body has its status in the headers. tonic sends no details for a method that does not
        // exist, and for a message that it cannot decode.
        if let Some(bare) = record
            .set_from_headers(response.headers())
            .filter(|s| s.details().is_empty())
        {
            let detailed = match bare.code() {
                Code::Unimplemented => Some(unimplemented(&method.name)),
                // The text is prost's; tonic adds no details.
                Code::Internal if bare.message().starts_with("failed to decode Protobuf message") => {
                    Some(undecodable())
                }
                _ => None,
            };
            if let Some(status) = detailed {
                record.set_status(&status);
                response = status.into_http();
            }
        }
        response.map(|body| Body::new(TrackedBody::new(body, record, admission)))
    }

    /// Runs the handler with its limits of time and memory.
    async fn call<S>(
        &self,
        inner: S,
        request: Request<Body>,
        method: &Method,
        budget: &BodyBudget,
        record: &Record,
    ) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        // A panic ends only its own call, with an error.
        let handler = AssertUnwindSafe(inner.oneshot(request)).catch_unwind();
        let timeout = if method.unauthenticated && !method.streaming {
            UNAUTHENTICATED_TIMEOUT
        } else {
            Duration::MAX
        };
        let ended = tokio::select! {
            ended = record.scope(handler) => ended,
            () = tokio::time::sleep(timeout) => {
                let text = "the request took too long";
                return status(Code::DeadlineExceeded, reason::INVALID_REQUEST, text).into_http();
            }
            overdue = budget.clone().overdue() => return overdue.into_http(),
        };
        match ended {
            Ok(Ok(response)) => response,
            Err(_panic) => status(Code::Internal, "CWSANDBOX_INTERNAL", "internal error of the gateway").into_http(),
        }
    }

    async fn admit(
        &self,
        method: &'static Method,
        peer: Option<&Peer>,
        request: &mut Request<Body>,
        record: &mut Record,
    ) -> Result<Admission, Status> {
        if method.unauthenticated {
            let admission = self.limits.admit_unauthenticated(method.streaming)?;
            meter(request, method, &admission);
            return Ok(admission);
        }
        let caller = self.identity.authenticate(request.headers(), address(peer)).await?;
        record.caller = Some(caller.clone());
        let admission = self.limits.admit(&caller.user, &caller.namespace, method.streaming)?;
        record.set_admitted();
        // Before the body is read: an unauthorized call gets no memory for it, and does not keep its connection open.
        if let Some(permission) = method.permission {
            self.identity.authorize(&caller, permission).await?;
            self.limits.admit_connection(peer, &caller.namespace)?;
        }
        meter(request, method, &admission);
        // No service needs the credentials, so none can leak them.
        for header in [AUTHORIZATION.as_str(), API_KEY_HEADER] {
            request.headers_mut().remove(header);
        }
        let extensions = request.extensions_mut();
        extensions.insert(caller);
        extensions.insert(admission.budget.clone());
        extensions.insert(admission.log_searches.clone());
        Ok(admission)
    }
}

fn undecodable() -> Status {
    let text = "the request is not a message of this method";
    status(Code::InvalidArgument, reason::INVALID_REQUEST, text)
}

/// Limits the request's messages before they are buffered.
fn meter(request: &mut Request<Body>, method: &Method, admission: &Admission) {
    let aborted = Aborted::default();
    let body = std::mem::take(request.body_mut());
    *request.body_mut() = Body::new(MeteredBody::new(
        body,
        method.max_message,
        admission.budget.clone(),
        aborted.clone(),
    ));
    request.extensions_mut().insert(aborted);
}

fn address(peer: Option<&Peer>) -> IpAddr {
    let address = peer.and_then(Peer::address);
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())
}
