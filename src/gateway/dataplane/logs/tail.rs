//! Finds the last lines of a log.

use super::read_error::ReadError;
use super::render::{Line, Renderer, Start};
use super::source::{Chunk, IDLE, Part, PodLog, STALLED, unavailable};
use crate::gateway::edge::log_search::LogSearchPermits;

/// Entries of the log beyond the lines that are requested: one line may be several, and several lines may have one
/// timestamp.
const SPARE_ENTRIES: usize = 64;
/// Bytes of a line above which container runtimes make another entry of it.
const RUNTIME_ENTRY: usize = 16 << 10;

/// Where the last lines begin.
pub(super) async fn find(log: &PodLog, lines: usize, searches: Option<&LogSearchPermits>) -> Result<Start, ReadError> {
    let _permit = LogSearchPermits::acquire(searches).await;
    let mut entries = lines + SPARE_ENTRIES;
    loop {
        let (renderer, bytes) = last_entries(log, lines, entries).await?;
        let complete = renderer.lines() + bytes / RUNTIME_ENTRY < entries;
        if complete || renderer.lines() > lines {
            return Ok(renderer.start_of_last());
        }
        // The lines are long ones.
        entries = entries.saturating_mul(8);
    }
}

/// Finds the last lines among the last entries of the log. Returns also the number of bytes that were read.
async fn last_entries(log: &PodLog, lines: usize, entries: usize) -> Result<(Renderer, usize), ReadError> {
    let part = Part {
        tail: Some(entries),
        ..Part::default()
    };
    let mut reader = log.open(part).await?;
    let (mut renderer, mut read) = (Renderer::last_lines(lines), 0);
    loop {
        match reader.next(IDLE).await {
            Chunk::Bytes(bytes) => {
                read += bytes.len();
                renderer.feed(&bytes)?;
            }
            Chunk::End => {
                renderer.end()?;
                return Ok((renderer, read));
            }
            Chunk::Idle => return Err(unavailable(STALLED).into()),
            Chunk::Failed(text) => return Err(unavailable(&text).into()),
        }
        renderer.take(true);
    }
}

/// The later of the beginning of the last lines and a time.
pub(super) fn later(tail: Start, since: Start) -> Start {
    match (tail, since) {
        (Start::From(Line { at, .. }), Start::Since(since)) if since > at => Start::Since(since),
        (Start::Beginning, since) => since,
        (tail, _) => tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn the_last_lines_do_not_begin_before_the_requested_time() {
        let at = |n| Timestamp::from_second(n).unwrap();
        let tail = Start::From(Line { at: at(5), nth: 1 });
        assert_eq!(later(tail, Start::Beginning), tail);
        assert_eq!(later(tail, Start::Since(at(4))), tail);
        assert_eq!(later(tail, Start::Since(at(6))), Start::Since(at(6)));
        assert_eq!(later(Start::Beginning, Start::Since(at(6))), Start::Since(at(6)));
    }
}
