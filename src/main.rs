//! One binary, one subcommand per role.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

use sandbox_operator::agent_contract::AgentCommand;
use sandbox_operator::network_probe::ProbeCommand;
use sandbox_operator::{agent, api, gateway, network_probe, operator, telemetry};

/// Sandboxes for untrusted code on any Kubernetes cluster.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Reconciles Sandbox and SandboxSession resources into pods.
    Operator(operator::Options),
    /// Serves the gRPC API that the Python SDK speaks.
    Gateway(gateway::Options),
    /// PID 1 of a sandbox's main container.
    Agent {
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// Checks with two pods whether the cluster enforces NetworkPolicy. Exits with 0 if it does, 1 if it does not, 2 if that
    /// is not known.
    VerifyNetwork(operator::VerifyNetworkOptions),
    /// Runs in the pods of that check.
    #[command(hide = true, subcommand)]
    Probe(ProbeCommand),
    /// Writes the CustomResourceDefinitions into a folder.
    Crds {
        /// The folder.
        directory: PathBuf,
    },
}

fn main() -> ExitCode {
    match Cli::parse().role {
        Role::Operator(options) => telemetry::exit_code(operator::run(options)),
        Role::Gateway(options) => telemetry::exit_code(gateway::run(options)),
        Role::Agent { command } => agent::run(command),
        Role::VerifyNetwork(options) => operator::verify_network(options),
        Role::Probe(command) => network_probe::run(command),
        Role::Crds { directory } => telemetry::exit_code(write_crds(&directory)),
    }
}

fn write_crds(directory: &std::path::Path) -> Result<(), std::io::Error> {
    std::fs::create_dir_all(directory)?;
    api::crds::all()
        .iter()
        .try_for_each(|(name, crd)| std::fs::write(directory.join(name), api::crds::to_yaml(crd)))
}
