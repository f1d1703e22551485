//! What the pods that the operator builds, the gateway and the agent agree on: paths, environment, port and command
//! line. The agent's binary may be older or newer than the one that calls it: a pod keeps the agent that it was created
//! with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};

/// Directory of the agent in every container.
pub const DIRECTORY: &str = "/.sandbox-operator";
/// Directory with the files that the agent copies into the working directory.
pub const FILES_DIRECTORY: &str = "/.sandbox-operator-files";
/// The agent's binary in every container.
pub const BINARY: &str = "/.sandbox-operator/sandbox-operator";
/// The same binary in the operator's own image.
pub const IMAGE_BINARY: &str = "/sandbox-operator";
/// File name of the binary.
pub const BINARY_NAME: &str = "sandbox-operator";
/// Port of the agent, unless the configuration names another.
pub const DEFAULT_PORT: u16 = 8971;
/// Environment variable with the UID of the agent's pod. The agent does not pass it on to the commands that it starts.
pub const POD_UID_VARIABLE: &str = "SANDBOX_OPERATOR_POD_UID";

/// Termination message of the agent for a main command that exits with 255. A container runtime reports the same exit
/// code when it cannot execute the agent itself, without any message.
pub const MAIN_EXITED_WITH_255: &str = "the main command exited with 255";

/// Bytes of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// The agent's subcommands.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AgentCommand {
    /// Runs the main command as PID 1: forwards signals, reaps children, and exits with its exit code. Without a
    /// command, runs until it is stopped. Serves commands and files on its port if it has a key and its pod's UID.
    Run(RunArgs),
    /// Executes a command on a terminal. The agent starts it for commands that want one.
    #[command(hide = true)]
    Exec {
        /// Path of the terminal.
        #[arg(long)]
        tty: String,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Serves commands and files to one client on standard input and output, for containers whose main process is not
    /// the agent. Needs no token: whoever may start a process in the container may call it.
    Stdio,
    /// Prepares files and directories for a container before it starts, as the user of that container.
    #[command(hide = true)]
    Prepare(PrepareArgs),
    /// Copies this binary into a directory. An init container delivers the agent like this where image volumes are not
    /// supported.
    Install {
        /// The directory.
        directory: String,
    },
}

/// How to run as PID 1.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RunArgs {
    /// Port for commands and files [default: 8971].
    #[arg(long)]
    pub port: Option<u16>,
    /// Public key (Ed25519, base64) whose tokens are accepted. Can be repeated; without one nothing is served.
    #[arg(long = "key", value_name = "KEY", value_parser = public_key)]
    pub keys: Vec<String>,
    /// UID of this pod: a token is valid for one pod only. Without it nothing is served.
    #[arg(long, env = POD_UID_VARIABLE)]
    pub pod_uid: Option<String>,
    /// Directory whose files are copied into the working directory before the main command starts.
    #[arg(long)]
    pub files: Option<String>,
    /// Most processes and threads of the sandbox (RLIMIT_NPROC). Set only in a user namespace: without one the kernel
    /// counts the processes of equal UIDs in other sandboxes of the node as well.
    #[arg(long)]
    pub max_processes: Option<u64>,
    /// The main command.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// What an init container prepares.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct PrepareArgs {
    /// Directory with the files, each below a directory that is named after the file's mode in octal.
    #[arg(long, requires = "to")]
    pub from: Option<String>,
    /// Directory to copy them to.
    #[arg(long)]
    pub to: Option<String>,
    /// Directory to create. Can be repeated.
    #[arg(long = "directory", value_name = "DIRECTORY")]
    pub directories: Vec<String>,
}

impl AgentCommand {
    /// The command line that starts `binary` with this subcommand.
    pub fn argv(&self, binary: &str) -> Vec<String> {
        let mut argv = vec![binary.to_owned(), "agent".to_owned()];
        match self {
            AgentCommand::Run(args) => {
                argv.push("run".to_owned());
                args.append_to(&mut argv);
            }
            AgentCommand::Exec { tty, command } => {
                argv.extend(["exec", "--tty", tty, "--"].map(String::from));
                argv.extend_from_slice(command);
            }
            AgentCommand::Prepare(args) => {
                argv.push("prepare".to_owned());
                args.append_to(&mut argv);
            }
            AgentCommand::Stdio => argv.push("stdio".to_owned()),
            AgentCommand::Install { directory } => argv.extend(["install", directory].map(String::from)),
        }
        argv
    }
}

impl PrepareArgs {
    fn append_to(&self, argv: &mut Vec<String>) {
        let PrepareArgs { from, to, directories } = self;
        for (name, value) in [("--from", from), ("--to", to)] {
            if let Some(value) = value {
                argv.extend([name.to_owned(), value.clone()]);
            }
        }
        for directory in directories {
            argv.extend(["--directory".to_owned(), directory.clone()]);
        }
    }
}

impl RunArgs {
    fn append_to(&self, argv: &mut Vec<String>) {
        // Without `..`, so that a new option cannot be forgotten.
        let RunArgs {
            port,
            keys,
            pod_uid,
            files,
            max_processes,
            command,
        } = self;
        let mut option = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                argv.extend([format!("--{name}"), value]);
            }
        };
        option("port", port.map(|port| port.to_string()));
        for key in keys {
            option("key", Some(key.clone()));
        }
        option("pod-uid", pod_uid.clone());
        option("files", files.clone());
        option("max-processes", max_processes.map(|max| max.to_string()));
        argv.push("--".to_owned());
        argv.extend_from_slice(command);
    }

    /// The accepted public keys.
    pub fn public_keys(&self) -> Vec<Vec<u8>> {
        self.keys.iter().filter_map(|key| BASE64.decode(key).ok()).collect()
    }
}

fn public_key(text: &str) -> Result<String, String> {
    match BASE64.decode(text) {
        Ok(key) if key.len() == PUBLIC_KEY_BYTES => Ok(text.to_owned()),
        Ok(key) => Err(format!("{} bytes; a public key has {PUBLIC_KEY_BYTES}", key.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::Parser;

    /// As in `main.rs`.
    #[derive(Parser)]
    enum Cli {
        Agent {
            #[command(subcommand)]
            command: AgentCommand,
        },
    }

    fn parse(argv: &[String]) -> Result<AgentCommand, clap::Error> {
        Cli::try_parse_from(argv).map(|Cli::Agent { command }| command)
    }

    fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(String::from).to_vec()
    }

    #[test]
    fn what_is_built_is_parsed_as_the_same() {
        let everything = RunArgs {
            port: Some(DEFAULT_PORT),
            keys: vec![
                BASE64.encode([1; PUBLIC_KEY_BYTES]),
                BASE64.encode([2; PUBLIC_KEY_BYTES]),
            ],
            pod_uid: Some("0b6d3c1e".into()),
            files: Some(FILES_DIRECTORY.into()),
            max_processes: Some(4096),
            command: strings(["sh", "-c", "echo $1", "--", "--port", ""]),
        };
        let commands = [
            AgentCommand::Run(RunArgs::default()),
            AgentCommand::Run(everything),
            AgentCommand::Exec {
                tty: "/dev/pts/3".into(),
                command: strings(["--tty", "x", "--"]),
            },
            AgentCommand::Prepare(PrepareArgs::default()),
            AgentCommand::Prepare(PrepareArgs {
                from: Some(FILES_DIRECTORY.into()),
                to: Some("/to".into()),
                directories: strings(["/a/b", "/c"]),
            }),
            AgentCommand::Stdio,
            AgentCommand::Install {
                directory: "/install".into(),
            },
        ];
        for command in commands {
            let argv = command.argv(BINARY);
            assert_eq!(parse(&argv).unwrap(), command, "{argv:?}");
        }
    }

    #[test]
    fn a_key_must_be_an_ed25519_public_key() {
        for (key, problem) in [("c2hvcnQ=", "5 bytes; a public key has 32"), ("?", "Invalid symbol")] {
            let args = RunArgs {
                keys: vec![key.into()],
                ..RunArgs::default()
            };
            let error = parse(&AgentCommand::Run(args).argv(BINARY)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn paths_agree() {
        assert_eq!(BINARY, format!("{DIRECTORY}/{BINARY_NAME}"));
        assert_eq!(
            IMAGE_BINARY,
            format!("/{BINARY_NAME}"),
            "an image volume mounts the image's root at DIRECTORY"
        );
    }
}
