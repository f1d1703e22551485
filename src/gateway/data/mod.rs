//! What is done inside a sandbox: commands, files, logs.

mod deadline;
pub mod exec;
mod exec_input;
pub mod files;
pub mod logs;
mod stdio;
pub mod target;
