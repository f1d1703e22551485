//! Network options.

pub(crate) mod from_proto;
pub(crate) mod to_proto;

#[cfg(test)]
pub(crate) mod tests;
