//! What callers do inside a sandbox: run commands, read and write files, read logs.

pub mod agent_handle;
mod deadline;
pub mod exec;
mod exec_check;
mod exec_input;
pub mod files;
pub mod logs;
pub mod response_stream;
mod stdio;
