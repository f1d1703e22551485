//! What callers do with sandboxes as objects: create, get, list, delete.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod lookup;
pub mod page;
pub mod public_endpoints;
pub mod view;
