//! Converts the input of StreamExec to the agent's messages.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;

use crate::agent_client::MAX_PIECE;
use crate::gateway::edge::body_budget::BodyBudget;
use crate::gateway::edge::request_body::Aborted;
use crate::gateway::error::{Violation, invalid};
use crate::proto::agent::exec_request::Message as RequestMsg;
use crate::proto::agent::{CloseStdin, ExecRequest, ExecStart, TerminalSize};
use crate::proto::sandbox as pb;
use pb::exec_stream_request::Message as InputMsg;

/// The default size of a terminal.
const DEFAULT_SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// The messages to the agent: `start`, and then the input as the agent reads it, in chunks of its maximum size.
/// `errors` gets the status of input that is invalid.
pub(crate) fn requests<S>(
    start: ExecStart,
    inputs: S,
    aborted: Aborted,
    budget: Option<BodyBudget>,
    errors: mpsc::Sender<Status>,
) -> impl Stream<Item = ExecRequest> + Send + 'static
where
    S: Stream<Item = Result<pb::ExecStreamRequest, Status>> + Send + Unpin + 'static,
{
    let input = Input {
        inputs,
        data: Bytes::new(),
        ended: false,
        aborted,
        budget,
        errors,
    };
    let input = stream::unfold(input, |mut input| async { Some((request(input.next().await?), input)) });
    stream::iter([request(RequestMsg::Start(start))]).chain(input)
}

/// The rest of a caller's input.
struct Input<S> {
    inputs: S,
    /// Bytes of stdin that did not fit into the last chunk.
    data: Bytes,
    /// Whether the agent was sent the end of stdin.
    ended: bool,
    aborted: Aborted,
    /// The memory of the message that is being sent.
    budget: Option<BodyBudget>,
    errors: mpsc::Sender<Status>,
}

impl<S: Stream<Item = Result<pb::ExecStreamRequest, Status>> + Unpin> Input<S> {
    /// The next message; `None` after the end of the input. Pending for ever once the call is aborted or its input is
    /// invalid, since the agent takes the end of the stream for the end of the input.
    async fn next(&mut self) -> Option<RequestMsg> {
        loop {
            if !self.data.is_empty() {
                return Some(RequestMsg::Stdin(self.data.split_to(self.data.len().min(MAX_PIECE))));
            }
            self.budget.iter().for_each(BodyBudget::release_request);
            if self.ended {
                return None;
            }
            let input = match self.inputs.next().await {
                Some(Ok(input)) => input.message,
                Some(Err(_)) => std::future::pending().await,
                None if self.aborted.is_set() => std::future::pending().await,
                None => {
                    self.ended = true;
                    Some(InputMsg::Close(pb::ExecStreamClose {}))
                }
            };
            let message = match input {
                Some(InputMsg::Stdin(bytes)) => {
                    self.data = bytes;
                    continue;
                }
                Some(InputMsg::Resize(to)) => terminal_size(to.width, to.height).map(RequestMsg::Resize),
                Some(InputMsg::Close(_)) => Ok(RequestMsg::Close(CloseStdin {})),
                Some(InputMsg::Init(_)) => Err(invalid(vec![Violation::new("init", "must be sent only once")])),
                None => continue,
            };
            match message {
                Ok(message) => return Some(message),
                Err(status) => {
                    // The receiver is dropped only at the end of the call.
                    let _ = self.errors.send(status).await;
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// A message to the agent.
pub(crate) fn request(message: RequestMsg) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

/// The size of a terminal; 0 means the default.
///
/// # Errors
/// INVALID_ARGUMENT for a larger size than a terminal can have.
pub(crate) fn terminal_size(width: u32, height: u32) -> Result<TerminalSize, Status> {
    if width > u32::from(u16::MAX) || height > u32::from(u16::MAX) {
        return Err(invalid(vec![Violation::new(
            "tty_width",
            "width and height must be at most 65535",
        )]));
    }
    Ok(TerminalSize {
        columns: if width == 0 { DEFAULT_SIZE.columns } else { width },
        rows: if height == 0 { DEFAULT_SIZE.rows } else { height },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn input(message: InputMsg) -> Result<pb::ExecStreamRequest, Status> {
        Ok(pb::ExecStreamRequest { message: Some(message) })
    }

    /// The messages that the agent gets of `inputs`, whether they end, and the error if there was one.
    async fn send(inputs: Vec<Result<pb::ExecStreamRequest, Status>>) -> (Vec<RequestMsg>, bool, Option<Status>) {
        let (errors, mut received) = mpsc::channel(1);
        let mut requests = Box::pin(requests(
            ExecStart::default(),
            stream::iter(inputs),
            Aborted::default(),
            None,
            errors,
        ));
        let mut sent = vec![];
        let ended = loop {
            match tokio::time::timeout(Duration::from_millis(50), requests.next()).await {
                Ok(Some(request)) => sent.extend(request.message),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        (sent, ended, received.try_recv().ok())
    }

    #[tokio::test]
    async fn input_is_sent_in_chunks_and_its_end_is_sent() {
        let big = Bytes::from(vec![1; MAX_PIECE + 1]);
        let resize = InputMsg::Resize(pb::ExecStreamResize { width: 100, height: 0 });
        let inputs = vec![
            input(InputMsg::Stdin(big)),
            input(resize),
            input(InputMsg::Close(pb::ExecStreamClose {})),
        ];
        let (sent, ended, error) = send(inputs).await;
        let [
            RequestMsg::Start(_),
            RequestMsg::Stdin(first),
            RequestMsg::Stdin(second),
            RequestMsg::Resize(size),
            RequestMsg::Close(_),
            RequestMsg::Close(_),
        ] = sent.as_slice()
        else {
            panic!("{sent:?}");
        };
        assert_eq!(
            (first.len(), second.len(), size.columns, size.rows),
            (MAX_PIECE, 1, 100, 24)
        );
        assert!(ended && error.is_none());
    }

    #[tokio::test]
    async fn an_aborted_call_does_not_look_like_the_end_of_input() {
        let (_, ended, error) = send(vec![Err(Status::cancelled("gone"))]).await;
        assert!(!ended && error.is_none());
        let (sent, ended, error) = send(vec![
            input(InputMsg::Init(pb::ExecStreamInit::default())),
            input(InputMsg::Stdin(Bytes::from_static(b"x"))),
        ])
        .await;
        assert_eq!(
            (sent.len(), ended, error.unwrap().code()),
            (1, false, tonic::Code::InvalidArgument)
        );
    }

    #[test]
    fn a_terminal_has_bounds_and_defaults() {
        assert!(terminal_size(70_000, 1).is_err() && terminal_size(1, 70_000).is_err());
        let default = terminal_size(0, 0).unwrap();
        assert_eq!((default.columns, default.rows), (80, 24));
    }
}
