//! PID 1: runs the main command as its child, and does what the kernel expects of the first process.

use super::copy_files;
use super::reaper::{Reaper, Started};
use super::report::{report, write_termination_log};
use super::server::{self, TokenVerifier};
use super::start_error::{NOT_EXECUTABLE, StartError};
use crate::agent_contract::{DEFAULT_PORT, MAIN_EXITED_WITH_255, POD_UID_VARIABLE, RunArgs};
use futures::future::{Either, pending};
use futures::stream::{SelectAll, Stream, StreamExt, poll_fn};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getrlimit, kill_process_group, set_child_subreaper, setrlimit,
};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// Signals that are not forwarded: those that cannot be caught, that a process raises itself, or that are meant for the
/// agent.
const NOT_FORWARDED: [Signal; 8] = [
    Signal::KILL,
    Signal::STOP,
    Signal::ILL,
    Signal::FPE,
    Signal::SEGV,
    Signal::BUS,
    Signal::PIPE,
    Signal::CHILD,
];
/// Signals that end the agent when there is no main command.
const TERMINATING: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
/// Time for the response to a stop to be sent before the process exits.
const RESPONSE_FLUSH: Duration = Duration::from_millis(50);

/// Runs the main command until it exits. Returns the exit code for the container.
pub(super) fn run(args: &RunArgs) -> u8 {
    let result = server::runtime()
        .map_err(|e| format!("start: {e}"))
        .and_then(|runtime| {
            let code = runtime.block_on(run_main(args));
            // Does not wait for a file operation that hangs.
            runtime.shutdown_background();
            code
        });
    result.unwrap_or_else(|text| {
        report(&text);
        NOT_EXECUTABLE
    })
}

async fn run_main(args: &RunArgs) -> Result<u8, String> {
    // Before the main command starts, so that no signal that it causes is lost.
    let mut signals = forwarded_signals().map_err(|e| format!("signals: {e}"))?;
    let mut children = signal(SignalKind::child()).map_err(|e| format!("signals: {e}"))?;
    if let Some(from) = &args.files {
        copy_files::copy_files(Path::new(from), Path::new("."), None).map_err(|e| format!("copy files: {e}"))?;
    }
    server::start_file_thread().await;
    if let Some(limit) = args.max_processes {
        limit_processes(limit).map_err(|e| format!("limit processes to {limit}: {e}"))?;
    }
    if !getpid().is_init() {
        // The pod's containers share a process namespace: orphans of this one must not become children of the pause
        // container.
        let _ = set_child_subreaper(Some(getpid()));
    }
    let reaper = Reaper::new(true);
    let (stop, mut stops) = mpsc::channel(1);
    if let Some(verifier) = token_verifier(args) {
        server::listen(args.port.unwrap_or(DEFAULT_PORT), verifier, reaper.clone(), stop).await;
    }

    let (main, exit) = match start(&reaper, &args.command) {
        Ok(Some(main)) => (Some(main.pid), Either::Left(main.exit)),
        Ok(None) => (None, Either::Right(pending())),
        Err(code) => return Ok(code),
    };
    let mut exit = std::pin::pin!(exit);
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = children.recv() => reaper.reap(),
            code = &mut exit => {
                if kill_at.is_some() {
                    sleep(RESPONSE_FLUSH).await;
                }
                let code = code.unwrap_or(u8::MAX);
                if code == u8::MAX {
                    let _ = write_termination_log(MAIN_EXITED_WITH_255);
                }
                return Ok(code);
            }
            Some(signal) = signals.next() => match main {
                Some(main) => signal_group(&reaper, main, signal),
                None if TERMINATING.contains(&signal) => return Ok(0),
                None => {}
            },
            Some(grace) = stops.recv() => {
                let Some(main) = main else {
                    sleep(RESPONSE_FLUSH).await;
                    return Ok(0);
                };
                if grace > Duration::ZERO {
                    signal_group(&reaper, main, Signal::TERM);
                }
                let at = Instant::now() + grace;
                kill_at = Some(kill_at.map_or(at, |before| before.min(at)));
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                main.into_iter().for_each(|main| kill_all(&reaper, main));
                kill_at = Some(Instant::now() + Duration::from_secs(1));
            }
        }
    }
}

/// Starts the main command, if there is one. The error is the exit code.
fn start(reaper: &Reaper, command: &[String]) -> Result<Option<Started>, u8> {
    let Some((program, args)) = command.split_first() else {
        return Ok(None);
    };
    // A process group of its own, so that signals reach everything that the command starts.
    let mut child = Command::new(program);
    child.args(args).env_remove(POD_UID_VARIABLE).process_group(0);
    reaper.spawn(&mut child).map(Some).map_err(|error| {
        let env = std::env::vars_os().filter(|(name, _)| name != POD_UID_VARIABLE);
        let StartError { exit_code, message } = StartError::from_io(&error, command, env);
        report(&format!("start {message}"));
        exit_code
    })
}

/// None without a key or the pod's UID.
fn token_verifier(args: &RunArgs) -> Option<TokenVerifier> {
    let pod_uid = args.pod_uid.clone().filter(|uid| !uid.is_empty())?;
    let keys = args.public_keys();
    (!keys.is_empty()).then(|| TokenVerifier::new(keys, pod_uid))
}

/// Never above the container's own limit: to raise it needs a capability that a sandbox does not have.
fn limit_processes(limit: u64) -> rustix::io::Result<()> {
    let limit = Some(getrlimit(Resource::Nproc).maximum.map_or(limit, |hard| limit.min(hard)));
    let both = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nproc, both)
}

/// A stream of the signals that are forwarded.
fn forwarded_signals() -> io::Result<impl Stream<Item = Signal> + Unpin> {
    let mut all = SelectAll::new();
    for number in 1..32 {
        if let Some(named) = Signal::from_named_raw(number).filter(|named| !NOT_FORWARDED.contains(named)) {
            let mut source = signal(SignalKind::from_raw(number))?;
            all.push(poll_fn(move |cx| source.poll_recv(cx).map(|one| one.map(|()| named))));
        }
    }
    Ok(all)
}

fn signal_group(reaper: &Reaper, main: Pid, signal: Signal) {
    reaper.if_running(main, |main| {
        let _ = kill_process_group(main, signal);
    });
}

fn kill_all(reaper: &Reaper, main: Pid) {
    signal_group(reaper, main, Signal::KILL);
    if getpid().is_init() {
        // The "group" of process 1 is -1: every process in the container but this one.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    }
}
