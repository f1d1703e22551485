//! Reads a sandbox and its session in full, for steps that need fields that the caches drop from heavy objects.

use kube::ResourceExt;
use std::sync::Arc;

use super::context::Context;
use super::decision::Action;
use super::observe::effective;
use super::observed::{Observed, Session};
use crate::api::{Sandbox, SandboxSession};
use crate::operator::error::Error;
use crate::resources::slim::is_stripped;

/// Whether the action needs fields that the caches dropped.
pub(super) fn is_needed(o: &Observed, action: &Action) -> bool {
    let is_partial =
        is_stripped(&o.sandbox.metadata) || o.session.get().is_some_and(|session| is_stripped(&session.metadata));
    is_partial && matches!(action, Action::Launch | Action::RestorePolicy | Action::Join)
}

/// The observation with full objects. None if one of them was deleted: the caches will show that.
pub(super) async fn read(o: &Observed, ctx: &Context) -> Result<Option<Observed>, Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let found: Option<Sandbox> = ctx.writer.get("Sandbox", &namespace, &o.sandbox.name_any()).await?;
    let Some(sandbox) = found.filter(|s| s.metadata.uid == o.sandbox.metadata.uid) else {
        return Ok(None);
    };
    let session = match o.session.get() {
        None => None,
        Some(cached) => {
            let found: Option<SandboxSession> =
                ctx.writer.get("SandboxSession", &namespace, &cached.name_any()).await?;
            match found.filter(|s| s.metadata.uid == cached.metadata.uid) {
                Some(session) => Some(Arc::new(session)),
                None => return Ok(None),
            }
        }
    };
    let has_pod = o.pod_record.is_some();
    Ok(Some(Observed {
        effective: effective(&sandbox, &o.status, session.as_deref(), has_pod, ctx),
        sandbox: Arc::new(sandbox),
        session: match (&o.session, session) {
            (Session::Joining { has_room, .. }, Some(session)) => Session::Joining {
                session,
                has_room: *has_room,
            },
            (Session::Settled(_), session) => Session::Settled(session),
            (other, _) => other.clone(),
        },
        ..o.clone()
    }))
}
