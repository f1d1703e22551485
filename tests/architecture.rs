//! The rooms of the crate, and which may enter which: `api` ← `resources` ← `operator`, `gateway`; these two meet only in the API server.
//! Both call the agent through `agent_client`; `agent` itself knows nothing of Kubernetes.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room and the rooms that it may enter. A room that is not here breaks the test, so a new one has to be placed.
const MAY_ENTER: [(&str, &[&str]); 16] = [
    ("api", &["agent_contract"]),
    ("resources", &["agent_contract", "api"]),
    ("operator", &["agent_client", "api", "kube", "process", "resources", "telemetry", "text"]),
    (
        "gateway",
        &[
            "agent_client",
            "agent_contract",
            "api",
            "kube",
            "net",
            "process",
            "proto",
            "resources",
            "telemetry",
            "text",
        ],
    ),
    ("agent_client", &["proto", "token"]),
    ("agent_contract", &[]),
    ("agent", &["agent_contract", "net", "proto", "text", "token"]),
    ("proto", &[]),
    ("token", &[]),
    ("process", &[]),
    ("telemetry", &[]),
    ("kube", &["telemetry"]),
    ("net", &["telemetry"]),
    ("text", &[]),
    ("lib", &[]),
    (
        "main",
        &["agent", "agent_contract", "api", "gateway", "operator", "resources", "telemetry"],
    ),
];

/// Rooms of pure functions, and what has no place in them: a client, a clock, a runtime.
const PURE: [&str; 2] = ["api", "resources"];
const IMPURE: [&str; 8] = [
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::runtime",
    "tokio::",
    "Timestamp::now",
    "SystemTime::now",
    "Instant::now",
];

/// Crates that must not be where untrusted code runs.
const NOT_IN_AGENT: [&str; 5] = ["kube::", "k8s_openapi::", "axum::", "prometheus_client::", "ipnet::"];

/// The code without comments, strings and character literals.
fn code(source: &str) -> String {
    let (mut out, mut rest) = (String::new(), source);
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |i| i + 5)
        } else if c == '"' {
            string_length(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.push(' ');
        rest = &rest[skip..];
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> &str {
    text.trim_start().split(|c| !is_word(c)).next().unwrap_or_default()
}

/// What stands after `path::`: one name, or the first names of a group in braces.
fn heads(after: &str) -> Vec<String> {
    let after = after.trim_start();
    let Some(group) = after.strip_prefix('{') else {
        let name = word(after);
        return vec![if name.is_empty() { "*".into() } else { name.into() }];
    };
    let (mut names, mut depth, mut item) = (vec![], 1, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.extend(heads(&std::mem::take(&mut item))),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if c != ',' || depth > 1 {
            item.push(c);
        }
    }
    if !item.trim().is_empty() {
        names.extend(heads(&item));
    }
    names
}

/// Rooms that a file names, by `crate::x`, by `sandbox_operator::x`, or by as many `super::` as lead to the crate's root.
/// `depth`: how many modules the file is below the root.
fn entered(source: &str, depth: usize) -> BTreeSet<String> {
    let code = code(source);
    let tests = start_of_tests(&code);
    let mut found = BTreeSet::new();
    for root in ["crate", "sandbox_operator"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].chars().next_back().is_some_and(is_word) {
                continue;
            }
            let after = code[at + root.len()..].trim_start();
            if let Some(path) = after.strip_prefix("::") {
                found.extend(heads(path));
            } else if after.starts_with("as ") {
                found.insert("*".into());
            }
        }
    }
    let mut from = 0;
    while let Some(at) = code[from..].find("super::").map(|i| i + from) {
        let (mut end, mut ups) = (at, 0);
        while code[end..].starts_with("super::") {
            (end, ups) = (end + "super::".len(), ups + 1);
        }
        // The modules of a file's own tests are one deeper.
        if ups == depth + usize::from(at > tests) {
            found.extend(heads(&code[end..]));
        }
        from = end;
    }
    found
}

fn start_of_tests(code: &str) -> usize {
    code.find("mod tests {").unwrap_or(code.len())
}

/// What `source`, a file of `room`, breaks.
fn broken(room: &str, source: &str, depth: usize) -> Vec<String> {
    let Some((_, allowed)) = MAY_ENTER.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{room} has no place in MAY_ENTER")];
    };
    let entered = entered(source, depth);
    let mut broken: Vec<String> = entered
        .iter()
        .filter(|to| *to != room && !allowed.contains(&to.as_str()))
        .map(|to| format!("{room} enters {to}"))
        .collect();
    let code = code(source);
    let shipped = &code[..start_of_tests(&code)];
    let forbidden: &[&str] = match room {
        "agent" => &NOT_IN_AGENT,
        _ if PURE.contains(&room) => &IMPURE,
        _ => &[],
    };
    broken.extend(forbidden.iter().filter(|f| names(shipped, f)).map(|f| format!("{room} uses {f}")));
    broken
}

/// Whether `code` names `path` as a path of its own, not as the end of a longer word.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(is_word) && (path.ends_with(':') || !after.is_some_and(is_word))
    })
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that lead to a file below `src`: `operator/sandbox/mod.rs` is `[operator, sandbox]`.
fn modules(below_src: &Path) -> Vec<String> {
    let mut parts: Vec<String> = below_src.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|p| p == "mod") {
        parts.pop();
    }
    parts
}

#[test]
fn every_room_enters_only_what_it_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut problems, mut rooms) = (vec![], BTreeSet::new());
    for file in rust_files(&src) {
        let modules = modules(file.strip_prefix(&src).unwrap());
        let room = &modules[0];
        // `lib.rs` and `main.rs` are roots themselves.
        let depth = if ["lib", "main"].contains(&room.as_str()) { 0 } else { modules.len() };
        let source = std::fs::read_to_string(&file).unwrap();
        problems.extend(broken(room, &source, depth).into_iter().map(|p| format!("{}: {p}", file.display())));
        rooms.insert(room.clone());
    }
    assert_eq!(problems, Vec::<String>::new());
    let known: BTreeSet<String> = MAY_ENTER.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(rooms, known, "MAY_ENTER names the rooms that there are");
}

#[test]
fn the_scanner_sees_what_breaks_a_rule() {
    let enters = |room: &str, source: &str, depth| broken(room, source, depth);
    for (room, source, depth, problem) in [
        ("api", "use crate::resources::Settings;", 2, "api enters resources"),
        ("api", "fn f() -> crate::operator::X {}", 2, "api enters operator"),
        ("api", "use crate::*;", 2, "api enters *"),
        ("api", "use crate as ours;", 2, "api enters *"),
        ("api", "use super::resources::X;", 1, "api enters resources"),
        ("resources", "use super::super::operator::X;", 2, "resources enters operator"),
        (
            "resources",
            "mod tests { use super::super::super::operator::X; }",
            2,
            "resources enters operator",
        ),
        ("resources", "use crate::{api::{A, B}, operator::{self}};", 2, "resources enters operator"),
        ("resources", "let now = jiff::Timestamp::now();", 2, "resources uses Timestamp::now"),
        (
            "resources",
            "use kube::{Api};\nfn f(c: kube::Client) {}",
            2,
            "resources uses kube::Client",
        ),
        ("agent", "use crate::api::Sandbox;", 1, "agent enters api"),
        ("agent", "use kube::Resource;", 1, "agent uses kube::"),
        ("operator", "use crate::agent::run;", 2, "operator enters agent"),
        ("telemetry", "use crate::api::GROUP;", 1, "telemetry enters api"),
        ("gateway", "use crate::operator::config::Config;", 1, "gateway enters operator"),
        ("operator", "use crate::gateway::config::Config;", 1, "operator enters gateway"),
        ("agent_client", "use crate::api::Sandbox;", 1, "agent_client enters api"),
        ("cellar", "", 1, "cellar has no place in MAY_ENTER"),
    ] {
        assert_eq!(enters(room, source, depth), [problem], "{source}");
    }
    for (room, source, depth) in [
        ("api", "pub(crate) fn f() {}\nuse super::workload::Workload;", 2),
        ("api", "mod tests { use super::*; }", 1),
        ("api", "// crate::operator\nconst A: &str = \"crate::operator \\\" crate::agent\";", 2),
        ("resources", "use crate::{api::A, resources::B};\nuse super::super::resources::C;", 2),
        ("resources", "fn f() { mycrate::operator::g(); }", 2),
        ("operator", "use crate::api::A;\nuse crate::resources::B;\ncrate::telemetry::init();", 2),
        ("agent", "use std::path::Path;\nmod main_process;", 1),
    ] {
        assert_eq!(enters(room, source, depth), Vec::<String>::new(), "{source}");
    }
}
