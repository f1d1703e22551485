//! The rooms of the crate and the direction of imports between them: `api` ← `resources` ← `operator` and `gateway`,
//! which meet only in the API server. Both call agents through `agent_client`; `agent` itself knows nothing of
//! Kubernetes.
#![allow(clippy::unwrap_used)]

mod cases;
mod modules;

use modules::{Module, ModulePath, Modules};
use std::collections::BTreeSet;
use std::path::Path;

/// Each room and the rooms it may use besides itself. A module belongs to the room with the longest matching path. A
/// top-level module without an entry fails the test, so that a new room is placed on purpose.
const ROOMS: &[(&str, &[&str])] = &[
    // Leaves: each is of use to several others and knows none of them.
    ("agent_contract", &[]),
    ("kube", &["telemetry"]),
    ("net", &["telemetry"]),
    ("network_probe", &[]),
    ("process", &["net"]),
    ("proto", &[]),
    ("telemetry", &[]),
    ("text", &[]),
    ("token", &[]),
    // What users write, and what follows from it.
    ("api", &["agent_contract"]),
    ("resources", &["agent_contract", "api", "network_probe", "text"]),
    (
        "network_check",
        &["kube", "network_probe", "resources", "telemetry", "text"],
    ),
    // In the sandbox.
    ("agent", &["agent_contract", "net", "proto", "text", "token"]),
    ("agent_client", &["proto", "token"]),
    // The operator. The first four are leaves inside it.
    ("operator::error", &["kube"]),
    ("operator::metrics", &["kube", "network_check", "telemetry"]),
    (
        "operator::events",
        &["api", "kube", "operator::metrics", "telemetry", "text"],
    ),
    ("operator::apply", &["api", "kube", "operator::error"]),
    (
        "operator::runtime",
        &[
            "api",
            "kube",
            "operator::error",
            "operator::events",
            "operator::metrics",
            "telemetry",
        ],
    ),
    (
        "operator::enforcement",
        &[
            "api",
            "kube",
            "network_check",
            "operator::apply",
            "operator::events",
            "operator::metrics",
            "operator::runtime",
            "resources",
            "telemetry",
        ],
    ),
    (
        "operator::session",
        &["api", "operator::apply", "operator::error", "operator::runtime"],
    ),
    (
        "operator::sandbox",
        &[
            "agent_client",
            "agent_contract",
            "api",
            "kube",
            "network_check",
            "operator::apply",
            "operator::enforcement",
            "operator::error",
            "operator::events",
            "operator::metrics",
            "operator::runtime",
            "operator::session",
            "resources",
            "telemetry",
            "text",
        ],
    ),
    (
        "operator",
        &[
            "agent_client",
            "api",
            "kube",
            "network_check",
            "operator::apply",
            "operator::enforcement",
            "operator::error",
            "operator::events",
            "operator::metrics",
            "operator::runtime",
            "operator::sandbox",
            "operator::session",
            "process",
            "resources",
            "telemetry",
        ],
    ),
    // The gateway. The first three are leaves inside it; the rest is in the order in which a room may use those above
    // it.
    ("gateway::config", &["agent_contract", "api", "resources"]),
    ("gateway::error", &["kube", "telemetry", "text"]),
    ("gateway::metrics", &["kube", "telemetry"]),
    (
        "gateway::convert",
        &[
            "agent_contract",
            "api",
            "gateway::config",
            "gateway::error",
            "proto",
            "resources",
            "text",
        ],
    ),
    (
        "gateway::cluster",
        &[
            "api",
            "gateway::config",
            "gateway::convert",
            "gateway::error",
            "gateway::metrics",
            "kube",
            "resources",
        ],
    ),
    (
        "gateway::edge",
        &[
            "api",
            "gateway::config",
            "gateway::error",
            "gateway::metrics",
            "kube",
            "net",
            "proto",
            "telemetry",
        ],
    ),
    (
        "gateway::sandboxes",
        &[
            "api",
            "gateway::cluster",
            "gateway::config",
            "gateway::convert",
            "gateway::edge",
            "gateway::error",
            "kube",
            "proto",
            "resources",
        ],
    ),
    (
        "gateway::dataplane",
        &[
            "agent_client",
            "agent_contract",
            "api",
            "gateway::config",
            "gateway::convert",
            "gateway::edge",
            "gateway::error",
            "gateway::sandboxes",
            "kube",
            "net",
            "proto",
            "resources",
            "telemetry",
            "text",
        ],
    ),
    (
        "gateway::rpc",
        &[
            "agent_client",
            "api",
            "gateway::cluster",
            "gateway::config",
            "gateway::convert",
            "gateway::dataplane",
            "gateway::edge",
            "gateway::error",
            "gateway::sandboxes",
            "kube",
            "proto",
            "resources",
        ],
    ),
    (
        "gateway",
        &[
            "agent_client",
            "gateway::cluster",
            "gateway::config",
            "gateway::edge",
            "gateway::metrics",
            "gateway::rpc",
            "kube",
            "net",
            "process",
            "telemetry",
        ],
    ),
    (
        "main",
        &[
            "agent",
            "agent_contract",
            "api",
            "gateway",
            "network_probe",
            "operator",
            "telemetry",
        ],
    ),
];

/// Rooms of pure functions, and what has no place in them: a client, a clock, a runtime.
const PURE: [&str; 3] = ["api", "resources", "gateway::convert"];
const IMPURE: [&str; 8] = [
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::runtime",
    "tokio",
    "jiff::Timestamp::now",
    "std::time::SystemTime::now",
    "std::time::Instant::now",
];

/// Crates that must not be where untrusted code runs.
const NOT_IN_AGENT: [&str; 5] = ["kube", "k8s_openapi", "axum", "prometheus_client", "ipnet"];

/// The room of a module, if it has one.
fn room_of(module: &[String]) -> Option<&'static str> {
    let rooms = ROOMS
        .iter()
        .map(|(room, _)| *room)
        .filter(|room| is_below(module, room));
    rooms.max_by_key(|room| room.len())
}

fn is_below(path: &[String], prefix: &str) -> bool {
    let prefix: Vec<&str> = prefix.split("::").collect();
    path.len() >= prefix.len() && path.iter().zip(prefix).all(|(part, wanted)| part == wanted)
}

/// What is wrong with the rooms of `modules`, and which arrows they have.
fn check(modules: &Modules) -> (Vec<String>, BTreeSet<(&'static str, &'static str)>) {
    let (mut found, mut arrows) = (BTreeSet::new(), BTreeSet::new());
    for (path, module) in modules.0.iter().filter(|(path, _)| !path.is_empty()) {
        let Some(room) = room_of(path) else {
            found.insert(format!("{} is in no room", path.join("::")));
            continue;
        };
        let allowed = ROOMS
            .iter()
            .find(|(name, _)| *name == room)
            .map_or(&[][..], |(_, allowed)| allowed);
        for used in &module.uses {
            let target = modules.resolve(used);
            let Some(to) = room_of(&target) else {
                found.insert(format!("{room} uses the root of the crate"));
                continue;
            };
            arrows.insert((room, to));
            if to != room && !allowed.contains(&to) {
                found.insert(format!("{room} uses {to}"));
            }
        }
        found.extend(forbidden(room, module).map(|what| format!("{room} uses {what}")));
    }
    (found.into_iter().collect(), arrows)
}

fn violations(modules: &Modules) -> Vec<String> {
    check(modules).0
}

fn forbidden(room: &str, module: &Module) -> impl Iterator<Item = &'static str> {
    let crates: &'static [&'static str] = match room {
        "agent" => &NOT_IN_AGENT,
        _ if PURE.contains(&room) && !module.test => &IMPURE,
        _ => &[],
    };
    let is_used = |what: &str| module.external.iter().any(|path| ends_with_path(path, what));
    crates.iter().copied().filter(move |what| is_used(what))
}

/// Whether `path` leads to `what`. Only a function of a type may be named without the modules before it, as in
/// `Timestamp::now`.
fn ends_with_path(path: &[String], what: &str) -> bool {
    let method = what.ends_with("::now");
    is_below(path, what)
        || method && path.len() > 1 && what.ends_with(&format!("::{}", path[path.len() - 2..].join("::")))
}

fn source() -> Modules {
    Modules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

#[test]
fn every_room_uses_only_what_it_may() {
    let (violations, arrows) = check(&source());
    assert_eq!(violations, Vec::<String>::new());
    let allowed = ROOMS
        .iter()
        .flat_map(|(room, allowed)| allowed.iter().map(|to| (*room, *to)));
    let unused: Vec<_> = allowed.filter(|arrow| !arrows.contains(arrow)).collect();
    assert_eq!(unused, [], "arrows that ROOMS allows and nobody uses");
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let circles: Vec<String> = source().circles().iter().map(names).collect();
    assert_eq!(circles, Vec::<String>::new());
}

fn names(modules: &BTreeSet<ModulePath>) -> String {
    modules
        .iter()
        .map(|path| path.join("::"))
        .collect::<Vec<_>>()
        .join(", ")
}
