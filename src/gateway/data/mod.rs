//! What is done inside a sandbox: commands, files, logs.

mod deadline;
pub mod exec;
pub mod files;
pub mod logs;
mod stdio;
pub mod target;
