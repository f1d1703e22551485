//! What runs inside a sandbox: PID 1 of its main container, and the server for commands and files there. Static, without dependencies
//! on the image; of this crate it knows only the protocol and the tokens: nothing of the operator is where untrusted code runs.

mod exec;
mod fd;
mod file_error;
mod files;
mod main_process;
mod output;
mod place;
mod reaper;
mod replacement;
mod server;
mod terminal;

use clap::Subcommand;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Environment variable with the pod's UID. It is for the agent: its children do not get it.
pub const POD_UID_VARIABLE: &str = "SANDBOX_OPERATOR_POD_UID";

/// What the agent is asked to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs the main command as PID 1: forwards signals, reaps, and exits as it does. Without a command, stays until told to stop.
    /// Serves commands and files on its port, if it has a key and knows its pod.
    Run(main_process::Options),
    /// Becomes a command with a terminal: what the server starts as its child.
    #[command(hide = true)]
    Exec {
        /// The terminal.
        #[arg(long)]
        tty: PathBuf,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Serves commands and files to one client on standard input and output, for containers whose main process is not the agent.
    /// Asks for no token: who may start a process in the container needs none.
    Stdio,
    /// Copies this binary into a folder: how an init container delivers the agent where image volumes are not supported.
    Install {
        /// The folder.
        directory: PathBuf,
    },
}

/// Runs `verb` and says how to exit.
pub fn run(verb: Verb) -> ExitCode {
    match verb {
        Verb::Run(options) => ExitCode::from(main_process::run(&options)),
        Verb::Exec { tty, command } => ExitCode::from(terminal::exec(&tty, &command)),
        Verb::Stdio => exit_code("serve", server::stdio()),
        Verb::Install { directory } => exit_code(&format!("install into {}", directory.display()), install(&directory)),
    }
}

fn exit_code(doing: &str, result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{doing}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Copies under another name first: a restarted init container must not leave half a binary.
fn install(directory: &Path) -> std::io::Result<()> {
    let (partial, whole) = (directory.join(".sandbox-operator"), directory.join("sandbox-operator"));
    std::fs::copy("/proc/self/exe", &partial)?;
    std::fs::rename(partial, whole)
}

/// One line on stderr, which is the sandbox's log. A closed stderr is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox-operator agent: {text}");
}
