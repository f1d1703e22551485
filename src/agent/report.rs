//! What the agent itself says: lines in the sandbox's log, and why it exits.

use std::fs::OpenOptions;
use std::io::Write;

/// The kubelet copies this file into the container's status.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Logs why the process exits, also into the container's status.
pub(super) fn report(text: &str) {
    log(text);
    // Where the file does not exist or cannot be written, the log has to do.
    let _ = write_termination_log(text);
}

/// Keeps a message that is already there: the main command may have written one.
pub(super) fn write_termination_log(text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(TERMINATION_LOG)?;
    if file.metadata()?.len() == 0 {
        file.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Writes a line to stderr, which is the sandbox's log. A closed stderr is ignored.
pub(super) fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "sandbox-operator agent: {text}");
}
