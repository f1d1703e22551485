//! The only one who starts and who waits for processes.

use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Exit codes of a shell whose command is not there, or cannot be run.
pub const NOT_FOUND: u8 = 127;
/// See [`NOT_FOUND`].
pub const NOT_EXECUTABLE: u8 = 126;

/// The exit code that a shell gives to a command that could not be started.
pub fn not_started(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

/// Starts processes and learns how they end.
#[derive(Clone)]
pub struct Reaper {
    /// Whether orphans become our children, so that every child is waited for.
    orphans: bool,
    /// Those that have not been waited for. As long as one is here its process id, and its group's, belong to it alone.
    running: Arc<Mutex<HashMap<Pid, oneshot::Sender<u8>>>>,
}

/// A process that has been started.
pub struct Started {
    /// Its id.
    pub pid: Pid,
    /// Its pipes. Must not be waited on.
    pub child: Child,
    /// Its exit code: 128 + signal number if a signal ended it.
    pub exit: oneshot::Receiver<u8>,
}

impl Reaper {
    /// `orphans`: whether this process is the one that inherits them.
    pub fn new(orphans: bool) -> Reaper {
        Reaper {
            orphans,
            running: Arc::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Pid, oneshot::Sender<u8>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        // Locked until it is listed: its end may be there before this returns.
        let mut running = self.running();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (ended, exit) = oneshot::channel();
        running.insert(pid, ended);
        Ok(Started { pid, child, exit })
    }

    /// Waits for every process that has ended. To be called after each SIGCHLD, which may stand for several.
    pub fn reap(&self) {
        let mut running = self.running();
        for (pid, status) in self.ended(&running) {
            if let Some(ended) = running.remove(&pid) {
                let _ = ended.send(exit_code(status));
            }
        }
    }

    fn ended(&self, running: &HashMap<Pid, oneshot::Sender<u8>>) -> Vec<(Pid, WaitStatus)> {
        if self.orphans {
            std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect()
        } else {
            running
                .keys()
                .filter_map(|pid| waitpid(Some(*pid), WaitOptions::NOHANG).ok().flatten())
                .collect()
        }
    }

    /// Does `signal` unless the process has been waited for: after that its id may be another's.
    pub fn while_running(&self, pid: Pid, signal: impl FnOnce(Pid)) {
        let running = self.running();
        if running.contains_key(&pid) {
            signal(pid);
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code.to_le_bytes()[0],
        (None, Some(signal)) => 128u8.saturating_add(signal.to_le_bytes()[0]),
        (None, None) => u8::MAX,
    }
}
