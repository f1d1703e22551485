//! End to end on a real cluster with the chart installed: `make e2e`. Real API server, real kubelet, real pods.
#![allow(clippy::unwrap_used)]

mod chart;
mod constraints;
mod endings;
mod examples;
mod exec_limits;
mod external_ends;
mod files;
mod mutations;
mod nodes;
mod operator;
mod release;
mod restricted;
mod sessions;
mod shapes;
mod stopping;
mod support;

/// The manual, and the promise that each reason is the outcome of a case here.
#[test]
fn every_reason_has_a_case_and_a_line_in_the_manual() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let cases = std::fs::read_dir(root.join("tests/e2e"))
        .unwrap()
        .map(|entry| read(entry.unwrap().path()));
    let (cases, manual): (String, String) = (cases.collect(), read(root.join("docs/reasons.md")));
    let words = || sandbox_operator::api::reason::ALL.iter().map(|(word, _)| *word);
    let without_case: Vec<_> = words().filter(|word| !cases.contains(&format!("\"{word}\""))).collect();
    let without_line: Vec<_> = words()
        .filter(|word| !manual.contains(&format!("| `{word}` |")))
        .collect();
    assert_eq!((without_case, without_line), (vec![], vec![]));
}
