use super::*;

fn sandbox(namespace: &str, name: &str) -> Sandbox {
    let mut sandbox = Sandbox::new(name, crate::api::SandboxSpec::default());
    sandbox.metadata.namespace = Some(namespace.into());
    sandbox
}

fn names(cache: &SandboxCache, namespace: &str) -> Vec<String> {
    let mut names: Vec<_> = cache.list(namespace).iter().map(|s| s.name_any()).collect();
    names.sort();
    names
}

#[test]
fn a_list_replaces_the_sandboxes_only_when_it_is_complete() {
    let cache = SandboxCache::new(&[]);
    let mut listed = HashMap::new();
    let mut apply = |event| cache.apply(None, &mut listed, event);
    apply(Event::Init);
    apply(Event::InitApply(Readable(Ok(sandbox("a", "one")))));
    assert!(!cache.is_ready() && cache.is_empty());
    apply(Event::InitDone);
    assert!(cache.is_ready());
    apply(Event::Apply(Readable(Ok(sandbox("a", "two")))));
    apply(Event::Apply(Readable(Ok(sandbox("b", "one")))));
    assert_eq!(
        (names(&cache, "a"), names(&cache, "b")),
        (vec!["one".into(), "two".into()], vec!["one".into()])
    );
    apply(Event::Init);
    apply(Event::InitApply(Readable(Ok(sandbox("a", "three")))));
    assert_eq!(names(&cache, "a"), ["one", "two"], "the old list is served until then");
    apply(Event::InitDone);
    assert_eq!((names(&cache, "a"), cache.len()), (vec!["three".into()], 1));
    assert!(cache.get("a", "three").is_some() && cache.get("b", "three").is_none());
    apply(Event::Delete(Readable(Ok(sandbox("a", "three")))));
    assert!(cache.is_empty());
}

#[test]
fn a_sandbox_has_just_ended_only_if_it_was_seen_before_its_end() {
    let (cache, mut listed) = (SandboxCache::new(&[]), HashMap::new());
    let ended = |name: &str| {
        let mut ended = sandbox("a", name);
        ended.status.get_or_insert_default().state = crate::api::State::Terminated;
        ended
    };
    let mut apply = |event| cache.apply(None, &mut listed, event);
    apply(Event::Init);
    apply(Event::InitApply(Readable(Ok(ended("old")))));
    apply(Event::InitApply(Readable(Ok(sandbox("a", "new")))));
    apply(Event::InitDone);
    assert!(!cache.just_ended(&ended("old")) && !cache.just_ended(&sandbox("a", "new")));
    apply(Event::Apply(Readable(Ok(ended("new")))));
    assert!(cache.just_ended(&ended("new")));
    let before = Instant::now().checked_sub(JUST_ENDED);
    cache.write().get_mut("a").unwrap().get_mut("new").unwrap().ended = before;
    apply(Event::Apply(Readable(Ok(ended("new")))));
    assert!(!cache.just_ended(&ended("new")), "it cannot end twice");
}

#[test]
fn a_list_of_one_namespace_does_not_change_the_others() {
    let cache = SandboxCache::new(&["a".into(), "b".into()]);
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let mut listed = HashMap::new();
    for (scope, event) in [
        (&a, Event::InitApply(Readable(Ok(sandbox("a", "one"))))),
        (&a, Event::InitDone),
        (&b, Event::InitApply(Readable(Ok(sandbox("b", "one"))))),
    ] {
        cache.apply(Some(scope), &mut listed, event);
    }
    assert!(!cache.is_ready(), "b is not listed yet");
    cache.apply(Some(&b), &mut listed, Event::InitDone);
    assert!(cache.is_ready());
    assert_eq!(cache.len(), 2);
    cache.apply(Some(&a), &mut listed, Event::Init);
    cache.apply(Some(&a), &mut listed, Event::InitDone);
    assert_eq!((cache.len(), names(&cache, "b")), (1, vec!["one".into()]));
}

#[test]
fn a_heavy_sandbox_is_stripped_and_its_bytes_are_counted() {
    let cache = SandboxCache::new(&[]);
    let mut heavy = sandbox("n", "heavy");
    heavy.spec.workload.container.args = Some(vec!["x".repeat(100_000)]);
    let mut announced = sandbox("n", "announced");
    announced
        .annotations_mut()
        .insert(ANNOTATION_STORED_BYTES.into(), "8000000".into());
    for object in [heavy, announced] {
        cache.apply(None, &mut HashMap::new(), Event::Apply(Readable(Ok(object))));
    }
    let kept = cache.get("n", "heavy").unwrap();
    assert!(slim::is_stripped(&kept.metadata) && kept.spec.workload.container.args.is_none());
    let usage = cache.usage("n");
    assert_eq!(usage.sandboxes, 2);
    assert!((8_100_000..8_110_000).contains(&usage.bytes), "{usage:?}");
    assert_eq!(cache.usage("m"), Usage::default());
}
