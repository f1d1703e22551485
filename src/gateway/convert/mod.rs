//! Conversions between the messages of the SDK and custom resources: pure functions in both directions. Messages are
//! destructured without `..`, so that a new field does not compile until its conversion is written: the field is
//! honoured, or refused by name.

pub(crate) mod constraints;
pub(crate) mod container;
pub(crate) mod containers;
pub(crate) mod context;
pub(crate) mod draft;
pub(crate) mod env;
pub(crate) mod files;
pub(crate) mod from_proto;
pub(crate) mod network;
pub(crate) mod overrides;
pub(crate) mod problems;
pub(crate) mod request_metadata;
pub(crate) mod resources;
pub(crate) mod runners;
pub(crate) mod runtime_class;
pub(crate) mod secrets;
pub(crate) mod security;
pub(crate) mod services;
pub(crate) mod status;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod to_proto;
pub(crate) mod volumes;

#[cfg(test)]
pub(crate) mod tests;
