//! From the kubelet's log with timestamps to the bytes a caller gets, so that any byte can be found again by any replica. Pure.
//!
//! The kubelet puts `<RFC 3339> ` before each line. A line is known by its timestamp and, since several can have the same, by how many
//! of them came right before it.

use bytes::BytesMut;
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;

/// Bytes within which a line's timestamp ends.
const LONGEST_TIMESTAMP: usize = 40;
/// The log has two writers, stdout's and stderr's, whose lines can be this much out of order.
const DISORDER: SignedDuration = SignedDuration::from_secs(1);
/// Kubelets look for logs to be rotated no more often than this (`containerLogMonitorInterval`): a file covers at least so much time, so
/// between two lines that are closer there is none.
const SHORTEST_FILE: SignedDuration = SignedDuration::from_secs(3);
/// Bytes kept of a line that is not the container's.
const REMARK: usize = 200;

/// A line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its timestamp.
    pub at: Timestamp,
    /// How many with the same came right before it.
    pub nth: u32,
}

/// What to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Everything.
    First,
    /// From the first line that is not before this moment.
    Since(Timestamp),
    /// From this line, or the first after it if it is gone.
    From(Line),
    /// What comes after `skip` bytes, counted from the beginning of this line. If it is gone that is an error: bytes would be missing.
    Exactly {
        /// The line.
        line: Line,
        /// Bytes after its beginning.
        skip: u64,
        /// Those are all of it, and there were no more lines behind it: it may be the last of a file that was rotated away meanwhile.
        last: bool,
    },
}

impl Start {
    /// The moment from which the log must be read to find it, in whole seconds.
    pub fn read_since(self) -> Option<Timestamp> {
        let at = match self {
            Start::First => return None,
            Start::Since(at) => at,
            Start::From(line) | Start::Exactly { line, .. } => line.at,
        };
        let second = Timestamp::from_second(at.as_second()).ok()?.checked_sub(DISORDER).ok()?;
        (second > Timestamp::UNIX_EPOCH).then_some(second)
    }
}

/// Why a log cannot be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The line to go on from is not there any more.
    Gap,
    /// The kubelet wrote something of its own into the log: what kept it from reading on.
    Remark(String),
}

/// Turns one read of the log into what the caller gets.
pub struct Renderer {
    timestamps: bool,
    start: Start,
    phase: Phase,
    /// The beginning of a line that is not long enough to tell its timestamp.
    head: Vec<u8>,
    /// What came before the first line with a timestamp.
    stray: Vec<u8>,
    /// The line that was begun last.
    line: Option<Line>,
    /// Rendered bytes of it that were delivered or skipped.
    of_line: u64,
    /// Bytes still to be skipped.
    skip: u64,
    first: Option<Line>,
    /// The last lines, one more than are wanted: the first of what was read may be the end of a long one.
    last: VecDeque<Line>,
    wanted: usize,
    out: BytesMut,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// At the beginning of a line.
    LineStart,
    /// In a line that is delivered.
    Deliver,
    /// In a line that is not.
    Pass,
    /// In a line without a timestamp.
    Remark,
}

impl Renderer {
    /// For one read that begins at or before `start`.
    pub fn new(start: Start, timestamps: bool) -> Renderer {
        Renderer {
            timestamps,
            start,
            phase: Phase::LineStart,
            head: Vec::new(),
            stray: Vec::new(),
            line: None,
            of_line: 0,
            skip: if let Start::Exactly { skip, .. } = start { skip } else { 0 },
            first: None,
            last: VecDeque::new(),
            wanted: 0,
            out: BytesMut::new(),
        }
    }

    /// Only finds the last lines.
    pub fn last_lines(wanted: usize) -> Renderer {
        Renderer {
            wanted,
            ..Renderer::new(Start::First, false)
        }
    }

    /// How many lines were found, one more than are wanted at most.
    pub fn lines(&self) -> usize {
        self.last.len()
    }

    /// Where the last lines begin.
    pub fn start_of_last(&self) -> Start {
        let surplus = self.last.len().saturating_sub(self.wanted);
        self.last.get(surplus).map_or(Start::First, |line| Start::From(*line))
    }

    /// Takes the next bytes of the log.
    ///
    /// # Errors
    /// The log cannot be delivered from here on.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |i| i + 1);
            let rest;
            (rest, bytes) = bytes.split_at(end);
            match self.phase {
                Phase::LineStart => self.begin(rest)?,
                _ => self.go_on(rest),
            }
        }
        Ok(())
    }

    /// The log has ended.
    ///
    /// # Errors
    /// The line to begin with never came, or the kubelet could not read to the end.
    pub fn end(&mut self) -> Result<(), Trouble> {
        // A line without a timestamp, and none with one after it: the kubelet's.
        let remark = if self.line.is_none() && self.head.is_empty() {
            &self.stray
        } else {
            &self.head
        };
        if !remark.is_empty() {
            return Err(Trouble::Remark(String::from_utf8_lossy(remark).trim().into()));
        }
        match self.start {
            Start::Exactly { last: false, .. } if self.first.is_none() => Err(Trouble::Gap),
            _ => Ok(()),
        }
    }

    /// What can be delivered: never less than a whole character of UTF-8, unless `all`.
    pub fn take(&mut self, all: bool) -> BytesMut {
        let whole = if all { self.out.len() } else { whole_characters(&self.out) };
        self.out.split_to(whole)
    }

    /// The first line that was delivered.
    pub fn first(&self) -> Option<Line> {
        self.first
    }

    /// The line that was begun last, and how many bytes of the log before its end were taken since its beginning. None where it cannot be
    /// said: nothing was delivered yet, or a character is half there.
    pub fn begun(&self) -> Option<(Line, u64)> {
        self.first?;
        (self.out.is_empty() && self.skip == 0).then_some((self.line?, self.of_line))
    }

    /// Bytes that were to be skipped and have not come.
    pub fn unskipped(&self) -> u64 {
        self.skip
    }

    /// Where the next read of the same log goes on, once everything was taken. What was skipped in part is skipped anew. `ended`: this one
    /// came to the end of the log.
    pub fn next(&self, ended: bool) -> Start {
        let last = ended && self.phase == Phase::LineStart && self.head.is_empty();
        match (self.first, self.line) {
            (Some(_), Some(line)) if self.skip == 0 => Start::Exactly {
                line,
                skip: self.of_line,
                last,
            },
            _ => self.start,
        }
    }

    /// Bytes at the beginning of a line.
    fn begin(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.iter().position(|b| *b == b' ' || *b == b'\n') else {
            if self.head.len() > LONGEST_TIMESTAMP {
                self.remark();
            }
            return Ok(());
        };
        let at = std::str::from_utf8(&self.head[..end]).ok().and_then(|t| t.parse::<Timestamp>().ok());
        let Some(at) = at.filter(|_| self.head[end] == b' ') else {
            self.remark();
            return Ok(());
        };
        let opens = self.line.is_none();
        let nth = self.line.filter(|l| l.at == at).map_or(0, |l| l.nth + 1);
        let line = Line { at, nth };
        (self.line, self.of_line) = (Some(line), 0);
        self.last.push_back(line);
        while self.last.len() > self.wanted + 1 {
            self.last.pop_front();
        }
        let head = std::mem::take(&mut self.head);
        if self.delivers(line, opens)? {
            self.first.get_or_insert(line);
            self.phase = Phase::Deliver;
            let from = if self.timestamps { 0 } else { end + 1 };
            self.go_on(&head[from..]);
        } else {
            self.phase = Phase::Pass;
            self.go_on(&head[end..]);
        }
        Ok(())
    }

    /// Bytes after the beginning of a line: to its end at most.
    fn go_on(&mut self, bytes: &[u8]) {
        match self.phase {
            Phase::Deliver => {
                let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip -= skipped as u64;
                self.of_line += bytes.len() as u64;
                self.out.extend_from_slice(&bytes[skipped..]);
            }
            Phase::Remark => {
                let room = REMARK.saturating_sub(self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..room]);
            }
            Phase::Pass | Phase::LineStart => {}
        }
        if bytes.ends_with(b"\n") {
            self.end_of_line();
        }
    }

    /// `opens`: the line is the first that was read.
    fn delivers(&mut self, line: Line, opens: bool) -> Result<bool, Trouble> {
        if self.first.is_some() {
            return Ok(true);
        }
        match self.start {
            Start::First => Ok(true),
            Start::Since(at) => Ok(line.at >= at),
            Start::From(wanted) => Ok(line == wanted || line.at > wanted.at),
            Start::Exactly { line: wanted, .. } if line == wanted => Ok(true),
            Start::Exactly {
                line: wanted, last: true, ..
            } if opens && line.at > wanted.at && line.at.duration_since(wanted.at) < SHORTEST_FILE => {
                self.skip = 0;
                Ok(true)
            }
            Start::Exactly { line: wanted, .. } if line.at.duration_since(wanted.at) > DISORDER => Err(Trouble::Gap),
            Start::Exactly { .. } => Ok(false),
        }
    }

    /// The line has no timestamp. What is read first may be the rest of a line that began before; anything else is the kubelet's.
    fn remark(&mut self) {
        self.phase = Phase::Remark;
        if self.head.ends_with(b"\n") {
            self.end_of_line();
        }
    }

    fn end_of_line(&mut self) {
        if self.phase != Phase::Remark {
            self.phase = Phase::LineStart;
        } else if self.line.is_none() {
            self.phase = Phase::LineStart;
            self.stray = std::mem::take(&mut self.head);
        }
    }
}

/// Length of the longest beginning that ends with a whole character; all of it if it is not UTF-8 anyway.
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
