//! Renders a kubelet's log with timestamps as the bytes that a caller gets, so that any replica finds any byte again.
//! Pure.
//!
//! The kubelet writes `<RFC 3339> ` before each line. A line is identified by its timestamp and, since lines can share
//! one, by the number of lines with the same timestamp right before it.

use bytes::BytesMut;
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// Bytes within which a line's timestamp ends.
const LONGEST_TIMESTAMP: usize = 40;
/// The log has two writers, stdout's and stderr's, whose lines can be this much out of order.
const DISORDER: SignedDuration = SignedDuration::from_secs(1);
/// Bytes kept of a message of the kubelet.
const KUBELET_MESSAGE: usize = 200;

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its timestamp.
    pub(super) at: Timestamp,
    /// The number of lines with the same timestamp right before it.
    pub(super) nth: u32,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the first line that the node keeps.
    Beginning,
    /// At the first line that is not before this time.
    Since(Timestamp),
    /// At this line, or at the first one after it if the node does not keep it.
    From(Line),
    /// At the beginning of the file whose first line has this timestamp; `None`: of a file that was empty. Any other
    /// file is a gap.
    File(Option<Timestamp>),
    /// `skip` bytes after the beginning of this line. A log without the line is a gap.
    Resume {
        /// The line.
        line: Line,
        /// Bytes of it and of the lines after it that were delivered.
        skip: u64,
    },
}

impl Start {
    /// The time from which the kubelet must read the log to include the start, in whole seconds.
    pub(super) fn read_since(self) -> Option<Timestamp> {
        let at = match self {
            Start::Beginning | Start::File(_) => return None,
            Start::Since(at) => at,
            Start::From(line) | Start::Resume { line, .. } => line.at,
        };
        let second = Timestamp::from_second(at.as_second())
            .ok()?
            .checked_sub(DISORDER)
            .ok()?;
        (second > Timestamp::UNIX_EPOCH).then_some(second)
    }
}

/// Why a log cannot be rendered any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RenderError {
    /// The log does not have what comes next.
    Gap,
    /// The read went on in the next file.
    NextFile,
    /// The kubelet wrote into the log why it could not read on.
    Kubelet(String),
}

/// Renders one read of a log.
pub(super) struct Renderer {
    timestamps: bool,
    start: Start,
    phase: Phase,
    /// The beginning of a line, up to the end of its timestamp.
    head: Vec<u8>,
    /// What came before the first line with a timestamp.
    stray: Vec<u8>,
    /// The line that began last.
    line: Option<Line>,
    /// Rendered bytes of it that were delivered or skipped.
    line_bytes: u64,
    /// Bytes still to be skipped.
    skip: u64,
    first: Option<Line>,
    /// The last lines, one more than requested: the first line of what was read may be the end of a long one.
    last: VecDeque<Line>,
    tail: usize,
    /// The first line of this read must have this timestamp.
    file: Option<Timestamp>,
    /// First timestamps of the files after this one.
    later_files: Vec<Timestamp>,
    out: BytesMut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    LineStart,
    /// In a line that is delivered.
    Deliver,
    /// In a line that is not delivered.
    Pass,
    /// In a line without a timestamp.
    Message,
}

impl Renderer {
    /// For one read that begins at or before `start`.
    pub(super) fn new(start: Start, timestamps: bool) -> Renderer {
        Renderer {
            timestamps,
            start,
            phase: Phase::LineStart,
            head: Vec::new(),
            stray: Vec::new(),
            line: None,
            line_bytes: 0,
            skip: if let Start::Resume { skip, .. } = start {
                skip
            } else {
                0
            },
            first: None,
            last: VecDeque::new(),
            tail: 0,
            file: None,
            later_files: Vec::new(),
            out: BytesMut::new(),
        }
    }

    /// Finds the last `tail` lines and renders nothing.
    pub(super) fn last_lines(tail: usize) -> Renderer {
        Renderer {
            tail,
            ..Renderer::new(Start::Beginning, false)
        }
    }

    /// The read is of the whole file whose first line has this timestamp; another file is a gap.
    pub(super) fn expect_file(&mut self, first: Timestamp) {
        self.file = Some(first);
        if self.start == Start::File(None) {
            self.start = Start::File(Some(first));
        }
    }

    /// First timestamps of the files after the one that is read. Nothing of them is rendered.
    pub(super) fn stop_at_files(&mut self, later: Vec<Timestamp>) {
        self.later_files = later;
    }

    /// The number of lines found: at most one more than requested.
    pub(super) fn lines(&self) -> usize {
        self.last.len()
    }

    /// Where the last lines begin.
    pub(super) fn start_of_last(&self) -> Start {
        let surplus = self.last.len().saturating_sub(self.tail);
        self.last
            .get(surplus)
            .map_or(Start::Beginning, |line| Start::From(*line))
    }

    /// Takes the next bytes of the log.
    ///
    /// # Errors
    /// The log cannot be rendered from here on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), RenderError> {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |i| i + 1);
            let rest;
            (rest, bytes) = bytes.split_at(end);
            match self.phase {
                Phase::LineStart => self.begin_line(rest)?,
                _ => self.continue_line(rest),
            }
        }
        Ok(())
    }

    /// The log has ended.
    ///
    /// # Errors
    /// The log does not have the start, or the kubelet could not read to the end.
    pub(super) fn end(&mut self) -> Result<(), RenderError> {
        // A line without a timestamp, and no line with one after it, is a message of the kubelet.
        let message = if self.line.is_none() && self.head.is_empty() {
            &self.stray
        } else {
            &self.head
        };
        if !message.is_empty() {
            return Err(RenderError::Kubelet(String::from_utf8_lossy(message).trim().into()));
        }
        match self.start {
            Start::Resume { .. } | Start::File(Some(_)) if self.first.is_none() => Err(RenderError::Gap),
            _ => Ok(()),
        }
    }

    /// The rendered bytes; without an incomplete UTF-8 character at their end, unless `all`.
    pub(super) fn take(&mut self, all: bool) -> BytesMut {
        let whole = if all {
            self.out.len()
        } else {
            whole_characters(&self.out)
        };
        self.out.split_to(whole)
    }

    /// The first line that was delivered.
    pub(super) fn first(&self) -> Option<Line> {
        self.first
    }

    /// The timestamp of the line that began last.
    pub(super) fn last_timestamp(&self) -> Option<Timestamp> {
        self.line.map(|line| line.at)
    }

    /// The line that began last, and the number of its bytes that were taken. `None` while nothing was delivered or an
    /// incomplete character is held back.
    pub(super) fn current_line(&self) -> Option<(Line, u64)> {
        self.first?;
        (self.out.is_empty() && self.skip == 0).then_some((self.line?, self.line_bytes))
    }

    /// Bytes that are still to be skipped.
    pub(super) fn unskipped(&self) -> u64 {
        self.skip
    }

    /// Where the next read of the same log begins, once everything was taken. A read that ended while skipping starts
    /// over.
    pub(super) fn next(&self) -> Start {
        match (self.first, self.line) {
            (Some(_), Some(line)) if self.skip == 0 => Start::Resume {
                line,
                skip: self.line_bytes,
            },
            _ => self.start,
        }
    }

    /// Bytes at the beginning of a line.
    fn begin_line(&mut self, bytes: &[u8]) -> Result<(), RenderError> {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.iter().position(|b| *b == b' ' || *b == b'\n') else {
            if self.head.len() > LONGEST_TIMESTAMP {
                self.begin_message();
            }
            return Ok(());
        };
        let at = std::str::from_utf8(&self.head[..end])
            .ok()
            .and_then(|t| t.parse::<Timestamp>().ok());
        let Some(at) = at.filter(|_| self.head[end] == b' ') else {
            self.begin_message();
            return Ok(());
        };
        let opens = self.line.is_none();
        let nth = self.line.filter(|l| l.at == at).map_or(0, |l| l.nth + 1);
        let line = Line { at, nth };
        if self.later_files.contains(&at) {
            self.head.clear();
            return Err(RenderError::NextFile);
        }
        if opens && self.file.is_some_and(|first| first != at) || self.is_of_later_file(at) {
            return Err(RenderError::Gap);
        }
        (self.line, self.line_bytes) = (Some(line), 0);
        self.last.push_back(line);
        while self.last.len() > self.tail + 1 {
            self.last.pop_front();
        }
        let head = std::mem::take(&mut self.head);
        if self.delivers(line, opens)? {
            self.first.get_or_insert(line);
            self.phase = Phase::Deliver;
            let from = if self.timestamps { 0 } else { end + 1 };
            self.continue_line(&head[from..]);
        } else {
            self.phase = Phase::Pass;
            self.continue_line(&head[end..]);
        }
        Ok(())
    }

    /// Whether the line belongs to a file after the one that is read.
    fn is_of_later_file(&self, at: Timestamp) -> bool {
        self.later_files
            .iter()
            .any(|first| at.duration_since(*first) > DISORDER)
    }

    /// Bytes after the beginning of a line, at most to its end.
    fn continue_line(&mut self, bytes: &[u8]) {
        match self.phase {
            Phase::Deliver => {
                let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip -= skipped as u64;
                self.line_bytes += bytes.len() as u64;
                self.out.extend_from_slice(&bytes[skipped..]);
            }
            Phase::Message => {
                let kept = KUBELET_MESSAGE.saturating_sub(self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..kept]);
            }
            Phase::Pass | Phase::LineStart => {}
        }
        if bytes.ends_with(b"\n") {
            self.end_of_line();
        }
    }

    /// `opens`: the line is the first one of this read.
    fn delivers(&mut self, line: Line, opens: bool) -> Result<bool, RenderError> {
        if self.first.is_some() {
            return Ok(true);
        }
        match self.start {
            Start::Beginning => Ok(true),
            Start::Since(at) => Ok(line.at >= at),
            Start::From(wanted) => Ok(line == wanted || line.at > wanted.at),
            Start::File(first) if opens && first == Some(line.at) => Ok(true),
            Start::File(_) => Err(RenderError::Gap),
            Start::Resume { line: wanted, .. } if line == wanted => Ok(true),
            Start::Resume { line: wanted, .. } if line.at.duration_since(wanted.at) > DISORDER => Err(RenderError::Gap),
            Start::Resume { .. } => Ok(false),
        }
    }

    /// The line has no timestamp. At the beginning of a read it may be the rest of an earlier line; anywhere else it is
    /// the kubelet's.
    fn begin_message(&mut self) {
        self.phase = Phase::Message;
        if self.head.ends_with(b"\n") {
            self.end_of_line();
        }
    }

    fn end_of_line(&mut self) {
        if self.phase != Phase::Message {
            self.phase = Phase::LineStart;
        } else if self.line.is_none() {
            self.phase = Phase::LineStart;
            self.stray = std::mem::take(&mut self.head);
        }
    }
}

/// The timestamp with which the log begins.
pub(super) fn first_timestamp(log: &[u8]) -> Option<Timestamp> {
    let end = log.iter().position(|b| *b == b' ')?;
    std::str::from_utf8(&log[..end]).ok()?.parse().ok()
}

/// Length of the longest prefix that ends with a whole character; all of it if it is not UTF-8 anyway.
pub(super) fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    let Some(lead) = bytes[tail..].iter().rposition(|b| b & 0xC0 != 0x80) else {
        return bytes.len();
    };
    let wanted = match bytes[tail + lead] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    let there = bytes.len() - tail - lead;
    if there < wanted { tail + lead } else { bytes.len() }
}

#[cfg(test)]
mod tests;
