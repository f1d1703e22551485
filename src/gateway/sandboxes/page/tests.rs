use super::*;
use crate::api::{ANNOTATION_REQUEST_METADATA, SandboxSpec, SandboxStatus, State};
use crate::gateway::config::Config;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tonic::Code;

fn runners() -> Runners {
    Runners::new(&Config::default())
}

fn sandbox(name: &str, created: i64, state: State, tags: &[&str]) -> Arc<Sandbox> {
    let mut sandbox = Sandbox::new(name, SandboxSpec::default());
    sandbox.metadata.creation_timestamp = Some(Time(Timestamp::from_second(created).unwrap()));
    sandbox.spec.workload.tags = Some(tags.iter().map(|t| (*t).into()).collect());
    sandbox.status = Some(SandboxStatus {
        state,
        tags: Some(vec!["of-session".into()]),
        ..SandboxStatus::default()
    });
    Arc::new(sandbox)
}

fn examples() -> Vec<Arc<Sandbox>> {
    let mut with_volume = (*sandbox("v", 5, State::Running, &[])).clone();
    with_volume.annotations_mut().insert(
        ANNOTATION_REQUEST_METADATA.into(),
        r#"{"volumes":{"data":"vol-1"}}"#.into(),
    );
    vec![
        sandbox("a", 1, State::Running, &["x", "y"]),
        sandbox("b", 2, State::Completed, &["x"]),
        sandbox("c", 3, State::Pending, &["y"]),
        sandbox("d", 4, State::Terminated, &["x", "y"]),
        Arc::new(with_volume),
    ]
}

fn names(change: impl FnOnce(&mut pb::ListSandboxesRequest)) -> String {
    let mut request = pb::ListSandboxesRequest::default();
    change(&mut request);
    page(examples(), request, &runners())
        .unwrap()
        .sandboxes
        .iter()
        .map(|s| s.name_any())
        .collect()
}

#[test]
fn filters() {
    let running = pb::State::Running.into();
    assert_eq!(names(|_| {}), "vca", "those that have not ended, newest first");
    assert_eq!(names(|r| r.show_terminated = true), "vdcba");
    assert_eq!(names(|r| r.sort_direction = pb::SortDirection::Ascending.into()), "acv");
    assert_eq!(
        names(|r| r.state = pb::State::Completed.into()),
        "b",
        "a final state selects those that have ended"
    );
    assert_eq!(names(|r| r.state = running), "va");
    assert_eq!(names(|r| r.tags = vec!["x".into(), "y".into()]), "a");
    assert_eq!(names(|r| r.tags = vec!["of-session".into(), "y".into()]), "ca");
    assert_eq!(names(|r| (r.tags, r.show_terminated) = (vec!["x".into()], true)), "dba");
    assert_eq!(names(|r| r.runner_ids = vec!["other".into(), "default".into()]), "vca");
    assert_eq!(names(|r| r.runner_ids = vec!["other".into()]), "");
    assert_eq!(names(|r| r.volume_ids = vec!["vol-1".into()]), "v");
    assert_eq!(names(|r| r.volume_ids = vec!["data".into()]), "");
}

#[test]
fn pages_are_stable_while_sandboxes_are_created_and_deleted() {
    let all: Vec<_> = (0..250)
        .map(|i| sandbox(&format!("s{i:03}"), i / 10, State::Running, &[]))
        .collect();
    for direction in [pb::SortDirection::Descending, pb::SortDirection::Ascending] {
        let (mut now, mut seen, mut token) = (all.clone(), vec![], String::new());
        loop {
            let request = pb::ListSandboxesRequest {
                page_token: token,
                page_size: if seen.is_empty() { 0 } else { 7 },
                sort_direction: direction.into(),
                ..pb::ListSandboxesRequest::default()
            };
            let page = page(now.clone(), request, &runners()).unwrap();
            let found = &page.sandboxes;
            assert_eq!(found.len() == 100, seen.is_empty(), "100 unless the request sets it");
            seen.extend(found.iter().map(|s| s.name_any()));
            token = page.token_after(found.len());
            // The last one seen is deleted, and another is created before it.
            now.retain(|s| Some(&s.name_any()) != seen.last());
            let created = if direction == pb::SortDirection::Ascending {
                0
            } else {
                99
            };
            now.push(sandbox(&format!("new{}", seen.len()), created, State::Running, &[]));
            now.reverse();
            if token.is_empty() {
                break;
            }
        }
        let old: Vec<_> = seen.iter().filter(|n| n.starts_with('s')).collect();
        assert_eq!(old.len(), 250, "each once, and none missing");
        assert!(seen.len() == 250, "{seen:?}");
    }
}

#[test]
fn bounds_and_tokens() {
    let list = |change: &dyn Fn(&mut pb::ListSandboxesRequest)| {
        let mut request = pb::ListSandboxesRequest::default();
        change(&mut request);
        page(examples(), request, &runners())
    };
    let token = list(&|r| r.page_size = 1).unwrap().token_after(1);
    assert!(!token.is_empty());
    assert!(
        list(&|r| (r.page_size, r.page_token) = (2, token.clone())).is_ok(),
        "a page size does not change the list"
    );
    for (field, change) in [
        (
            "page_token",
            &(|r: &mut pb::ListSandboxesRequest| r.page_token = "x!".into()) as &dyn Fn(&mut _),
        ),
        ("page_token", &|r: &mut pb::ListSandboxesRequest| {
            r.page_token = "AAAA".into()
        }),
        ("page_token", &|r: &mut pb::ListSandboxesRequest| {
            (r.page_token, r.show_terminated) = (token.clone(), true)
        }),
        ("page_size", &|r: &mut pb::ListSandboxesRequest| r.page_size = -1),
        ("state", &|r: &mut pb::ListSandboxesRequest| r.state = 99),
        ("sort_direction", &|r: &mut pb::ListSandboxesRequest| {
            r.sort_direction = 9
        }),
    ] {
        let status = list(change).unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    let many: Vec<_> = (0..1500)
        .map(|i| sandbox(&format!("s{i}"), i, State::Running, &[]))
        .collect();
    let request = pb::ListSandboxesRequest {
        page_size: 5000,
        ..pb::ListSandboxesRequest::default()
    };
    assert_eq!(page(many, request, &runners()).unwrap().sandboxes.len(), 1000);
}
