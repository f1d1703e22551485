//! What callers do inside a sandbox: run commands, read and write files, read logs.

pub(crate) mod agent_handle;
mod deadline;
pub(crate) mod exec;
mod exec_check;
mod exec_input;
pub(crate) mod files;
pub(crate) mod logs;
pub(crate) mod response_stream;
mod stdio;
