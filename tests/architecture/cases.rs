//! The rules themselves are tested: each finds what breaks it, and nothing else.

use super::modules::Modules;
use super::{names, violations};

#[test]
fn what_breaks_a_rule_is_found() {
    for (file, source, violation) in [
        ("api/a.rs", "use crate::resources::Settings;", "api uses resources"),
        ("api/a.rs", "fn f() -> crate::operator::X {}", "api uses operator"),
        ("api/a.rs", "use super::super::resources::X;", "api uses resources"),
        ("api/a.rs", "use crate::*;", "api uses the root of the crate"),
        (
            "resources/a.rs",
            "use crate::{api::{A, B}, operator::{self}};",
            "resources uses operator",
        ),
        (
            "resources/a.rs",
            "macro_rules! m { () => { crate::operator::X } }",
            "resources uses operator",
        ),
        (
            "resources/a.rs",
            "mod tests { use super::super::super::operator::X; }",
            "resources uses operator",
        ),
        (
            "resources/a.rs",
            "fn f() { let now = Timestamp::now(); }",
            "resources uses jiff::Timestamp::now",
        ),
        ("resources/a.rs", "use kube::{Client};", "resources uses kube::Client"),
        ("agent/a.rs", "use crate::api::Sandbox;", "agent uses api"),
        ("agent/a.rs", "use kube::Resource;", "agent uses kube"),
        ("operator/a.rs", "use crate::agent::run;", "operator uses agent"),
        (
            "operator/a.rs",
            "use crate::gateway::config::Config;",
            "operator uses gateway",
        ),
        (
            "gateway/convert/a.rs",
            "fn f() { tokio::spawn(g()); }",
            "gateway::convert uses tokio",
        ),
        (
            "gateway/convert/a.rs",
            "use crate::gateway::rpc::x;",
            "gateway::convert uses gateway::rpc",
        ),
        ("cellar.rs", "", "cellar is in no room"),
    ] {
        let others = [
            "api",
            "resources",
            "operator",
            "gateway",
            "gateway/rpc",
            "gateway/convert",
            "agent",
        ]
        .map(|room| (format!("{room}/mod.rs"), String::new()));
        let mut files: Vec<(&str, &str)> = others
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        files.push(("lib.rs", ""));
        files.push((file, source));
        assert_eq!(violations(&Modules::from_sources(&files)), [violation], "{source}");
    }
}

#[test]
fn what_breaks_no_rule_is_not_reported() {
    let files = [
        ("api/mod.rs", "mod a; mod b; pub use a::A;"),
        (
            "api/a.rs",
            "// crate::operator\nconst A: &str = \"crate::operator \\\" crate::agent\"; struct A;",
        ),
        ("api/b.rs", "use super::A; fn f() { my_crate::operator::g(); }"),
        (
            "operator/mod.rs",
            "use crate::api::A; fn now() { std::time::Instant::now(); }",
        ),
        ("agent/mod.rs", "use std::path::Path;\nmod main_process;"),
    ];
    let modules = Modules::from_sources(&files);
    assert_eq!(violations(&modules), Vec::<String>::new());
    assert_eq!(
        modules.circles(),
        Vec::new(),
        "a re-export is not where a name comes from"
    );
}

#[test]
fn circles_are_found() {
    for (files, circle) in [
        (
            [
                ("a/mod.rs", "mod b; use b::B; struct A;"),
                ("a/b.rs", "use super::A; struct B;"),
                ("c.rs", ""),
            ],
            "a, a::b",
        ),
        (
            [
                ("a.rs", "use crate::b::X;"),
                ("b.rs", "fn f() { crate::c::g() }"),
                ("c.rs", "use super::a;"),
            ],
            "a, b, c",
        ),
        (
            [
                ("a/mod.rs", "pub mod b; pub mod c; pub use c::*;"),
                ("a/b.rs", "use crate::a::C;"),
                ("a/c.rs", "use super::b; struct C;"),
            ],
            "a::b, a::c",
        ),
    ] {
        assert_eq!(
            Modules::from_sources(&files)
                .circles()
                .iter()
                .map(names)
                .collect::<Vec<_>>(),
            [circle]
        );
    }
    let tests_only = [
        ("a/mod.rs", "mod b; struct A;"),
        ("a/b.rs", "#[cfg(test)] mod tests { use super::super::A; }"),
    ];
    assert_eq!(Modules::from_sources(&tests_only).circles(), Vec::new());
}
