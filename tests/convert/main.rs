//! What ListSandboxes decides, without a cluster.
#![allow(clippy::unwrap_used)]

mod lists;
