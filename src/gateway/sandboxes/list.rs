//! ListSandboxes.

use futures::future::join_all;
use prost::Message;
use tonic::Status;

use crate::gateway::edge::body_budget::{BodyBudget, MAX_WAIT};
use crate::gateway::sandboxes::page::page;
use crate::gateway::sandboxes::public_endpoints::PublicEndpoints;
use crate::gateway::sandboxes::view::SandboxView;
use crate::proto::sandbox as pb;

/// Bytes after which a page ends early.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// ListSandboxes.
///
/// # Errors
/// INVALID_ARGUMENT with the wrong fields; RESOURCE_EXHAUSTED without memory for the response.
pub(crate) async fn list(
    view: &SandboxView,
    endpoints: &PublicEndpoints,
    namespace: &str,
    request: pb::ListSandboxesRequest,
    budget: Option<BodyBudget>,
) -> Result<pb::ListSandboxesResponse, Status> {
    let page = page(view.cache.list(namespace), request, &view.runners)?;
    let mut sandboxes = up_to_bytes(MAX_PAGE_BYTES, page.sandboxes.iter().map(|s| view.to_proto(s)));
    let next_page_token = page.token_after(sandboxes.len());
    join_all(
        page.sandboxes
            .iter()
            .zip(&mut sandboxes)
            .map(|(s, message)| endpoints.set_public_urls(s, message)),
    )
    .await;
    let bytes = sandboxes.iter().map(Message::encoded_len).sum();
    BodyBudget::reserve_response(budget.as_ref(), bytes, MAX_WAIT).await?;
    Ok(pb::ListSandboxesResponse {
        sandboxes,
        next_page_token,
    })
}

/// The first messages up to `bytes`, and the one that exceeds it: users decide how large a sandbox is.
fn up_to_bytes(bytes: usize, sandboxes: impl Iterator<Item = pb::Sandbox>) -> Vec<pb::Sandbox> {
    let fits = |sum: &mut usize, sandbox: pb::Sandbox| {
        let before = *sum;
        *sum += sandbox.encoded_len();
        (before < bytes).then_some(sandbox)
    };
    sandboxes.scan(0, fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_large_sandboxes_ends_early() {
        let sandbox = |i: usize| pb::Sandbox {
            sandbox_id: i.to_string(),
            display_name: "x".repeat(1000),
            ..pb::Sandbox::default()
        };
        let ids = |bytes| {
            up_to_bytes(bytes, (0..9).map(sandbox))
                .iter()
                .map(|s| s.sandbox_id.clone())
                .collect::<String>()
        };
        assert_eq!([ids(1), ids(2500), ids(100_000)], ["0", "012", "012345678"]);
    }
}
