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

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::agent_contract::{AgentCommand, BINARY_NAME};

/// Runs a subcommand. Returns the exit code.
pub fn run(command: AgentCommand) -> ExitCode {
    match command {
        AgentCommand::Run(args) => ExitCode::from(main_process::run(&args)),
        AgentCommand::Exec { tty, command } => ExitCode::from(terminal::exec(Path::new(&tty), &command)),
        AgentCommand::Stdio => exit_code("serve", server::stdio()),
        AgentCommand::Install { directory } => exit_code(&format!("install into {directory}"), install(Path::new(&directory))),
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
    let (partial, whole) = (directory.join(format!(".{BINARY_NAME}")), directory.join(BINARY_NAME));
    std::fs::copy("/proc/self/exe", &partial)?;
    std::fs::rename(partial, whole)
}

/// One line on stderr, which is the sandbox's log. A closed stderr is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox-operator agent: {text}");
}
