//! Every method of the protocol, as the descriptors have it: what a path means, and what its requests may weigh.

use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::proto::DESCRIPTORS;

/// The package that the gateway speaks.
const PACKAGE: &str = "coreweave.sandbox.v1";
/// Largest message of the calls that create: their files are inline. The SDK sends no larger one.
pub const LARGEST: usize = 100 << 20;
/// Largest message of WriteFile: a file in one piece, and what stands around it.
const LARGEST_FILE: usize = 33 << 20;
/// Largest message of everything else.
const LARGE: usize = 4 << 20;
/// Largest message of who shows no credentials: the name of a service, or of a symbol.
const SMALL: usize = 4 << 10;

/// A method.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// `Service/Method`, for people and metrics.
    pub name: String,
    /// Whether it needs no credentials.
    pub open: bool,
    /// Whether either side sends a stream.
    pub streaming: bool,
    /// Bytes of its largest request.
    pub largest: usize,
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| methods(&descriptors()));
static UNKNOWN: LazyLock<Method> = LazyLock::new(|| Method {
    open: false,
    streaming: false,
    largest: LARGE,
    ..open("unknown", false)
});
static HEALTH: LazyLock<Method> = LazyLock::new(|| open("Health", false));
static WATCH: LazyLock<Method> = LazyLock::new(|| open("Health/Watch", true));
static REFLECTION: LazyLock<Method> = LazyLock::new(|| open("Reflection", true));

impl Method {
    /// The method of a request's path.
    pub fn of(path: &str) -> &'static Method {
        match METHODS.get(path) {
            Some(method) => method,
            None if path == "/grpc.health.v1.Health/Check" => &HEALTH,
            None if path.starts_with("/grpc.health.v1.") => &WATCH,
            None if path.starts_with("/grpc.reflection.v1") => &REFLECTION,
            None => &UNKNOWN,
        }
    }
}

fn open(name: &str, streaming: bool) -> Method {
    Method {
        name: name.into(),
        open: true,
        streaming,
        largest: SMALL,
    }
}

fn descriptors() -> FileDescriptorSet {
    // They come from our own build; a test reads them.
    FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default()
}

fn methods(set: &FileDescriptorSet) -> HashMap<String, Method> {
    let files = set.file.iter().filter(|f| f.package() == PACKAGE);
    let services = files.flat_map(|f| &f.service);
    let all = services.flat_map(|s| s.method.iter().map(move |m| (s.name(), m)));
    all.map(|(service, m)| {
        let method = Method {
            name: format!("{service}/{}", m.name()),
            open: false,
            streaming: m.client_streaming() || m.server_streaming(),
            largest: match m.name() {
                "CreateSandbox" | "CreateSandboxFromTemplate" => LARGEST,
                "WriteFile" => LARGEST_FILE,
                _ => LARGE,
            },
        };
        (format!("/{PACKAGE}.{service}/{}", m.name()), method)
    })
    .collect()
}

/// The descriptors for reflection: of our package only the services named, and nothing of the agent's.
pub fn reflected(served: &[&str]) -> FileDescriptorSet {
    let mut set = descriptors();
    set.file.retain(|f| f.package() == PACKAGE || f.package().starts_with("google."));
    for file in set.file.iter_mut().filter(|f| f.package() == PACKAGE) {
        file.service.retain(|s| served.contains(&format!("{PACKAGE}.{}", s.name()).as_str()));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_may_weigh_and_who_may_call_it() {
        let of = |path: &str| {
            let m = Method::of(path);
            (m.name.as_str(), m.open, m.streaming, m.largest >> 20)
        };
        assert_eq!(
            of("/coreweave.sandbox.v1.SandboxService/CreateSandbox"),
            ("SandboxService/CreateSandbox", false, false, 100)
        );
        assert_eq!(
            of("/coreweave.sandbox.v1.SandboxDataPlaneService/WriteFile"),
            ("SandboxDataPlaneService/WriteFile", false, false, 33)
        );
        assert_eq!(
            of("/coreweave.sandbox.v1.SandboxService/StreamExec"),
            ("SandboxService/StreamExec", false, true, 4)
        );
        assert_eq!(
            of("/coreweave.sandbox.v1.SandboxService/StreamLogs"),
            ("SandboxService/StreamLogs", false, true, 4)
        );
        assert_eq!(of("/grpc.health.v1.Health/Check"), ("Health", true, false, 0));
        assert_eq!(of("/grpc.health.v1.Health/Watch"), ("Health/Watch", true, true, 0));
        assert_eq!(
            of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
            ("Reflection", true, true, 0)
        );
        for other in [
            "/",
            "/coreweave.sandbox.v1.SandboxService/Nothing",
            "/sandbox_operator.agent.v1.Agent/Exec",
            "/grpc.health",
        ] {
            assert_eq!(of(other), ("unknown", false, false, 4), "{other}");
        }
    }

    #[test]
    fn reflection_shows_the_served_services_only() {
        let set = reflected(&["coreweave.sandbox.v1.SandboxService"]);
        let services: Vec<&str> = set.file.iter().flat_map(|f| &f.service).map(|s| s.name()).collect();
        assert_eq!(services, ["SandboxService"]);
        assert!(set.file.iter().all(|f| !f.name().contains("agent")));
        assert!(set.file.iter().any(|f| f.name() == "google/protobuf/timestamp.proto"));
    }
}
