//! What callers do with sandboxes as objects: create, get, list, delete.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod lookup;
pub(crate) mod page;
pub(crate) mod public_endpoints;
pub(crate) mod view;
