//! The pages of ListSandboxes: filters, order and page tokens. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kube::ResourceExt;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::Status;

use crate::api::Sandbox;
use crate::gateway::cluster::runners::Runners;
use crate::gateway::convert::request_metadata::RequestMetadata;
use crate::gateway::convert::status::{state, state_to_proto};
use crate::gateway::error::{Violation, invalid};
use crate::proto::sandbox as pb;

/// Sandboxes per page unless the request sets it.
const DEFAULT_PAGE_SIZE: usize = 100;
const MAX_PAGE_SIZE: usize = 1000;

/// A page of sandboxes.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its sandboxes, in order.
    pub(crate) sandboxes: Vec<Arc<Sandbox>>,
    /// Whether more follow.
    has_more: bool,
    fingerprint: String,
}

impl Page {
    /// The token of the page after the first `count` sandboxes of this one; empty at the end of the list.
    pub(crate) fn token_after(&self, count: usize) -> String {
        let last = self.sandboxes[..count].last();
        let last = last.filter(|_| self.has_more || count < self.sandboxes.len());
        last.map(|s| token(&key(s), &self.fingerprint)).unwrap_or_default()
    }
}

/// One page of `all`. It starts after the last sandbox of the page before it, whatever was created or deleted since.
///
/// # Errors
/// INVALID_ARGUMENT with the wrong fields.
pub(crate) fn page(
    all: Vec<Arc<Sandbox>>,
    request: pb::ListSandboxesRequest,
    runners: &Runners,
) -> Result<Page, Status> {
    let fingerprint = fingerprint(&request);
    let pb::ListSandboxesRequest {
        page_size,
        page_token,
        tags,
        state: wanted_state,
        show_terminated,
        runner_ids,
        volume_ids,
        sort_direction,
    } = request;
    let mut violations = vec![];
    let size = match usize::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE_SIZE,
        Ok(size) => size.min(MAX_PAGE_SIZE),
        Err(_) => {
            violations.push(Violation::new("page_size", "must not be negative"));
            0
        }
    };
    if pb::State::try_from(wanted_state).is_err() {
        violations.push(Violation::new("state", "unknown value"));
    }
    let ascending = sort_direction == i32::from(pb::SortDirection::Ascending);
    if pb::SortDirection::try_from(sort_direction).is_err() {
        violations.push(Violation::new("sort_direction", "unknown value"));
    }
    let after = match parse_token(&page_token, &fingerprint) {
        Ok(after) => after,
        Err(violation) => {
            violations.push(violation);
            None
        }
    };
    if !violations.is_empty() {
        return Err(invalid(violations));
    }
    let matches = |s: &Sandbox| {
        let state = state(s);
        let by_state = match wanted_state {
            0 => show_terminated || !state.is_final(),
            wanted => i32::from(state_to_proto(state)) == wanted,
        };
        let by_runner = || runner_ids.is_empty() || runners.of(s).is_some_and(|r| runner_ids.contains(&r.id));
        by_state && has_tags(s, &tags) && has_any_volume(s, &volume_ids) && by_runner()
    };
    let mut found: Vec<(Key, Arc<Sandbox>)> = all.into_iter().filter(|s| matches(s)).map(|s| (key(&s), s)).collect();
    found.sort_by(|(a, _), (b, _)| if ascending { a.cmp(b) } else { b.cmp(a) });
    if let Some(after) = after {
        found.retain(|(key, _)| if ascending { *key > after } else { *key < after });
    }
    let has_more = found.len() > size;
    found.truncate(size);
    Ok(Page {
        sandboxes: found.into_iter().map(|(_, s)| s).collect(),
        has_more,
        fingerprint,
    })
}

/// Creation time in seconds, and the unique name.
type Key = (i64, String);

fn key(sandbox: &Sandbox) -> Key {
    let created = sandbox.creation_timestamp().map(|t| t.0.as_second());
    (created.unwrap_or_default(), sandbox.name_any())
}

/// Whether the sandbox or its session has all of these tags.
fn has_tags(sandbox: &Sandbox, wanted: &[String]) -> bool {
    let own = sandbox.spec.workload.tags.iter().flatten();
    let effective = sandbox.status.iter().flat_map(|s| s.tags.iter().flatten());
    let tags: BTreeSet<&String> = own.chain(effective).collect();
    wanted.iter().all(|t| tags.contains(t))
}

/// Whether the sandbox has any of these registered volumes; true without any.
fn has_any_volume(sandbox: &Sandbox, wanted: &[String]) -> bool {
    wanted.is_empty()
        || RequestMetadata::of(sandbox)
            .volumes
            .values()
            .any(|id| wanted.contains(id))
}

/// A hash of what is listed. A token is valid only for the list that it came from.
fn fingerprint(request: &pb::ListSandboxesRequest) -> String {
    let list = pb::ListSandboxesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    };
    BASE64.encode(&Sha256::digest(list.encode_to_vec())[..8])
}

fn token((created, name): &Key, fingerprint: &str) -> String {
    BASE64.encode(format!("{fingerprint} {created} {name}"))
}

fn parse_token(token: &str, fingerprint: &str) -> Result<Option<Key>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let text = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let mut parts = text.splitn(3, ' ').map(str::to_owned);
        let (of, created, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some((of, (created.parse().ok()?, name)))
    };
    match parse() {
        Some((of, key)) if of == fingerprint => Ok(Some(key)),
        Some(_) => Err(Violation::new("page_token", "belongs to a list with other filters")),
        None => Err(Violation::new("page_token", "is not a token of this service")),
    }
}

#[cfg(test)]
mod tests;
