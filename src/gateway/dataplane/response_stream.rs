//! The stream of a streaming RPC's responses.

use std::pin::Pin;
use tokio_stream::Stream;
use tonic::Status;

/// A stream of responses.
pub(crate) type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
