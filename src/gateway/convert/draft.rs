//! A Sandbox before anything is written.

use super::files::FileContents;
use super::request_metadata::RequestMetadata;
use super::secrets::SecretLookup;
use crate::api::Workload;

/// A Sandbox before anything is written.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    /// The sandbox's name.
    pub(crate) name: String,
    pub(crate) workload: Workload,
    /// The name of the main container in the request, if it is not `main`.
    pub(crate) main_name: Option<String>,
    pub(crate) metadata: RequestMetadata,
    pub(crate) contents: FileContents,
    /// The secrets to read from secret stores.
    pub(crate) lookups: Vec<SecretLookup>,
}
