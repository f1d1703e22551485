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
    /// The last lines, as many as are wanted.
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

    /// Where the last lines begin.
    pub fn start_of_last(&self) -> Start {
        self.last.front().map_or(Start::First, |line| Start::From(*line))
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
            Start::Exactly { .. } if self.first.is_none() => Err(Trouble::Gap),
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

    /// Bytes that were to be skipped and have not come.
    pub fn unskipped(&self) -> u64 {
        self.skip
    }

    /// Where the next read of the same log goes on, once everything was taken. What was skipped in part is skipped anew.
    pub fn next(&self) -> Start {
        match (self.first, self.line) {
            (Some(_), Some(line)) if self.skip == 0 => Start::Exactly { line, skip: self.of_line },
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
        let nth = self.line.filter(|l| l.at == at).map_or(0, |l| l.nth + 1);
        let line = Line { at, nth };
        (self.line, self.of_line) = (Some(line), 0);
        self.last.push_back(line);
        while self.last.len() > self.wanted {
            self.last.pop_front();
        }
        let head = std::mem::take(&mut self.head);
        if self.delivers(line)? {
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

    fn delivers(&mut self, line: Line) -> Result<bool, Trouble> {
        if self.first.is_some() {
            return Ok(true);
        }
        match self.start {
            Start::First => Ok(true),
            Start::Since(at) => Ok(line.at >= at),
            Start::From(wanted) => Ok(line == wanted || line.at > wanted.at),
            Start::Exactly { line: wanted, .. } if line == wanted => Ok(true),
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
mod tests {
    use super::*;

    /// A log as a kubelet has it: entries with times in seconds, and lines that have several parts.
    fn log(lines: &[(&str, &str)]) -> String {
        lines.iter().map(|(at, text)| format!("2026-11-23T13:00:{at}Z {text}")).collect()
    }

    fn at(second: &str) -> Timestamp {
        format!("2026-11-23T13:00:{second}Z").parse().unwrap()
    }

    fn line(second: &str, nth: u32) -> Line {
        Line { at: at(second), nth }
    }

    /// What one read of `log` gives, in pieces of `piece` bytes; and where the next read goes on.
    fn read(log: &[u8], start: Start, timestamps: bool, piece: usize) -> (Vec<u8>, Result<Start, Trouble>) {
        let mut renderer = Renderer::new(start, timestamps);
        let mut out = vec![];
        for bytes in log.chunks(piece.max(1)) {
            if let Err(trouble) = renderer.feed(bytes) {
                return (out, Err(trouble));
            }
            out.extend_from_slice(&renderer.take(false));
        }
        let end = renderer.end();
        out.extend_from_slice(&renderer.take(true));
        (out, end.map(|()| renderer.next()))
    }

    fn text(log: &str, start: Start, timestamps: bool) -> String {
        String::from_utf8(read(log.as_bytes(), start, timestamps, 7).0).unwrap()
    }

    #[test]
    fn timestamps_are_taken_off_or_left_as_they_are() {
        let log = log(&[("01.000000001", "one\n"), ("02.5", "\n"), ("03", "tail"), ("", "")]);
        let log = log.trim_end_matches("2026-11-23T13:00:Z ");
        assert_eq!(text(log, Start::First, false), "one\n\ntail");
        assert_eq!(text(log, Start::First, true), log);
        assert_eq!(text("", Start::First, true), "");
        let elsewhere = "2026-11-23T15:00:01.5+02:00 there\n";
        assert_eq!(
            read(elsewhere.as_bytes(), Start::First, false, 3),
            (
                b"there\n".to_vec(),
                Ok(Start::Exactly {
                    line: line("01.5", 0),
                    skip: 6
                })
            )
        );
    }

    #[test]
    fn a_start_is_exact_to_the_nanosecond_and_among_equals() {
        let log = log(&[("01.1", "a\n"), ("01.2", "b\n"), ("01.2", "c\n"), ("01.2", "d\n"), ("01.9", "e\n")]);
        for (start, expected) in [
            (Start::Since(at("01.100000001")), "b\nc\nd\ne\n"),
            (Start::Since(at("01.1")), "a\nb\nc\nd\ne\n"),
            (Start::Since(at("02")), ""),
            (Start::From(line("01.2", 1)), "c\nd\ne\n"),
            (Start::From(line("01.5", 0)), "e\n"),
            (
                Start::Exactly {
                    line: line("01.2", 2),
                    skip: 1,
                },
                "\ne\n",
            ),
            (
                Start::Exactly {
                    line: line("01.2", 0),
                    skip: 4,
                },
                "d\ne\n",
            ),
        ] {
            assert_eq!(text(&log, start, false), expected, "{start:?}");
        }
    }

    #[test]
    fn the_last_lines_are_found() {
        let log = log(&[("01.1", "a\n"), ("01.2", "b\n"), ("01.2", "c\n"), ("01.9", "unfinished")]);
        for (wanted, start) in [(1, line("01.9", 0)), (2, line("01.2", 1)), (3, line("01.2", 0)), (9, line("01.1", 0))] {
            let mut renderer = Renderer::last_lines(wanted);
            renderer.feed(log.as_bytes()).unwrap();
            assert_eq!(renderer.start_of_last(), Start::From(start));
        }
        assert_eq!(Renderer::last_lines(3).start_of_last(), Start::First);
    }

    #[test]
    fn what_was_out_of_order_stays_so() {
        let log = log(&[("05.1", "out\n"), ("05.0", "err\n"), ("04.9", "err\n"), ("05.2", "out\n")]);
        assert_eq!(text(&log, Start::Since(at("05.1")), false), "out\nerr\nerr\nout\n");
        assert_eq!(
            text(
                &log,
                Start::Exactly {
                    line: line("05.0", 0),
                    skip: 4
                },
                false
            ),
            "err\nout\n"
        );
        assert_eq!(
            Start::Since(at("05.1")).read_since(),
            Some(at("04")),
            "so the kubelet must not filter by it"
        );
        assert_eq!(Start::First.read_since(), None);
        assert_eq!(Start::Since(Timestamp::MIN).read_since(), None);
    }

    #[test]
    fn a_line_that_is_gone_is_a_gap() {
        let log = log(&[("05", "a\n"), ("07", "b\n")]);
        let gone = |second| {
            read(
                log.as_bytes(),
                Start::Exactly {
                    line: line(second, 0),
                    skip: 0,
                },
                false,
                9,
            )
        };
        assert_eq!(gone("03"), (vec![], Err(Trouble::Gap)));
        assert_eq!(gone("06.9"), (vec![], Err(Trouble::Gap)), "at the end of the log at the latest");
        assert_eq!(gone("09"), (vec![], Err(Trouble::Gap)));
        let equals = read(
            log.as_bytes(),
            Start::Exactly {
                line: line("05", 1),
                skip: 0,
            },
            false,
            9,
        );
        assert_eq!(equals.1, Err(Trouble::Gap));
    }

    #[test]
    fn words_of_the_kubelet_are_not_the_containers() {
        let whole = log(&[("05", "a\n")]);
        let cut = format!("rest of a line that began before\n{whole}");
        assert_eq!(text(&cut, Start::First, false), "a\n");
        for said in ["unable to retrieve container logs for containerd://1", "failed\n"] {
            for before in ["", &whole] {
                let (out, end) = read(format!("{before}{said}").as_bytes(), Start::First, false, 4);
                assert_eq!(out, before.strip_prefix("2026-11-23T13:00:05Z ").unwrap_or_default().as_bytes());
                assert_eq!(end, Err(Trouble::Remark(said.trim().into())));
            }
        }
        let (_, end) = read("x".repeat(5000).as_bytes(), Start::First, false, 999);
        assert!(matches!(end, Err(Trouble::Remark(said)) if said.len() < 1500));
    }

    #[test]
    fn characters_are_not_cut_but_what_is_no_text_passes() {
        let mut renderer = Renderer::new(Start::First, false);
        renderer.feed("2026-11-23T13:00:05Z a€".as_bytes().split_last().unwrap().1).unwrap();
        assert_eq!(renderer.take(false), "a");
        renderer.feed(&"€".as_bytes()[2..]).unwrap();
        assert_eq!(renderer.take(false), "€");
        renderer.feed(b"\xff\xfe\x80\x80\x80\x80").unwrap();
        assert_eq!(&renderer.take(false)[..], b"\xff\xfe\x80\x80\x80\x80");
        renderer.feed(b"\xf0\x9f").unwrap();
        assert_eq!((renderer.take(false).len(), renderer.take(true).len()), (0, 2));
    }

    /// A small deterministic source of cases.
    struct Cases(u64);

    impl Cases {
        fn below(&mut self, n: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % n
        }

        /// A log with equal timestamps, some disorder, empty, long and binary lines, and sometimes an unfinished end.
        fn log(&mut self) -> Vec<u8> {
            let (mut log, mut now) = (vec![], 1_795_438_800_000_000_000_i128);
            let lines = 1 + self.below(8);
            for i in 0..lines {
                now += [0, 0, 1, 1_000, 400_000_000, -300_000_000, 2_000_000_000][self.below(7) as usize];
                let length = [0, 1, 5, 60][self.below(4) as usize];
                log.extend_from_slice(format!("{:.9} ", Timestamp::from_nanosecond(now).unwrap()).as_bytes());
                log.extend((0..length).map(|_| [b'a', b' ', 0xC3, 0xA9, 0xFF, b'2'][self.below(6) as usize]));
                if i + 1 < lines || self.below(3) > 0 {
                    log.push(b'\n');
                }
            }
            log
        }
    }

    /// What the kubelet gives of `log` when asked for lines since a moment.
    fn since(log: &[u8], start: Start) -> Vec<u8> {
        let Some(since) = start.read_since() else {
            return log.to_vec();
        };
        let lines = log.split_inclusive(|b| *b == b'\n');
        let kept = lines.filter(|l| std::str::from_utf8(&l[..30]).unwrap().parse::<Timestamp>().unwrap() >= since);
        kept.collect::<Vec<_>>().concat()
    }

    #[test]
    fn every_offset_of_every_log_can_be_resumed() {
        let mut cases = Cases(7);
        for case in 0..100 {
            let log = cases.log();
            let timestamps = case % 2 == 0;
            let mut begun = Renderer::new(Start::First, timestamps);
            begun.feed(&log).unwrap();
            let (whole, first) = (begun.take(true), begun.first().unwrap());
            for offset in 0..=whole.len() {
                let start = Start::Exactly {
                    line: first,
                    skip: offset as u64,
                };
                let (rest, end) = read(&since(&log, start), start, timestamps, 1 + cases.below(50) as usize);
                assert!(end.is_ok(), "{end:?}");
                assert_eq!(rest, whole[offset..], "case {case}, offset {offset}");
            }
        }
    }

    #[test]
    fn reads_that_break_anywhere_join_without_loss_or_duplicates() {
        let mut cases = Cases(11);
        for case in 0..300 {
            let log = cases.log();
            let timestamps = case % 2 == 0;
            let expected = read(&log, Start::First, timestamps, 64).0;
            let (mut start, mut joined) = (Start::First, vec![]);
            for _ in 0..4 {
                let visible = since(&log, start);
                let broken_at = cases.below(visible.len() as u64 + 1) as usize;
                let mut renderer = Renderer::new(start, timestamps);
                renderer.feed(&visible[..broken_at]).unwrap();
                joined.extend_from_slice(&renderer.take(true));
                start = renderer.next();
            }
            joined.extend_from_slice(&read(&since(&log, start), start, timestamps, 5).0);
            assert_eq!(joined, expected, "case {case}");
        }
    }

    #[test]
    fn an_offset_beyond_the_log_is_told() {
        let log = log(&[("05", "a\n")]);
        let mut renderer = Renderer::new(
            Start::Exactly {
                line: line("05", 0),
                skip: 10,
            },
            false,
        );
        renderer.feed(log.as_bytes()).unwrap();
        assert_eq!((renderer.end(), renderer.unskipped(), renderer.take(true).len()), (Ok(()), 8, 0));
    }
}
