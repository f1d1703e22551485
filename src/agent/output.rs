//! Forwards a command's output: one frame for each read, and no more in memory than the caller takes.

use super::fd::Fd;
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use std::cell::RefCell;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

/// Most bytes of one read. A pipe is full at 64 KiB unless the command enlarged it.
const READ: usize = 32 * 1024;
/// A pipe that is almost full takes part of a write, in whole pages.
const PAGE: usize = 4096;
/// How long an incomplete character waits for its other bytes.
const CHARACTER_TIMEOUT: Duration = Duration::from_millis(20);
/// Most bytes that are read after the command's exit: no pipe holds more (`fs.pipe-max-size`).
const MAX_AFTER_EXIT: usize = 1024 * 1024;
/// Most pipes that are read for processes that outlive their command.
static BACKGROUND_DRAINS: Semaphore = Semaphore::const_new(256);

thread_local! {
    /// One for all commands, since nothing is awaited while it is in use.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Where a command writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// Splits a write at the end of a page.
    Pipe,
    /// Splits a write anywhere.
    Terminal,
}

impl OutputKind {
    /// Whether a read of so many bytes may hold part of a write.
    fn may_be_split(self, bytes: usize) -> bool {
        self == OutputKind::Terminal || bytes.is_multiple_of(PAGE)
    }
}

/// Forwards output until its end, or until `exit` and everything written before it. Returns the pipe if other processes
/// still hold it open.
pub(super) async fn forward<T>(
    fd: Fd,
    kind: OutputKind,
    to: &mpsc::Sender<T>,
    wrap: impl Fn(Bytes) -> T,
    exit: impl Future,
) -> Option<Fd> {
    let mut exit = std::pin::pin!(exit);
    let (mut exited, mut rest) = (false, MAX_AFTER_EXIT);
    // The bytes of an incomplete character.
    let mut held = Bytes::new();
    loop {
        let mut ready = None;
        if !exited {
            tokio::select! {
                _ = &mut exit => exited = true,
                guard = fd.readable() => ready = Some(guard.ok()?),
                () = sleep(CHARACTER_TIMEOUT), if !held.is_empty() => {
                    to.send(wrap(std::mem::take(&mut held))).await.ok()?;
                    continue;
                }
            }
        }
        // Before the read: data that has been read has no other place to wait.
        let permit = to.reserve().await.ok()?;
        match read(&fd, &held) {
            Ok(mut frame) if frame.len() > held.len() => {
                let bytes = frame.len() - held.len();
                rest = if exited { rest.saturating_sub(bytes) } else { rest };
                let incomplete = if rest > 0 && kind.may_be_split(bytes) {
                    incomplete_character(&frame)
                } else {
                    0
                };
                held = frame.split_off(frame.len() - incomplete);
                if !frame.is_empty() {
                    permit.send(wrap(frame));
                }
                if rest == 0 {
                    return Some(fd);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !exited => {
                if let Some(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            last => {
                if !held.is_empty() {
                    permit.send(wrap(held));
                }
                return (last == Err(Errno::AGAIN)).then_some(fd);
            }
        }
    }
}

/// `held` and the bytes that can be read now; `held` alone at the end of the output. A terminal that no process holds
/// open fails with EIO.
fn read(fd: &Fd, held: &Bytes) -> Result<Bytes, Errno> {
    BUFFER.with_borrow_mut(|buffer| {
        let bytes = fd.read_now(buffer)?;
        let mut frame = BytesMut::with_capacity(held.len() + bytes);
        frame.extend_from_slice(held);
        frame.extend_from_slice(&buffer[..bytes]);
        Ok(frame.freeze())
    })
}

/// How many bytes at the end belong to a UTF-8 character that is not complete.
fn incomplete_character(bytes: &[u8]) -> usize {
    let Some((behind, first)) = bytes
        .iter()
        .rev()
        .take(3)
        .enumerate()
        .find(|(_, byte)| **byte & 0xC0 != 0x80)
    else {
        return 0;
    };
    let length = match first {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    if length > behind + 1 { behind + 1 } else { 0 }
}

/// Reads and discards the output of processes whose command has exited: a server in the background must not die of a
/// full or closed pipe.
pub(super) fn drain_in_background(fd: Fd) {
    let Ok(permit) = BACKGROUND_DRAINS.try_acquire() else {
        return;
    };
    tokio::spawn(async move {
        let _permit = permit;
        while let Ok(mut ready) = fd.readable().await {
            match BUFFER.with_borrow_mut(|buffer| fd.read_now(buffer)) {
                // Bounds the cost of a process that writes a lot.
                Ok(1..) => sleep(Duration::from_millis(1)).await,
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Ok(0) | Err(_) => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_incomplete_character_is_held_back() {
        for (text, incomplete) in [
            (&b""[..], 0),
            (b"abc", 0),
            ("aä".as_bytes(), 0),
            (b"a\xc3", 1),
            ("€".as_bytes(), 0),
            (b"a\xe2\x82", 2),
            (b"a\xe2", 1),
            ("𝄞".as_bytes(), 0),
            (b"\xf0\x9d\x84", 3),
            (b"\xf0\x9d", 2),
            // Not UTF-8 at all.
            (b"\xff", 0),
            (b"\xc0", 0),
            (b"\x80\x80\x80\x80", 0),
            (b"\xf0\x80\x80\x80\x80", 0),
        ] {
            assert_eq!(incomplete_character(text), incomplete, "{text:x?}");
        }
    }
}
