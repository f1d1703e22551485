//! What is done inside a sandbox: commands, files, logs.

pub mod exec;
pub mod files;
pub mod logs;
