//! GetSandbox, ListSandboxes, DeleteSandbox.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use futures::future::join_all;
use kube::ResourceExt;
use prost::Message;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Code, Status};

use super::convert::request_metadata::RequestMetadata;
use super::convert::status::{sidecars, state, state_to_proto};
use super::data::target;
use super::error::{self, Violation, of_kube, reason, sandbox_not_found};
use super::identity::Caller;
use super::limits::{Room, WAIT};
use super::public;
use super::runners::Runners;
use super::state::Gateway;
use crate::api::Sandbox;
use crate::proto::sandbox as pb;

/// Sandboxes of a page where the request does not say.
const DEFAULT_PAGE: usize = 100;
/// Most sandboxes of a page.
const MAX_PAGE: usize = 1000;
/// Bytes after which a page ends early.
const LARGE_PAGE: usize = 4 << 20;
/// Longest grace in seconds that the API takes.
const MAX_GRACE: i32 = 3600;

/// GetSandbox.
///
/// # Errors
/// NOT_FOUND, also for a sandbox of another tenant.
pub async fn get(gateway: &Gateway, caller: &Caller, request: pb::GetSandboxRequest) -> Result<pb::Sandbox, Status> {
    let id = request.sandbox_id;
    let sandbox = target::sandbox(gateway, caller, &id).await?;
    let mut told = gateway.told(&sandbox);
    public::tell(gateway, &sandbox, &mut told).await;
    // The record tells of the main container only. What it tells is worth more than what cannot be read beside it.
    if sandbox.spec.workload.pod.sidecars.is_some()
        && !state(&sandbox).is_final()
        && let Some(status) = &mut told.status
        && let Ok(Some(pod)) = target::pod(&gateway.cluster, &sandbox).await
    {
        status.container_statuses.extend(sidecars(&sandbox, &pod));
    }
    Ok(told)
}

/// DeleteSandbox: asks the operator to end it. The record stays, so that the end can be read.
///
/// # Errors
/// NOT_FOUND unless `allow_missing`.
pub async fn delete(gateway: &Gateway, caller: &Caller, request: pb::DeleteSandboxRequest) -> Result<pb::DeleteSandboxResponse, Status> {
    let pb::DeleteSandboxRequest {
        sandbox_id: id,
        grace_period_seconds,
        snapshot_volumes,
        // Asking twice to end it is asking once.
        request_id: _,
        allow_missing,
    } = request;
    if !snapshot_volumes.is_empty() {
        let text = "snapshot_volumes: file system snapshots are not supported";
        return Err(error::status(Code::Unimplemented, reason::SNAPSHOT_NOT_SUPPORTED, text));
    }
    if grace_period_seconds < 0 {
        return Err(error::invalid(vec![Violation::new("grace_period_seconds", "must not be negative")]));
    }
    let answer = |sandbox: Option<&Sandbox>| pb::DeleteSandboxResponse {
        sandbox: sandbox.map(|s| gateway.told(s)),
        file_system_snapshot_ids: vec![],
    };
    let missing = || if allow_missing { Ok(answer(None)) } else { Err(sandbox_not_found(&id)) };
    let Some(sandbox) = target::find(gateway, caller, &id).await? else {
        return missing();
    };
    if state(&sandbox).is_final() || sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(answer(Some(&sandbox)));
    }
    // The UID: a later sandbox of the same name is another one.
    let patch = json!({
        "metadata": {"uid": sandbox.uid()},
        "spec": {"desiredState": "Stopped", "stopGracePeriodSeconds": grace_period_seconds.min(MAX_GRACE)},
    });
    match gateway.cluster.merge::<Sandbox>(&caller.namespace, &id, &patch).await {
        Ok(stopping) => Ok(answer(Some(&stopping))),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => missing(),
        Err(error) => Err(of_kube("ending the sandbox", &error)),
    }
}

/// ListSandboxes.
///
/// # Errors
/// INVALID_ARGUMENT for a page token that is not ours.
pub async fn list(
    gateway: &Gateway,
    caller: &Caller,
    request: pb::ListSandboxesRequest,
    room: Option<Room>,
) -> Result<pb::ListSandboxesResponse, Status> {
    let list = fingerprint(&request);
    let all = gateway.caches.sandboxes(&caller.namespace);
    let (page, mut next_page_token) = page(all, request, &gateway.runners)?;
    let mut sandboxes = no_more_than(LARGE_PAGE, page.iter().map(|s| gateway.told(s)));
    join_all(page.iter().zip(&mut sandboxes).map(|(s, told)| public::tell(gateway, s, told))).await;
    if sandboxes.len() < page.len()
        && let Some(last) = page[..sandboxes.len()].last()
    {
        next_page_token = token(&key(last), &list);
    }
    let bytes = sandboxes.iter().map(Message::encoded_len).sum();
    Room::for_answer(room.as_ref(), bytes, WAIT).await?;
    Ok(pb::ListSandboxesResponse { sandboxes, next_page_token })
}

/// The first of them, until they have so many bytes: what a sandbox is made of is its owner's to say.
fn no_more_than(bytes: usize, sandboxes: impl Iterator<Item = pb::Sandbox>) -> Vec<pb::Sandbox> {
    let so_far = |sum: &mut usize, sandbox: pb::Sandbox| {
        let before = *sum;
        *sum += sandbox.encoded_len();
        (before < bytes).then_some(sandbox)
    };
    sandboxes.scan(0, so_far).collect()
}

/// One page, and the token of the next. A page begins after the last sandbox of the one before it, whatever came or went meanwhile.
///
/// # Errors
/// INVALID_ARGUMENT for a token of another list, or none of ours.
pub fn page(all: Vec<Arc<Sandbox>>, request: pb::ListSandboxesRequest, runners: &Runners) -> Result<(Vec<Arc<Sandbox>>, String), Status> {
    let list = fingerprint(&request);
    let pb::ListSandboxesRequest {
        page_size,
        page_token,
        tags,
        state: wanted,
        show_terminated,
        runner_ids,
        volume_ids,
        sort_direction,
    } = request;
    let mut wrong = vec![];
    let size = match usize::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => {
            wrong.push(Violation::new("page_size", "must not be negative"));
            0
        }
    };
    if pb::State::try_from(wanted).is_err() {
        wrong.push(Violation::new("state", "is not known"));
    }
    let ascending = sort_direction == i32::from(pb::SortDirection::Ascending);
    if pb::SortDirection::try_from(sort_direction).is_err() {
        wrong.push(Violation::new("sort_direction", "is not known"));
    }
    let after = match after(&page_token, &list) {
        Ok(after) => after,
        Err(violation) => {
            wrong.push(violation);
            None
        }
    };
    if !wrong.is_empty() {
        return Err(error::invalid(wrong));
    }
    let here = |s: &Sandbox| runner_ids.is_empty() || runners.of(s).is_some_and(|r| runner_ids.contains(&r.id));
    let shown = |s: &Sandbox| {
        let state = state(s);
        let by_state = match wanted {
            0 => show_terminated || !state.is_final(),
            wanted => i32::from(state_to_proto(state)) == wanted,
        };
        by_state && has_tags(s, &tags) && has_volume(s, &volume_ids) && here(s)
    };
    let mut found: Vec<(Key, Arc<Sandbox>)> = all.into_iter().filter(|s| shown(s)).map(|s| (key(&s), s)).collect();
    found.sort_by(|(a, _), (b, _)| if ascending { a.cmp(b) } else { b.cmp(a) });
    if let Some(after) = after {
        found.retain(|(key, _)| if ascending { *key > after } else { *key < after });
    }
    let more = found.len() > size;
    found.truncate(size);
    let next = found.last().filter(|_| more).map(|(key, _)| token(key, &list)).unwrap_or_default();
    Ok((found.into_iter().map(|(_, s)| s).collect(), next))
}

/// Creation in seconds, and the name: no two are equal.
type Key = (i64, String);

fn key(sandbox: &Sandbox) -> Key {
    let created = sandbox.creation_timestamp().map(|t| t.0.as_second());
    (created.unwrap_or_default(), sandbox.name_any())
}

/// All tags, of the session as well.
fn has_tags(sandbox: &Sandbox, wanted: &[String]) -> bool {
    let own = sandbox.spec.workload.tags.iter().flatten();
    let effective = sandbox.status.iter().flat_map(|s| s.tags.iter().flatten());
    let tags: BTreeSet<&String> = own.chain(effective).collect();
    wanted.iter().all(|t| tags.contains(t))
}

/// One of the registered volumes.
fn has_volume(sandbox: &Sandbox, wanted: &[String]) -> bool {
    wanted.is_empty() || RequestMetadata::of(sandbox).volumes.values().any(|id| wanted.contains(id))
}

/// What a list is of: a token is good for no other.
fn fingerprint(request: &pb::ListSandboxesRequest) -> String {
    let list = pb::ListSandboxesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    };
    BASE64.encode(&Sha256::digest(list.encode_to_vec())[..8])
}

fn token((created, name): &Key, list: &str) -> String {
    BASE64.encode(format!("{list} {created} {name}"))
}

fn after(token: &str, list: &str) -> Result<Option<Key>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let parse = || {
        let text = String::from_utf8(BASE64.decode(token).ok()?).ok()?;
        let mut words = text.splitn(3, ' ').map(str::to_owned);
        let (of, created, name) = (words.next()?, words.next()?, words.next()?);
        Some((of, (created.parse().ok()?, name)))
    };
    match parse() {
        Some((of, key)) if of == list => Ok(Some(key)),
        Some(_) => Err(Violation::new("page_token", "is of another list")),
        None => Err(Violation::new("page_token", "is not one that was given out")),
    }
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
            no_more_than(bytes, (0..9).map(sandbox))
                .iter()
                .map(|s| s.sandbox_id.clone())
                .collect::<String>()
        };
        assert_eq!([ids(1), ids(2500), ids(100_000)], ["0", "012", "012345678"]);
    }
}
