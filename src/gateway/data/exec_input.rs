//! From the input of a StreamExec to the requests of an agent.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tonic::Status;

use crate::agent_client::MAX_PIECE;
use crate::gateway::error::{Violation, invalid};
use crate::gateway::request_body::BrokenOff;
use crate::proto::agent::exec_request::Message as Ask;
use crate::proto::agent::{CloseStdin, ExecRequest, ExecStart, TerminalSize};
use crate::proto::sandbox as pb;
use pb::exec_stream_request::Message as Input;

/// The size of a terminal whose caller names none.
const TERMINAL: TerminalSize = TerminalSize { columns: 80, rows: 24 };

/// What goes to the agent: each input when there is room for it, in pieces that an agent takes. `wrong` gets what cannot go there.
pub fn requests<S>(start: ExecStart, inputs: S, broken: BrokenOff, wrong: mpsc::Sender<Status>) -> impl Stream<Item = ExecRequest> + Send + 'static
where
    S: Stream<Item = Result<pb::ExecStreamRequest, Status>> + Send + Unpin + 'static,
{
    let rest = Rest {
        inputs,
        data: Bytes::new(),
        ended: false,
        broken,
        wrong,
    };
    let rest = stream::unfold(rest, |mut rest| async { Some((ask(rest.next().await?), rest)) });
    stream::iter([ask(Ask::Start(start))]).chain(rest)
}

/// What is left of a caller's input.
struct Rest<S> {
    inputs: S,
    /// Bytes for the command that did not fit into the last piece.
    data: Bytes,
    /// The agent was told that no more comes.
    ended: bool,
    broken: BrokenOff,
    wrong: mpsc::Sender<Status>,
}

impl<S: Stream<Item = Result<pb::ExecStreamRequest, Status>> + Unpin> Rest<S> {
    /// Ends after the end of the input. Where the call is being broken off, or is refused, it does neither go on nor end: an end would
    /// look like one of the input.
    async fn next(&mut self) -> Option<Ask> {
        loop {
            if !self.data.is_empty() {
                return Some(Ask::Stdin(self.data.split_to(self.data.len().min(MAX_PIECE))));
            }
            if self.ended {
                return None;
            }
            let input = match self.inputs.next().await {
                Some(Ok(input)) => input.message,
                Some(Err(_)) => std::future::pending().await,
                None if self.broken.is_so() => std::future::pending().await,
                None => {
                    self.ended = true;
                    Some(Input::Close(pb::ExecStreamClose {}))
                }
            };
            let asked = match input {
                Some(Input::Stdin(bytes)) => {
                    self.data = bytes;
                    continue;
                }
                Some(Input::Resize(to)) => size(to.width, to.height).map(Ask::Resize),
                Some(Input::Close(_)) => Ok(Ask::Close(CloseStdin {})),
                Some(Input::Init(_)) => Err(invalid(vec![Violation::new("init", "must come once")])),
                None => continue,
            };
            match asked {
                Ok(asked) => return Some(asked),
                Err(status) => {
                    // Nobody takes it only when the call is over.
                    let _ = self.wrong.send(status).await;
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// A request of an agent.
pub fn ask(message: Ask) -> ExecRequest {
    ExecRequest { message: Some(message) }
}

/// The size of a terminal; 0 is a default.
///
/// # Errors
/// INVALID_ARGUMENT for more than a terminal can have.
pub fn size(width: u32, height: u32) -> Result<TerminalSize, Status> {
    if width > u32::from(u16::MAX) || height > u32::from(u16::MAX) {
        return Err(invalid(vec![Violation::new("tty_width", "width and height must be at most 65535")]));
    }
    Ok(TerminalSize {
        columns: if width == 0 { TERMINAL.columns } else { width },
        rows: if height == 0 { TERMINAL.rows } else { height },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn input(message: Input) -> Result<pb::ExecStreamRequest, Status> {
        Ok(pb::ExecStreamRequest { message: Some(message) })
    }

    /// What the agent gets of `inputs`: all of it, or what came until it waits; and what was found wrong.
    async fn sent(inputs: Vec<Result<pb::ExecStreamRequest, Status>>) -> (Vec<Ask>, bool, Option<Status>) {
        let (wrong, mut wrongs) = mpsc::channel(1);
        let mut requests = Box::pin(requests(ExecStart::default(), stream::iter(inputs), BrokenOff::default(), wrong));
        let mut sent = vec![];
        let ended = loop {
            match tokio::time::timeout(Duration::from_millis(50), requests.next()).await {
                Ok(Some(request)) => sent.extend(request.message),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        (sent, ended, wrongs.try_recv().ok())
    }

    #[tokio::test]
    async fn input_goes_on_in_pieces_and_its_end_is_an_end() {
        let big = Bytes::from(vec![1; MAX_PIECE + 1]);
        let resize = Input::Resize(pb::ExecStreamResize { width: 100, height: 0 });
        let inputs = vec![input(Input::Stdin(big)), input(resize), input(Input::Close(pb::ExecStreamClose {}))];
        let (sent, ended, wrong) = sent(inputs).await;
        let [
            Ask::Start(_),
            Ask::Stdin(first),
            Ask::Stdin(second),
            Ask::Resize(size),
            Ask::Close(_),
            Ask::Close(_),
        ] = sent.as_slice()
        else {
            panic!("{sent:?}");
        };
        assert_eq!((first.len(), second.len(), size.columns, size.rows), (MAX_PIECE, 1, 100, 24));
        assert!(ended && wrong.is_none());
    }

    #[tokio::test]
    async fn a_call_that_is_broken_off_does_not_look_like_the_end_of_input() {
        let (_, ended, wrong) = sent(vec![Err(Status::cancelled("gone"))]).await;
        assert!(!ended && wrong.is_none());
        let (sent, ended, wrong) = sent(vec![
            input(Input::Init(pb::ExecStreamInit::default())),
            input(Input::Stdin(Bytes::from_static(b"x"))),
        ])
        .await;
        assert_eq!((sent.len(), ended, wrong.unwrap().code()), (1, false, tonic::Code::InvalidArgument));
    }

    #[test]
    fn a_terminal_has_bounds_and_defaults() {
        assert!(size(70_000, 1).is_err() && size(1, 70_000).is_err());
        let default = size(0, 0).unwrap();
        assert_eq!((default.columns, default.rows), (80, 24));
    }
}
