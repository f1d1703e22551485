//! What the API server accepts and refuses, by the generated definitions. Needs a cluster. Nothing but the definitions,
//! if there are none, and a few objects in a namespace of its own is written; all else is a dry run.
#![allow(clippy::unwrap_used)]

mod constraints;
mod containers;
mod create;
mod manual;
mod network;
mod own_accounts;
mod server;
mod storage;
mod update;

/// Name of the case, spec, and what is expected of it.
type Case = (&'static str, serde_json::Value, server::Expected<'static>);

fn many<T: serde::Serialize>(count: usize, item: impl Fn(usize) -> T) -> serde_json::Value {
    serde_json::json!((0..count).map(item).collect::<Vec<_>>())
}
