//! `verify-network`: runs the check of NetworkPolicy on request.

use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use crate::kube::{ApiClient, ApiMetrics};
use crate::network_check::{Enforcement, Report, check};
use crate::process;
use crate::telemetry::chain;

/// Where to check.
#[derive(Debug, clap::Args)]
pub struct VerifyNetworkOptions {
    /// Configuration file of the operator: it names the image and the namespace.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Namespace of the two pods, instead of the configured one.
    #[arg(long)]
    namespace: Option<String>,
    /// Image of sandbox-operator, instead of the configured one.
    #[arg(long)]
    image: Option<String>,
}

/// Checks once, with the rights of the kubeconfig or of the pod's ServiceAccount, and prints the result. The exit code is 0
/// if the cluster enforces NetworkPolicy, 1 if it does not, 2 if that is not known.
pub fn verify_network(options: VerifyNetworkOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let checked = match runtime {
        Ok(runtime) => runtime.block_on(run(options)),
        Err(error) => Err(error.to_string()),
    };
    let report = checked.unwrap_or_else(|error| Report::unknown(&error));
    print!("{}", report.table());
    println!("{}", report.message);
    ExitCode::from(exit_code(report.result))
}

fn exit_code(result: Enforcement) -> u8 {
    match result {
        Enforcement::Enforced => 0,
        Enforcement::NotEnforced => 1,
        Enforcement::Unknown => 2,
    }
}

async fn run(options: VerifyNetworkOptions) -> Result<Report, String> {
    let config: Config = process::read_config(options.config.as_deref()).map_err(|error| chain(&error))?;
    let mut settings = config.probe_settings();
    settings.namespace = options.namespace.unwrap_or(settings.namespace);
    settings.image = options.image.unwrap_or(settings.image);
    let client = crate::kube::connect().await.map_err(|error| chain(&error))?;
    let client = ApiClient::new(client, ApiMetrics::register(&mut Default::default()));
    let stop = CancellationToken::new();
    let stopped = async {
        process::terminated().await;
        stop.cancel();
        std::future::pending().await
    };
    tokio::select! {
        report = Box::pin(check(&client, &settings, &stop)) => Ok(report),
        () = stopped => Err("stopped".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_what_was_found() {
        assert_eq!(Enforcement::ALL.map(exit_code), [0, 1, 2]);
    }
}
