//! The files of a log that the kubelet rotates.
//!
//! The kubelet gives out the newest file only, and a read that follows a log moves from a full file to the newest one
//! by itself: without a mark, possibly before the end of the old file, past files in between, or into one file twice.
//! So each file is read on its own: its first timestamp identifies it, what comes in while the newest file is still the
//! same one belongs to that file, and a second connection to each file, of which nothing is read until the next file
//! exists, keeps the file on the node until its end was read.

use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

use super::source::{LogReader, Part, PodLog};

/// Bytes below which a file is not rotated; the kubelet's default is 10 MiB. While a log is smaller, its files need no
/// checks.
pub(super) const SMALL: usize = 1 << 20;
/// The kubelet rotates a log no more often than this: the shortest `containerLogMonitorInterval`.
const ROTATION_INTERVAL: Duration = Duration::from_secs(3);
/// Between two lines that are closer than this there is no file: a container runtime does not write one in so little
/// time.
const FILE_WRITE_TIME: SignedDuration = SignedDuration::from_millis(20);
/// Between two checks of a log that grows or waits for its reader.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two checks that new bytes ask for.
const SHORTEST_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a log is checked that does not grow. After that, its reader has reached the end of the file and sees the
/// next one.
const CHECKED_WITHOUT_GROWTH: Duration = Duration::from_secs(15);
/// Age at which a connection that is kept for later is replaced.
const RESERVE_AGE: Duration = Duration::from_secs(300);
/// Files that wait for their reader. Their space on the node is not freed until then.
const MOST_FILES: usize = 8;
/// Checks that may fail one after another.
const ATTEMPTS: usize = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// The files of a log from the one that is read to the newest.
pub(super) struct Files {
    log: PodLog,
    /// Empty while the log is small.
    files: VecDeque<File>,
    /// First timestamp of the file that is read, if it is not read from its beginning.
    identified: Option<Option<Timestamp>>,
    /// Bytes of that file, as far as they were read.
    bytes: usize,
    /// Beginning of the last check.
    checked: Instant,
    /// When the first bytes after the last check came in.
    unchecked_since: Option<Instant>,
    grew: Instant,
    /// There are files after the last one that are not read in time.
    missed: bool,
}

struct File {
    /// First timestamp; `None` while the file is empty.
    first: Option<Timestamp>,
    /// A connection to the beginning of the file, of which nothing was read.
    reserve: Option<LogReader>,
    opened: Instant,
    /// No other file can be between this one and the one before.
    adjacent: bool,
}

/// Bytes are missing between two files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missed;

/// Whether the newest file is still the one that is known; an empty file may have got its first line.
fn is_same(known: Option<Timestamp>, found: Option<Timestamp>) -> bool {
    known.is_none() || known == found
}

/// Whether no file can be between a line and the first line of a later file.
fn adjoin(last: Option<Timestamp>, first: Option<Timestamp>) -> bool {
    matches!((last, first), (Some(last), Some(first)) if first.duration_since(last) < FILE_WRITE_TIME)
}

impl Files {
    /// Of a log that is read from its beginning; nothing of it was read yet.
    pub(super) fn new(log: PodLog) -> Files {
        let now = Instant::now();
        Files {
            log,
            files: VecDeque::new(),
            identified: None,
            bytes: 0,
            checked: now,
            unchecked_since: None,
            grew: now,
            missed: false,
        }
    }

    /// Checks the files from now on. `first`: the first timestamp of the file that is read, if it is read from its
    /// beginning.
    pub(super) fn watch(&mut self, first: Option<Timestamp>) {
        if self.files.is_empty() {
            self.files.push_back(File {
                first: self.identified.unwrap_or(first),
                reserve: None,
                opened: Instant::now(),
                adjacent: true,
            });
        }
    }

    /// Whether the files are checked.
    pub(super) fn is_watching(&self) -> bool {
        !self.files.is_empty()
    }

    /// `bytes` came in.
    pub(super) fn received(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.grew = Instant::now();
        self.unchecked_since.get_or_insert(self.grew);
    }

    /// Whether the file is so large that it may be rotated soon.
    pub(super) fn is_large(&self) -> bool {
        self.bytes >= SMALL
    }

    /// The time of the check that releases bytes which came in, unless more come before.
    pub(super) fn next_release(&self) -> Instant {
        if self.is_watching() {
            self.checked + SHORTEST_CHECK_INTERVAL
        } else {
            self.checked
        }
    }

    /// The time of the next check if no bytes come in.
    pub(super) fn next_check(&self) -> Option<Instant> {
        (self.is_watching() && self.grew.elapsed() < CHECKED_WITHOUT_GROWTH).then(|| self.checked + CHECK_INTERVAL)
    }

    /// The time of the next check while the reader waits for its own.
    pub(super) fn next_check_of_waiting(&self) -> Instant {
        self.checked + CHECK_INTERVAL
    }

    /// Identifies and measures the newest file, before it is opened somewhere else than at its beginning.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn identify(&mut self) -> Result<(), Status> {
        let started = Instant::now();
        let (first, bytes) = self.log.measure(SMALL).await?;
        (self.identified, self.bytes) = (Some(first), bytes);
        (self.checked, self.unchecked_since) = (started, None);
        if bytes >= SMALL {
            self.watch(first);
        }
        Ok(())
    }

    /// Finds out whether there is a newer file, and opens it.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn check(&mut self) -> Result<(), Status> {
        if self.missed {
            self.checked = Instant::now();
            return Ok(());
        }
        let mut attempt = 1;
        loop {
            match self.try_check().await {
                Err(_) if attempt < ATTEMPTS => tokio::time::sleep(RETRY_PAUSE).await,
                other => return other,
            }
            attempt += 1;
        }
    }

    async fn try_check(&mut self) -> Result<(), Status> {
        let started = Instant::now();
        let first = self.log.first_timestamp().await?;
        // A reader that has reached the end of a file sees its rotation at once.
        let unchecked_since = self.unchecked_since.map_or(self.checked, |at| at.max(self.checked));
        let adjacent = unchecked_since.elapsed() < ROTATION_INTERVAL;
        let waiting = self.files.len();
        match self.files.back_mut() {
            None => self.watch(first),
            Some(newest) if is_same(newest.first, first) => {
                newest.adjacent &= newest.first == first || adjacent;
                newest.first = first;
            }
            Some(_) if waiting > MOST_FILES => self.missed = true,
            Some(_) => self.files.push_back(File {
                first,
                reserve: None,
                opened: started,
                adjacent,
            }),
        }
        (self.checked, self.unchecked_since) = (started, None);
        if let Some(newest) = self.files.back_mut()
            && !self.missed
            && (newest.reserve.is_none() || newest.opened.elapsed() > RESERVE_AGE)
        {
            let part = Part {
                follow: true,
                ..Part::default()
            };
            (newest.reserve, newest.opened) = (Some(self.log.open(part).await?), started);
        }
        Ok(())
    }

    /// Whether there is a file after the one that is read.
    pub(super) fn is_rotated(&self) -> bool {
        self.files.len() > 1 || self.missed
    }

    /// First timestamp of the file that is read.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.files.front().and_then(|file| file.first)
    }

    /// First timestamps of the files after it.
    pub(super) fn later(&self) -> Vec<Timestamp> {
        self.files.iter().skip(1).filter_map(|file| file.first).collect()
    }

    /// The connection that was kept to the file that is read.
    pub(super) fn take_reserve(&mut self) -> Option<LogReader> {
        self.files.front_mut()?.reserve.take()
    }

    /// The file was read to its end, which is a line with the timestamp `last`: the next one is read now.
    ///
    /// # Errors
    /// A file in between may be missing.
    pub(super) fn advance(&mut self, last: Option<Timestamp>) -> Result<(), Missed> {
        let next = self.files.get(1).ok_or(Missed)?;
        if !next.adjacent && !adjoin(last, next.first) {
            return Err(Missed);
        }
        self.files.pop_front();
        Ok(())
    }

    /// The connection to the file that is read, if that is the newest file; another one is kept in its place.
    ///
    /// # Errors
    /// The log's.
    pub(super) async fn follow_newest(&mut self) -> Result<Option<LogReader>, Status> {
        if self.is_rotated() {
            return Ok(None);
        }
        let Some(reader) = self.take_reserve() else {
            return Ok(None);
        };
        self.check().await?;
        if self.is_rotated() {
            if let Some(file) = self.files.front_mut() {
                file.reserve = Some(reader);
            }
            return Ok(None);
        }
        Ok(Some(reader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<Timestamp> {
        Some(format!("2026-11-28T14:00:{text}Z").parse().unwrap())
    }

    #[test]
    fn a_file_is_the_same_while_its_first_line_is() {
        assert!(is_same(at("01.5"), at("01.5")));
        assert!(
            is_same(None, None) && is_same(None, at("01")),
            "an empty file gets its first line"
        );
        assert!(!is_same(at("01"), at("01.000000001")));
        assert!(!is_same(at("01"), None), "the next file is empty");
    }

    #[test]
    fn only_lines_that_are_close_rule_out_a_file_between_them() {
        assert!(adjoin(at("01"), at("01.019")));
        assert!(adjoin(at("01.001"), at("01")), "stdout and stderr may be out of order");
        assert!(!adjoin(at("01"), at("01.02")));
        assert!(!adjoin(None, at("01")) && !adjoin(at("01"), None));
    }
}
