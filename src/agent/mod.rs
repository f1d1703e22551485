//! The process that runs inside a sandbox: PID 1 of the main container, and a gRPC server for commands and files there. It needs nothing
//! from the image. It uses only the protocol, the tokens and the contract of this crate, so that no code of the operator runs beside
//! untrusted code.

mod copy_files;
mod exec;
mod fd;
mod file_error;
mod files;
mod main_process;
mod output;
mod prepare;
mod reaper;
mod replacement;
mod server;
mod start_error;
mod terminal;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::agent_contract::{AgentCommand, BINARY_NAME};

/// Runs a subcommand. Returns the exit code.
pub fn run(command: AgentCommand) -> ExitCode {
    match command {
        AgentCommand::Run(args) => ExitCode::from(main_process::run(&args)),
        AgentCommand::Exec { tty, command } => ExitCode::from(terminal::exec(Path::new(&tty), &command)),
        AgentCommand::Prepare(args) => match prepare::prepare(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                report(&format!("prepare files: {error}"));
                ExitCode::FAILURE
            }
        },
        AgentCommand::Stdio => exit_code("serve", server::stdio()),
        AgentCommand::Install { directory } => exit_code(&format!("install into {directory}"), install(Path::new(&directory))),
    }
}

fn exit_code(action: &str, result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&format!("{action}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Copies to a temporary name first: a restarted init container must not leave half a binary.
fn install(directory: &Path) -> std::io::Result<()> {
    let (temporary, path) = (directory.join(format!(".{BINARY_NAME}")), directory.join(BINARY_NAME));
    std::fs::copy("/proc/self/exe", &temporary)?;
    std::fs::rename(temporary, path)
}

/// The kubelet copies this file into the container's status.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Logs why the process exits, also into the container's status.
fn report(text: &str) {
    log(text);
    // Where the file does not exist or cannot be written, the log has to do.
    let _ = write_termination_log(text);
}

/// Keeps a message that is already there: the main command may have written one.
fn write_termination_log(text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(TERMINATION_LOG)?;
    if file.metadata()?.len() == 0 {
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Writes a line to stderr, which is the sandbox's log. A closed stderr is ignored.
fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox-operator agent: {text}");
}
