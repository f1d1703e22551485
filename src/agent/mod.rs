//! The process that runs inside a sandbox: PID 1 of the main container, and a gRPC server for commands and files there.
//! It needs nothing from the image. It uses only the protocol, the tokens and the contract of this crate, so that no
//! code of the operator runs beside untrusted code.

mod copy_files;
mod exec;
mod fd;
mod file_error;
mod files;
mod main_process;
mod output;
mod prepare;
mod reaper;
mod regular_file;
mod replacement;
mod report;
mod server;
mod start_error;
mod terminal;

use std::path::Path;
use std::process::ExitCode;

use self::report::{log, report};
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
        AgentCommand::Install { directory } => {
            exit_code(&format!("install into {directory}"), install(Path::new(&directory)))
        }
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
