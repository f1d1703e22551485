//! Pseudo-terminals for commands that want one.

use super::fd::Fd;
use super::start_error::{NOT_EXECUTABLE, exit_code};
use crate::agent_contract::AgentCommand;
use crate::proto::agent::TerminalSize;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The byte that a terminal takes for the end of input.
pub(super) const END_OF_INPUT: &[u8] = &[4];

/// A new terminal, and the process that executes `command` on it: this binary, since only a process itself can take a
/// terminal as its controlling one. Its standard output carries the report of [`exec`].
pub(super) fn open(size: &TerminalSize, command: &[String]) -> io::Result<(Fd, Command)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    let tty = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    let command = command.to_vec();
    let argv = AgentCommand::Exec { tty, command }.argv("/proc/self/exe");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if std::env::var_os("TERM").is_none() {
        command.env("TERM", "xterm");
    }
    Ok((Fd::new(master)?, command))
}

pub(super) fn resize(terminal: impl AsFd, size: &TerminalSize) -> io::Result<()> {
    let bounded = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: bounded(size.rows),
        ws_col: bounded(size.columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Executes the command in place of this process, as the leader of a session with the terminal. On failure writes the
/// error number to standard output, which is a pipe until then.
pub(super) fn exec(tty: &Path, command: &[String]) -> u8 {
    let Some((program, args)) = command.split_first() else {
        return NOT_EXECUTABLE;
    };
    // This duplicate is closed on exec: the pipe then ends without a report.
    let Ok(mut pipe) = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from) else {
        return NOT_EXECUTABLE;
    };
    let error = match take_terminal(tty) {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    let _ = match error.raw_os_error() {
        Some(number) => write!(pipe, "{number}"),
        None => write!(pipe, "{error}"),
    };
    exit_code(&error)
}

/// The error in the report of [`exec`]; none if it is empty.
pub(super) fn parse_report(report: &[u8]) -> Option<io::Error> {
    let text = String::from_utf8_lossy(report);
    match text.parse() {
        Ok(number) => Some(io::Error::from_raw_os_error(number)),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(io::Error::other(text.into_owned())),
    }
}

fn take_terminal(tty: &Path) -> io::Result<()> {
    rustix::process::setsid()?;
    // The first terminal that the leader of a session opens becomes that session's.
    let tty = OpenOptions::new().read(true).write(true).open(tty)?;
    rustix::stdio::dup2_stdin(&tty)?;
    rustix::stdio::dup2_stdout(&tty)?;
    rustix::stdio::dup2_stderr(&tty)?;
    Ok(())
}

/// Kills every process of a session: job control gives each job a group of its own.
pub(super) fn kill_session(leader: Pid) {
    // Several times, for processes that start during the scan.
    for _ in 0..3 {
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)) {
            let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
            if session(&stat) == Some(leader) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// The session in `/proc/…/stat`. The program's name, in parentheses, may contain anything.
fn session(stat: &[u8]) -> Option<Pid> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
    // After the name: state, parent, group, session.
    Pid::from_raw(fields.split_whitespace().nth(4)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_contain_anything() {
        let read = |stat: &str| session(stat.as_bytes()).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(read("17 (cat) S 1 17 16 34816 17 4194304"), Some(16));
        assert_eq!(read("17 (a) S 9 9 9 (b) R 1 17 16 34816 17"), Some(16));
        assert_eq!(read("2 (kthreadd) S 0 0 0 0 -1"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("17 (cat) S 1"), None);
    }
}
