//! Between the messages of the SDK and custom resources: pure functions, both ways. Messages are destructured without `..`, so that a new
//! field does not compile until somebody says what becomes of it: it is honoured, or refused by name.

pub mod containers;
pub mod echo;
pub mod facts;
pub mod files;
pub mod network;
pub mod problems;
pub mod request;
pub mod resources;
pub mod secrets;
pub mod security;
pub mod services;
pub mod status;
pub mod text;
pub mod volumes;
