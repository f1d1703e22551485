//! What runs inside a sandbox: PID 1 of its main container. Static, without dependencies on the image, and without
//! any other module of this crate: nothing of the operator is reachable from where untrusted code runs.

mod main_process;

use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the agent is asked to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs the main command as PID 1: forwards signals, reaps, and exits as it does. Without a command, stays until told to stop.
    Run {
        /// Most processes and threads of the sandbox (RLIMIT_NPROC). Only given with a user namespace: without one the kernel would
        /// count the processes of equal uids in other sandboxes of the node as well.
        #[arg(long)]
        max_processes: Option<u64>,
        /// The main command.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Becomes the main command: what `run` starts as its child.
    #[command(hide = true)]
    Exec {
        /// The main command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copies this binary into a folder: how an init container delivers the agent where image volumes are not supported.
    Install {
        /// The folder.
        directory: PathBuf,
    },
}

/// Runs `verb` and says how to exit.
pub fn run(verb: Verb) -> ExitCode {
    match verb {
        Verb::Run { max_processes, command } => ExitCode::from(main_process::run(max_processes, &command)),
        Verb::Exec { command } => ExitCode::from(main_process::exec(&command)),
        Verb::Install { directory } => match install(&directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                main_process::say(&format!("install into {}: {error}", directory.display()));
                ExitCode::FAILURE
            }
        },
    }
}

/// Copies under another name first: a restarted init container must not leave half a binary.
fn install(directory: &Path) -> std::io::Result<()> {
    let (partial, whole) = (directory.join(".sandbox-operator"), directory.join("sandbox-operator"));
    std::fs::copy("/proc/self/exe", &partial)?;
    std::fs::rename(partial, whole)
}
