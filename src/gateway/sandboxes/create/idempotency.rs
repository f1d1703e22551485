//! Idempotency of create requests: a request that is sent twice creates one sandbox.

use kube::ResourceExt;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::api::{ANNOTATION_REQUEST, Sandbox};
use crate::gateway::edge::caller::Caller;
use crate::gateway::error::{self, reason};
use crate::resources::names;

/// What makes two requests the same.
pub(crate) struct IdempotencyKey {
    /// Name of the sandbox: a hash of tenant, user and `request_id`, or random without a `request_id`.
    pub(crate) name: String,
    /// SHA-256 of the request without its `request_id`, in hex.
    pub(crate) body_sha256: String,
}

impl IdempotencyKey {
    /// The key of a request. `body`: the request without its `request_id`.
    pub(crate) fn new(caller: &Caller, request_id: &str, method: &str, body: &impl Message) -> IdempotencyKey {
        IdempotencyKey {
            name: name(caller, request_id),
            body_sha256: hash(method, body),
        }
    }

    /// Checks that the same request created `sandbox`, which has our name.
    ///
    /// # Errors
    /// ALREADY_EXISTS if another request did.
    pub(crate) fn check_same(&self, sandbox: &Sandbox) -> Result<(), Status> {
        if sandbox.annotations().get(ANNOTATION_REQUEST) == Some(&self.body_sha256) {
            return Ok(());
        }
        let text = "request_id: must be new for each request; another request has used it";
        Err(error::status(Code::AlreadyExists, reason::REQUEST_ID_CONFLICT, text))
    }
}

fn name(caller: &Caller, request_id: &str) -> String {
    if request_id.is_empty() {
        let [a, b] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        return names::of_request(&Sha256::new().chain_update(a).chain_update(b).finalize().into());
    }
    let mut hasher = Sha256::new();
    for part in [&caller.namespace, &caller.user] {
        // Neither contains a NUL, so that different callers have different hashes.
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.update(request_id);
    names::of_request(&hasher.finalize().into())
}

/// Maps in hashed messages are ordered (see `build.rs`), so that equal requests have equal bytes.
fn hash(method: &str, request: &impl Message) -> String {
    let digest = Sha256::new()
        .chain_update(method)
        .chain_update([0])
        .chain_update(request.encode_to_vec())
        .finalize();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
