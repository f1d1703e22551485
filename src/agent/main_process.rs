//! PID 1: the main command as its child, and what the kernel expects of the first process.

use super::reaper::{NOT_EXECUTABLE, Reaper, Started, not_started};
use super::server::{self, Access};
use super::{place, say};
use crate::agent_contract::{DEFAULT_PORT, POD_UID_VARIABLE, RunArgs};
use futures::future::{Either, pending};
use futures::stream::{SelectAll, Stream, StreamExt, poll_fn};
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, getrlimit, kill_process_group, set_child_subreaper, setrlimit};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// What is not passed on: what cannot be caught, what a process does to itself, and what is for us.
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
/// What ends us when there is no main command.
const ENDING: [Signal; 4] = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP];
/// What a container leaves for its status, where nothing else is said.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// How long an answer takes to leave before the process ends that gave it.
const FAREWELL: Duration = Duration::from_millis(50);

/// Runs the main command to its end and returns the exit code for the container.
pub fn run(args: &RunArgs) -> u8 {
    let result = server::runtime().map_err(|e| format!("start: {e}")).and_then(|runtime| {
        let code = runtime.block_on(live(args));
        // Waits for no file operation that hangs.
        runtime.shutdown_background();
        code
    });
    result.unwrap_or_else(|text| {
        say(&text);
        NOT_EXECUTABLE
    })
}

async fn live(args: &RunArgs) -> Result<u8, String> {
    // All before the main command starts, so that nothing that it causes is lost.
    let mut signals = forwarded().map_err(|e| format!("signals: {e}"))?;
    let mut children = signal(SignalKind::child()).map_err(|e| format!("signals: {e}"))?;
    if let Some(from) = &args.place {
        place::place(Path::new(from), Path::new(".")).map_err(|e| format!("place files: {e}"))?;
    }
    server::keep_a_thread().await;
    if let Some(limit) = args.max_processes {
        limit_processes(limit).map_err(|e| format!("limit processes to {limit}: {e}"))?;
    }
    if !getpid().is_init() {
        // The pod's containers share their processes: those of this one must not become the pause container's.
        let _ = set_child_subreaper(Some(getpid()));
    }
    let reaper = Reaper::new(true);
    let (stop, mut stops) = mpsc::channel(1);
    if let Some(access) = access(args) {
        server::listen(args.port.unwrap_or(DEFAULT_PORT), access, reaper.clone(), stop).await;
    }

    let (main, ended) = match start(&reaper, &args.command) {
        Ok(Some(main)) => (Some(main.pid), Either::Left(main.exit)),
        Ok(None) => (None, Either::Right(pending())),
        Err(code) => return Ok(code),
    };
    let mut ended = std::pin::pin!(ended);
    let mut kill_at: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = children.recv() => reaper.reap(),
            code = &mut ended => {
                if kill_at.is_some() {
                    sleep(FAREWELL).await;
                }
                return Ok(code.unwrap_or(u8::MAX));
            }
            Some(signal) = signals.next() => match main {
                Some(main) => to_group(&reaper, main, signal),
                None if ENDING.contains(&signal) => return Ok(0),
                None => {}
            },
            Some(grace) = stops.recv() => {
                let Some(main) = main else {
                    sleep(FAREWELL).await;
                    return Ok(0);
                };
                if grace > Duration::ZERO {
                    to_group(&reaper, main, Signal::TERM);
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

/// The main command, if there is one; the exit code if it could not be started.
fn start(reaper: &Reaper, command: &[String]) -> Result<Option<Started>, u8> {
    let Some((program, args)) = command.split_first() else {
        return Ok(None);
    };
    // A process group of its own, so that signals reach all that the command started.
    let mut command = Command::new(program);
    command.args(args).env_remove(POD_UID_VARIABLE).process_group(0);
    reaper.spawn(&mut command).map(Some).map_err(|error| {
        let text = format!("start {program}: {error}");
        say(&text);
        // The kubelet shows it as the reason for the end. There is such a file in a container, and it may be written to; else the log will do.
        let _ = OpenOptions::new()
            .write(true)
            .open(TERMINATION_LOG)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        not_started(&error)
    })
}

/// Who may call, if the pod says so.
fn access(args: &RunArgs) -> Option<Access> {
    let pod_uid = args.pod_uid.clone().filter(|uid| !uid.is_empty())?;
    let keys = args.public_keys();
    (!keys.is_empty()).then(|| Access::new(keys, pod_uid))
}

/// Never above what the container was given: raising a limit takes a right that a sandbox has not.
fn limit_processes(limit: u64) -> rustix::io::Result<()> {
    let limit = Some(getrlimit(Resource::Nproc).maximum.map_or(limit, |hard| limit.min(hard)));
    let both = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nproc, both)
}

/// Every signal that is passed on.
fn forwarded() -> io::Result<impl Stream<Item = Signal> + Unpin> {
    let mut all = SelectAll::new();
    for number in 1..32 {
        if let Some(named) = Signal::from_named_raw(number).filter(|named| !NOT_FORWARDED.contains(named)) {
            let mut source = signal(SignalKind::from_raw(number))?;
            all.push(poll_fn(move |cx| source.poll_recv(cx).map(|one| one.map(|()| named))));
        }
    }
    Ok(all)
}

fn to_group(reaper: &Reaper, main: Pid, signal: Signal) {
    reaper.while_running(main, |main| {
        let _ = kill_process_group(main, signal);
    });
}

fn kill_all(reaper: &Reaper, main: Pid) {
    to_group(reaper, main, Signal::KILL);
    if getpid().is_init() {
        // The "group" of process 1 is -1: everybody in the container but us.
        let _ = kill_process_group(Pid::INIT, Signal::KILL);
    }
}
