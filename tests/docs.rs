//! The documentation names tests that exist.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Each row of the table of promises ends with the tests that prove it: `path::name`, where `path` is a file of this
/// repository.
#[test]
fn every_promise_of_the_security_page_names_tests_that_exist() {
    let page = read("docs/security.md");
    let table = page
        .split_once("## Promises and their tests")
        .expect("the section with the promises")
        .1;
    let table = table.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 10, "{rows:?}");
    let missing: Vec<&str> = rows.iter().copied().filter(|row| !names_tests(row)).collect();
    assert_eq!(missing, Vec::<&str>::new());
    assert!(!names_tests("| a promise | `tests/docs.rs::no_such_test` |"));
    assert!(!names_tests("| a promise without a test | |"));
}

fn names_tests(row: &str) -> bool {
    let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
    let mut tests = tests.split('`').skip(1).step_by(2).peekable();
    tests.peek().is_some()
        && tests.all(|test| {
            test.split_once("::").is_some_and(|(path, name)| {
                let text = read(path);
                text.contains(&format!("fn {name}(")) || text.contains(&format!("def {name}("))
            })
        })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}
