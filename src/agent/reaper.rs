//! Starts processes and waits for them, for all of the agent.

use rustix::process::{Pid, WaitOptions, WaitStatus, wait, waitpid};
use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Starts processes and reports their exit codes.
#[derive(Clone)]
pub(super) struct Reaper {
    /// Whether orphans become children of this process, so that it has to wait for every child.
    orphans: bool,
    /// Processes that have not been waited for. While one is here, its process id and its group's cannot be reused.
    running: Arc<Mutex<HashMap<Pid, oneshot::Sender<u8>>>>,
}

/// A process that has been started.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Its pipes. Only the reaper may wait for it.
    pub(super) child: Child,
    /// Its exit code: 128 + signal number if a signal ended it.
    pub(super) exit: oneshot::Receiver<u8>,
}

impl Reaper {
    /// `orphans`: whether this process inherits orphans.
    pub(super) fn new(orphans: bool) -> Reaper {
        Reaper {
            orphans,
            running: Arc::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Pid, oneshot::Sender<u8>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Started> {
        // Locked until it is inserted: the process may exit before this returns.
        let mut running = self.running();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (sender, exit) = oneshot::channel();
        running.insert(pid, sender);
        Ok(Started { pid, child, exit })
    }

    /// Collects every process that has exited. Must be called after each SIGCHLD, which may stand for several.
    pub(super) fn reap(&self) {
        let mut running = self.running();
        for (pid, status) in self.exited(&running) {
            if let Some(exit) = running.remove(&pid) {
                let _ = exit.send(exit_code(status));
            }
        }
    }

    fn exited(&self, running: &HashMap<Pid, oneshot::Sender<u8>>) -> Vec<(Pid, WaitStatus)> {
        if self.orphans {
            std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).collect()
        } else {
            running
                .keys()
                .filter_map(|pid| waitpid(Some(*pid), WaitOptions::NOHANG).ok().flatten())
                .collect()
        }
    }

    /// Calls `signal` unless the process has been waited for: after that its id may be reused.
    pub(super) fn if_running(&self, pid: Pid, signal: impl FnOnce(Pid)) {
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
