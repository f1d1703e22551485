//! The way of a command's output: one frame for each read, never more in memory than the caller takes.

use super::fd::Fd;
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use std::cell::RefCell;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

/// Most bytes of one read. A pipe is full at 64 KiB unless the command enlarged it.
const READ: usize = 32 * 1024;
/// What a pipe takes from a write that does not fit: whole pages.
const PAGE: usize = 4096;
/// How long the first bytes of a character wait for the others.
const HOLD: Duration = Duration::from_millis(20);
/// Most bytes that are taken after the command's own end: no pipe holds more (`fs.pipe-max-size`).
const REST: usize = 1024 * 1024;
/// Most pipes that are kept open for those who outlived their command.
static LEFT_BEHIND: Semaphore = Semaphore::const_new(256);

thread_local! {
    /// One for all, since nothing waits while it is in use.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// Where a command writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It cuts a write where a page ends.
    Pipe,
    /// It cuts anywhere.
    Terminal,
}

impl Kind {
    /// Whether a read of so many bytes may have cut what was written.
    fn may_be_cut(self, bytes: usize) -> bool {
        self == Kind::Terminal || bytes.is_multiple_of(PAGE)
    }
}

/// Passes output on until its end, or until `exit` and what was written before it. Gives the pipe back if others still hold it open.
pub async fn pump<T>(fd: Fd, kind: Kind, to: &mpsc::Sender<T>, wrap: impl Fn(Bytes) -> T, exit: impl Future) -> Option<Fd> {
    let mut exit = std::pin::pin!(exit);
    let (mut ended, mut rest) = (false, REST);
    // The beginning of a character whose end was not read yet.
    let mut held = Bytes::new();
    loop {
        let mut ready = None;
        if !ended {
            tokio::select! {
                _ = &mut exit => ended = true,
                guard = fd.readable() => ready = Some(guard.ok()?),
                () = sleep(HOLD), if !held.is_empty() => {
                    to.send(wrap(std::mem::take(&mut held))).await.ok()?;
                    continue;
                }
            }
        }
        // Room first: what has been read cannot wait anywhere else.
        let room = to.reserve().await.ok()?;
        match read(&fd, &held) {
            Ok(mut frame) if frame.len() > held.len() => {
                let bytes = frame.len() - held.len();
                rest = if ended { rest.saturating_sub(bytes) } else { rest };
                let cut = if rest > 0 && kind.may_be_cut(bytes) { cut_character(&frame) } else { 0 };
                held = frame.split_off(frame.len() - cut);
                if !frame.is_empty() {
                    room.send(wrap(frame));
                }
                if rest == 0 {
                    return Some(fd);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if !ended => {
                if let Some(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            last => {
                if !held.is_empty() {
                    room.send(wrap(held));
                }
                return (last == Err(Errno::AGAIN)).then_some(fd);
            }
        }
    }
}

/// `held` and what can be read now: no more than `held` at the end. A terminal that nobody else holds any more answers EIO.
fn read(fd: &Fd, held: &Bytes) -> Result<Bytes, Errno> {
    BUFFER.with_borrow_mut(|buffer| {
        let bytes = fd.read_now(buffer)?;
        let mut frame = BytesMut::with_capacity(held.len() + bytes);
        frame.extend_from_slice(held);
        frame.extend_from_slice(&buffer[..bytes]);
        Ok(frame.freeze())
    })
}

/// How many bytes at the end begin a UTF-8 character without ending it.
fn cut_character(bytes: &[u8]) -> usize {
    let Some((behind, first)) = bytes.iter().rev().take(3).enumerate().find(|(_, byte)| **byte & 0xC0 != 0x80) else {
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

/// Goes on reading for those whose command has ended: a server in the background must not die because nobody takes what it logs.
pub fn leave_behind(fd: Fd) {
    let Ok(place) = LEFT_BEHIND.try_acquire() else {
        return;
    };
    tokio::spawn(async move {
        let _place = place;
        while let Ok(mut ready) = fd.readable().await {
            match BUFFER.with_borrow_mut(|buffer| fd.read_now(buffer)) {
                // The pause bounds what a chatty one costs.
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
    fn only_a_cut_character_is_held_back() {
        for (text, cut) in [
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
            assert_eq!(cut_character(text), cut, "{text:x?}");
        }
    }
}
