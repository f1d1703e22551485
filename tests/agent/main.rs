//! The agent as a process, called over its port or over standard input and output. Needs no cluster.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod commands;
mod files;
mod flow;
mod lifecycle;
mod stdio;
mod support;
mod terminal;
