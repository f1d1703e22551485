//! The main command as a child of PID 1.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Exit codes of a shell whose command is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs the main command to its end and returns the exit code for the container.
pub fn run(max_processes: Option<u64>, command: &[String]) -> u8 {
    // Blocked before the child starts, so that no SIGCHLD or SIGTERM is lost. The child inherits that; see `exec`.
    let signals = SigSet::all();
    if let Err(error) = signals.thread_block() {
        say(&format!("block signals: {error}"));
        return NOT_EXECUTABLE;
    }
    if let Some(limit) = max_processes
        && let Err(error) = limit_processes(limit)
    {
        say(&format!("limit processes to {limit}: {error}"));
        return NOT_EXECUTABLE;
    }
    let main = match command.split_first() {
        None => None,
        // A process group of its own, so that signals reach all that the command started.
        Some(_) => match Command::new("/proc/self/exe")
            .args(["agent", "exec", "--"])
            .args(command)
            .process_group(0)
            .spawn()
        {
            Ok(child) => Some(Pid::from_raw(child.id().cast_signed())),
            Err(error) => {
                say(&format!("start: {error}"));
                return NOT_EXECUTABLE;
            }
        },
    };
    serve(&signals, main)
}

/// Becomes the main command. Unblocks signals here, in the child: in the parent there would be a moment in which one is lost.
pub fn exec(command: &[String]) -> u8 {
    let Some((program, args)) = command.split_first() else {
        return NOT_FOUND;
    };
    let error = match SigSet::empty().thread_set_mask() {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error.into(),
    };
    say(&format!("start {program}: {error}"));
    if error.kind() == ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

/// Never above what the container was given: raising a limit takes a right that a sandbox has not.
fn limit_processes(limit: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NPROC)?;
    let limit = limit.min(hard);
    setrlimit(Resource::RLIMIT_NPROC, limit, limit)
}

fn serve(signals: &SigSet, main: Option<Pid>) -> u8 {
    loop {
        // A signal may stand for several children: reap before waiting again.
        if let Some(code) = reap(main) {
            return code;
        }
        match (signals.wait(), main) {
            (Ok(Signal::SIGCHLD) | Err(_), _) => {}
            (Ok(signal), Some(group)) => {
                // ESRCH: it has just ended, and its exit is about to be reaped.
                let _ = kill(Pid::from_raw(-group.as_raw()), signal);
            }
            (Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP), None) => {
                return 0;
            }
            (Ok(_), None) => {}
        }
    }
}

/// Reaps every child that has ended; the exit code once the main one has.
fn reap(main: Option<Pid>) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if Some(pid) == main => {
                return Some(code.to_le_bytes()[0]);
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if Some(pid) == main => {
                return Some(128u8.saturating_add((signal as i32).to_le_bytes()[0]));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(_) => {}
        }
    }
}

/// One line on stderr, which is the sandbox's log. A closed stderr is no reason to stop.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox-operator agent: {text}");
}
