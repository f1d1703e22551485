//! Terminals for commands that want one.

use super::fd::Fd;
use super::reaper::{NOT_EXECUTABLE, NOT_FOUND, not_started};
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

/// What a terminal turns into the end of input.
pub const END_OF_INPUT: &[u8] = &[4];

/// A new terminal, and what starts a command on it: this binary, since a terminal can only be taken by the process itself.
/// The command's standard output is where [`exec`] tells that it did not succeed.
pub fn open(size: &TerminalSize, command: &[String]) -> io::Result<(Fd, Command)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    resize(&master, size)?;
    let tty = ptsname(&master, Vec::new())?.into_string().map_err(io::Error::other)?;
    let command = command.to_vec();
    let argv = AgentCommand::Exec { tty, command }.argv("/proc/self/exe");
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if std::env::var_os("TERM").is_none() {
        command.env("TERM", "xterm");
    }
    Ok((Fd::new(master)?, command))
}

/// Tells the terminal its size.
pub fn resize(terminal: impl AsFd, size: &TerminalSize) -> io::Result<()> {
    let bounded = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = Winsize {
        ws_row: bounded(size.rows),
        ws_col: bounded(size.columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Becomes the command, as the leader of a session with the terminal. If it cannot, it says so on the pipe that it has for standard
/// output: one byte, the exit code, then the reason.
pub fn exec(tty: &Path, command: &[String]) -> u8 {
    let Some((program, args)) = command.split_first() else {
        return NOT_FOUND;
    };
    // Duplicates are closed on exec: the end of the pipe says that it has happened.
    let Ok(mut pipe) = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from) else {
        return NOT_EXECUTABLE;
    };
    let error = match take(tty) {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    let code = not_started(&error);
    let _ = write!(pipe, "{}{error}", char::from(code));
    code
}

fn take(tty: &Path) -> io::Result<()> {
    rustix::process::setsid()?;
    // The first terminal that the leader of a session opens becomes that session's.
    let tty = OpenOptions::new().read(true).write(true).open(tty)?;
    rustix::stdio::dup2_stdin(&tty)?;
    rustix::stdio::dup2_stdout(&tty)?;
    rustix::stdio::dup2_stderr(&tty)?;
    Ok(())
}

/// Ends every process of a session: job control gives each job a group of its own.
pub fn kill_session(leader: Pid) {
    // More than once, for those that were started meanwhile.
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

/// The session in `/proc/…/stat`, where the program's name, in parentheses, may have anything in it.
fn session(stat: &[u8]) -> Option<Pid> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
    // Behind the name: state, parent, group, session.
    Pid::from_raw(fields.split_whitespace().nth(4)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_does_not_confuse() {
        let read = |stat: &str| session(stat.as_bytes()).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(read("17 (cat) S 1 17 16 34816 17 4194304"), Some(16));
        assert_eq!(read("17 (a) S 9 9 9 (b) R 1 17 16 34816 17"), Some(16));
        assert_eq!(read("2 (kthreadd) S 0 0 0 0 -1"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("17 (cat) S 1"), None);
    }
}
