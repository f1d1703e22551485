//! The two ends of a check whether the cluster enforces NetworkPolicy: a server and a client, each in a pod of its own.
//! They know nothing of policies or Kubernetes: the client reports which connections succeeded.

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// The port that both policies allow: the positive control.
pub const ALLOWED_PORT: u16 = 8081;
/// The port that only the server's ingress policy denies.
pub const INGRESS_DENIED_PORT: u16 = 8082;
/// The port that only the client's egress policy denies.
pub const EGRESS_DENIED_PORT: u16 = 8083;

/// Longest wait for a connection, and then for the token. Linux sends a lost SYN again after one second.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Shortest time between two rounds of attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// Number of consecutive rounds that must have the expected result.
const CONFIRMATIONS: u32 = 2;

/// The subcommands of the probe.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ProbeCommand {
    /// Sends a token to whoever connects to one of three ports.
    Serve(ServeArgs),
    /// Connects to the three ports, and reports which connections were made.
    Connect(ConnectArgs),
}

/// How to serve.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ServeArgs {
    /// The text that each client receives.
    #[arg(long)]
    pub token: String,
    /// Ends after this many seconds.
    #[arg(long)]
    pub seconds: u64,
}

/// How to connect.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ConnectArgs {
    /// An address of the server. Can be repeated.
    #[arg(long = "address", required = true)]
    pub addresses: Vec<IpAddr>,
    /// The text that the server sends.
    #[arg(long)]
    pub token: String,
    /// How long the policies may take to be in force, in seconds.
    #[arg(long)]
    pub seconds: u64,
    /// File for the report. It is also written to standard output.
    #[arg(long, default_value = "/dev/termination-log")]
    pub report: PathBuf,
}

/// The outcome of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attempt {
    /// The server's token was received.
    Connected,
    /// No connection was established.
    Blocked,
    /// A connection was established, but the token was not received: something in between may have accepted it.
    Unclear,
}

/// The attempts at one address of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The address.
    pub address: IpAddr,
    /// At the port that both policies allow.
    pub allowed: Attempt,
    /// At the port that the ingress policy denies.
    pub ingress_denied: Attempt,
    /// At the port that the egress policy denies.
    pub egress_denied: Attempt,
}

impl Sample {
    /// Whether the policies are enforced for this address.
    fn is_as_expected(&self) -> bool {
        (self.allowed, self.ingress_denied, self.egress_denied)
            == (Attempt::Connected, Attempt::Blocked, Attempt::Blocked)
    }
}

/// What the client reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// The last attempts at each address.
    pub samples: Vec<Sample>,
    /// Milliseconds from the client's start to the last attempts.
    pub milliseconds: u64,
}

/// Runs a subcommand.
pub fn run(command: ProbeCommand) -> ExitCode {
    let done = match command {
        ProbeCommand::Serve(args) => serve(&args),
        ProbeCommand::Connect(args) => connect(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &ServeArgs) -> std::io::Result<()> {
    for port in [ALLOWED_PORT, INGRESS_DENIED_PORT, EGRESS_DENIED_PORT] {
        // The first address does not exist on a node without IPv6.
        let any = [
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ];
        let listener = TcpListener::bind(&any[..])?;
        let token = args.token.clone();
        thread::spawn(move || answer(&listener, &token));
    }
    thread::sleep(Duration::from_secs(args.seconds));
    Ok(())
}

/// One client at a time: there is only one, and it does not wait for long.
fn answer(listener: &TcpListener, token: &str) {
    for mut stream in listener.incoming().flatten() {
        let sent = stream.set_write_timeout(Some(TIMEOUT));
        // A client that disconnects is not an error of the server.
        drop(sent.and_then(|()| stream.write_all(token.as_bytes())));
    }
}

fn connect(args: &ConnectArgs) -> std::io::Result<()> {
    let limit = Duration::from_secs(args.seconds);
    let ports = [ALLOWED_PORT, INGRESS_DENIED_PORT, EGRESS_DENIED_PORT];
    let report = observe(limit, || sample(&args.addresses, ports, &args.token));
    write(&report, &args.report)
}

fn write(report: &ProbeReport, path: &Path) -> std::io::Result<()> {
    let text = serde_json::to_string(report)?;
    println!("{text}");
    std::fs::write(path, text)
}

/// Repeats the attempts until the policies are enforced in consecutive rounds, or until `limit`: an engine may learn of
/// new pods late.
fn observe(limit: Duration, sample: impl Fn() -> Vec<Sample>) -> ProbeReport {
    let start = Instant::now();
    let mut confirmed = 0;
    loop {
        let round = Instant::now();
        let samples = sample();
        confirmed = if samples.iter().all(Sample::is_as_expected) {
            confirmed + 1
        } else {
            0
        };
        if confirmed >= CONFIRMATIONS || start.elapsed() >= limit {
            let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            return ProbeReport { samples, milliseconds };
        }
        thread::sleep(PAUSE.saturating_sub(round.elapsed()));
    }
}

/// Attempts at the three ports of every address, all at the same time.
fn sample(addresses: &[IpAddr], ports: [u16; 3], token: &str) -> Vec<Sample> {
    thread::scope(|scope| {
        let started: Vec<_> = addresses
            .iter()
            .map(|address| {
                let at = |port| scope.spawn(move || attempt(SocketAddr::new(*address, port), token));
                (*address, ports.map(at))
            })
            .collect();
        let ended = started.into_iter().map(|(address, attempts)| {
            let [allowed, ingress_denied, egress_denied] = attempts.map(|a| a.join().unwrap_or(Attempt::Unclear));
            Sample {
                address,
                allowed,
                ingress_denied,
                egress_denied,
            }
        });
        ended.collect()
    })
}

fn attempt(address: SocketAddr, token: &str) -> Attempt {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, TIMEOUT) else {
        return Attempt::Blocked;
    };
    let mut received = vec![0; token.len()];
    let read = stream.set_read_timeout(Some(TIMEOUT));
    match read.and_then(|()| stream.read_exact(&mut received)) {
        Ok(()) if received == token.as_bytes() => Attempt::Connected,
        Ok(()) | Err(_) => Attempt::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn server(token: &'static str) -> u16 {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || answer(&listener, token));
        port
    }

    /// A port at which nothing listens.
    fn closed() -> u16 {
        TcpListener::bind((LOCAL, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn a_connection_counts_only_with_the_token_of_the_server() {
        let samples = sample(&[LOCAL], [server("right"), closed(), server("wrong")], "right");
        let expected = Sample {
            address: LOCAL,
            allowed: Attempt::Connected,
            ingress_denied: Attempt::Blocked,
            egress_denied: Attempt::Unclear,
        };
        assert_eq!(samples, [expected]);
    }

    fn held(denied: Attempt) -> Vec<Sample> {
        vec![Sample {
            address: LOCAL,
            allowed: Attempt::Connected,
            ingress_denied: denied,
            egress_denied: Attempt::Blocked,
        }]
    }

    #[test]
    fn policies_that_hold_late_are_seen_twice_in_a_row() {
        let round = Cell::new(0);
        let outcomes = [Attempt::Blocked, Attempt::Connected, Attempt::Blocked, Attempt::Blocked];
        let report = observe(Duration::from_secs(60), || {
            round.set(round.get() + 1);
            held(outcomes[round.get() - 1])
        });
        assert_eq!((round.get(), report.samples), (4, held(Attempt::Blocked)));
    }

    #[test]
    fn policies_that_do_not_hold_in_time_are_reported_as_last_seen() {
        let report = observe(Duration::ZERO, || held(Attempt::Connected));
        assert_eq!(report.samples, held(Attempt::Connected));
    }

    #[test]
    fn the_report_is_written_and_can_be_read() {
        let path = std::env::temp_dir().join(format!("probe-report-{}", std::process::id()));
        let report = ProbeReport {
            samples: held(Attempt::Unclear),
            milliseconds: 7,
        };
        write(&report, &path).unwrap();
        let read: ProbeReport = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(read, report);
    }
}
