use super::*;
use crate::api::{SandboxSessionSpec, SandboxSpec, SandboxStatus};
use serde_json::json;

fn session(uid: &str, max: Option<i32>) -> SandboxSession {
    let spec = SandboxSessionSpec {
        max_sandboxes: max,
        ..SandboxSessionSpec::default()
    };
    let mut session = SandboxSession::new("x", spec);
    session.metadata.namespace = Some("n".into());
    session.metadata.uid = Some(uid.into());
    session
}

/// A sandbox that names session x.
fn sandbox(name: &str, state: State) -> Sandbox {
    let mut sandbox = Sandbox::new(name, SandboxSpec::default());
    sandbox.spec.session_name = Some("x".into());
    sandbox.metadata.namespace = Some("n".into());
    sandbox.metadata.uid = Some(format!("uid-of-{name}"));
    sandbox.status = Some(SandboxStatus {
        state,
        ..SandboxStatus::default()
    });
    sandbox
}

/// One that joined the session.
fn joined(mut sandbox: Sandbox, session_uid: &str) -> Sandbox {
    sandbox.status.get_or_insert_default().session_uid = Some(session_uid.into());
    sandbox
}

/// One that has an owner reference: the operator sets it, or whoever created the sandbox did.
fn owned_by(mut sandbox: Sandbox, session_uid: &str) -> Sandbox {
    let owner = json!([{"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "name": "x", "uid": session_uid}]);
    sandbox.metadata.owner_references = serde_json::from_value(owner).unwrap();
    sandbox
}

fn names(objects: &[ObjectRef<Sandbox>]) -> Vec<&str> {
    let mut names: Vec<&str> = objects.iter().map(|o| o.name.as_str()).collect();
    names.sort_unstable();
    names
}

impl SessionIndex {
    fn seen(&self, sandbox: Sandbox) -> Affected {
        self.apply(&Event::Apply(sandbox), HashSet::new)
    }

    fn count(&self, session: &SandboxSession, state: State) -> i32 {
        self.counts(session).by_state.get(&state).copied().unwrap_or_default()
    }
}

/// `kubectl delete sbxs x --cascade=orphan` with a running sandbox, then a new session of the same name with a limit of
/// one.
#[test]
fn an_orphan_of_an_earlier_session_is_no_member_of_its_namesake() {
    let index = SessionIndex::default();
    let (first, second) = (session("first", None), session("second", Some(1)));
    index.seen(joined(sandbox("old", State::Running), "first"));
    assert_eq!(index.counts(&first).active, 1);
    // The garbage collector removes the owner reference; the pinned UID remains.
    let mut orphan = sandbox("old", State::Running);
    orphan.status.get_or_insert_default().session_uid = Some("first".into());
    orphan.status.get_or_insert_default().pod_name = Some("old-1".into());
    index.seen(orphan.clone());
    assert_eq!(pinned(&orphan), Some("first"));
    let new = sandbox("new", State::Pending);
    index.seen(new.clone());
    assert!(index.admit(&new, &second), "the orphan takes no place in it");
    index.seen(joined(sandbox("new", State::Running), "second"));
    let counts = index.counts(&second);
    assert_eq!(
        (counts.active, counts.unfinished, index.count(&second, State::Running)),
        (1, 1, 1)
    );
    assert_eq!(
        names(&index.unfinished(&second)),
        ["new"],
        "closing it concerns its own sandbox only"
    );
    assert_eq!(names(&index.unfinished(&first)), ["old"]);
}

/// The operator had not written the status yet when its session was deleted.
#[test]
fn an_orphan_with_a_pod_but_without_a_pinned_session_joins_none() {
    let index = SessionIndex::default();
    let mut orphan = sandbox("old", State::Running);
    orphan.status.get_or_insert_default().pod_name = Some("old-1".into());
    index.seen(orphan);
    let second = session("second", None);
    assert_eq!(
        (index.counts(&second).unfinished, index.unfinished(&second)),
        (0, vec![])
    );
}

#[test]
fn sandboxes_that_wait_to_join_are_pending_but_not_active() {
    let (index, x) = (SessionIndex::default(), session("u", Some(2)));
    let all: Vec<Sandbox> = ["a", "b", "c", "d", "e"]
        .into_iter()
        .map(|name| sandbox(name, State::Pending))
        .collect();
    for sandbox in &all {
        index.seen(sandbox.clone());
    }
    let admitted: Vec<bool> = all.iter().map(|sandbox| index.admit(sandbox, &x)).collect();
    assert_eq!(admitted, [true, true, false, false, false]);
    assert!(index.admit(&all[0], &x), "it has its place already");
    let counts = index.counts(&x);
    assert_eq!(
        (counts.active, counts.unfinished, index.count(&x, State::Pending)),
        (2, 5, 5)
    );
    // The cache shows an older version of an admitted sandbox: its reservation holds.
    index.seen(all[1].clone());
    assert_eq!(index.counts(&x).active, 2);
    index.drop_reservations();
    assert_eq!((index.counts(&x).active, index.counts(&x).unfinished), (0, 5));
}

#[test]
fn when_a_sandbox_ends_or_is_deleted_those_that_wait_are_reconciled() {
    let (index, x) = (SessionIndex::default(), session("u", Some(1)));
    index.seen(joined(sandbox("a", State::Running), "u"));
    let affected = index.seen(sandbox("b", State::Pending));
    assert_eq!(
        (affected.session.map(|s| s.name), affected.sandboxes),
        (Some("x".into()), vec![])
    );
    let ended = joined(sandbox("a", State::Completed), "u");
    assert_eq!(names(&index.seen(ended.clone()).sandboxes), ["b"]);
    assert_eq!(names(&index.seen(ended.clone()).sandboxes), [""; 0], "it ended before");
    assert!(index.admit(&sandbox("b", State::Pending), &x));
    assert_eq!(
        names(&index.apply(&Event::Delete(ended), HashSet::new).sandboxes),
        ["b"]
    );
    assert_eq!(index.counts(&x).unfinished, 1);
}

#[test]
fn sandboxes_whose_deletion_was_missed_are_forgotten() {
    let (index, x) = (SessionIndex::default(), session("u", None));
    index.seen(joined(sandbox("a", State::Running), "u"));
    index.seen(sandbox("b", State::Pending));
    index.apply(&Event::InitDone, || HashSet::from(["uid-of-b".into()]));
    assert_eq!(names(&index.unfinished(&x)), ["b"]);
    index.apply(&Event::InitDone, HashSet::new);
    assert!(index.unfinished(&x).is_empty());
    let members = index.lock();
    assert!(members.joined.is_empty() && members.waiting.is_empty() && members.sandboxes.is_empty());
}

#[test]
fn a_sandbox_that_ended_without_joining_counts_for_no_session() {
    let (index, x) = (SessionIndex::default(), session("u", None));
    index.seen(sandbox("a", State::Pending));
    index.seen(sandbox("a", State::Failed));
    assert!(index.counts(&x).by_state.is_empty());
}

/// `metadata.ownerReferences` set at creation.
#[test]
fn an_owner_reference_takes_no_place_and_gets_none() {
    let (index, x) = (SessionIndex::default(), session("u", Some(1)));
    let all = ["a", "b", "c"].map(|name| owned_by(sandbox(name, State::Pending), "u"));
    for sandbox in &all {
        index.seen(sandbox.clone());
    }
    assert_eq!((index.counts(&x).active, index.counts(&x).unfinished), (0, 3));
    assert_eq!(
        all.each_ref().map(|sandbox| index.admit(sandbox, &x)),
        [true, false, false]
    );
    assert_eq!(index.session_of("uid-of-a").as_deref(), Some("u"));
    assert_eq!(index.session_of("uid-of-b"), None);
    index.seen(all[0].clone());
    assert_eq!(
        index.counts(&x).active,
        1,
        "the reservation holds until the status shows it"
    );
    index.seen(joined(sandbox("a", State::Completed), "u"));
    assert!(index.admit(&all[1], &x));
}

#[test]
fn a_sandbox_whose_pod_another_replica_created_keeps_its_place() {
    let (index, x) = (SessionIndex::default(), session("u", Some(1)));
    let a = owned_by(sandbox("a", State::Pending), "u");
    index.seen(a.clone());
    index.seen(sandbox("b", State::Pending));
    index.drop_reservations();
    index.restore(&a, &x);
    assert!(!index.admit(&sandbox("b", State::Pending), &x));
    assert!(index.admit(&a, &x));
}
