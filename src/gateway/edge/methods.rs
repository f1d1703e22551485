//! The RPC methods, from the descriptors: the method of a path, and the size that its requests may have.

use prost::Message;
use prost_types::FileDescriptorSet;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::gateway::edge::caller::Permission;
use crate::proto::DESCRIPTORS;

/// The package of the gateway's services.
const PACKAGE: &str = "coreweave.sandbox.v1";
/// Largest message of the methods that create a sandbox: it includes the sandbox's files. The SDK sends no larger one.
pub(crate) const MAX_MESSAGE: usize = 100 << 20;
/// Largest message of WriteFile: a file of 32 MiB, and its metadata.
const MAX_FILE_MESSAGE: usize = 33 << 20;
/// Largest message of other methods.
const MAX_OTHER_MESSAGE: usize = 4 << 20;
/// Largest message of a method that needs no credentials: the name of a service or of a symbol.
const MAX_UNAUTHENTICATED_MESSAGE: usize = 4 << 10;

/// An RPC method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// `Service/Method`, for logs and metrics.
    pub(crate) name: String,
    /// Whether it needs no credentials.
    pub(crate) unauthenticated: bool,
    /// The permission that its caller needs. Services check it again. None for methods that are not implemented.
    pub(crate) permission: Option<Permission>,
    /// Whether the request or the response is a stream.
    pub(crate) streaming: bool,
    /// Largest request message in bytes.
    pub(crate) max_message: usize,
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| methods(&descriptors()));
static UNKNOWN: LazyLock<Method> = LazyLock::new(|| Method {
    name: "unknown".into(),
    unauthenticated: false,
    permission: None,
    streaming: false,
    max_message: MAX_OTHER_MESSAGE,
});
static HEALTH: LazyLock<Method> = LazyLock::new(|| unauthenticated("Health", false));
static WATCH: LazyLock<Method> = LazyLock::new(|| unauthenticated("Health/Watch", true));
static REFLECTION: LazyLock<Method> = LazyLock::new(|| unauthenticated("Reflection", true));

impl Method {
    /// The method of a request's path.
    pub(crate) fn of(path: &str) -> &'static Method {
        match METHODS.get(path) {
            Some(method) => method,
            None if path == "/grpc.health.v1.Health/Check" => &HEALTH,
            None if path.starts_with("/grpc.health.v1.") => &WATCH,
            None if path.starts_with("/grpc.reflection.v1") => &REFLECTION,
            None => &UNKNOWN,
        }
    }
}

fn unauthenticated(name: &str, streaming: bool) -> Method {
    Method {
        name: name.into(),
        unauthenticated: true,
        permission: None,
        streaming,
        max_message: MAX_UNAUTHENTICATED_MESSAGE,
    }
}

fn descriptors() -> FileDescriptorSet {
    // The build generates them, and a test reads them.
    FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default()
}

fn methods(set: &FileDescriptorSet) -> HashMap<String, Method> {
    let files = set.file.iter().filter(|f| f.package() == PACKAGE);
    let services = files.flat_map(|f| &f.service);
    let all = services.flat_map(|s| s.method.iter().map(move |m| (s.name(), m)));
    all.map(|(service, m)| {
        let method = Method {
            name: format!("{service}/{}", m.name()),
            unauthenticated: false,
            permission: permission(m.name()),
            streaming: m.client_streaming() || m.server_streaming(),
            max_message: match m.name() {
                "CreateSandbox" | "CreateSandboxFromTemplate" => MAX_MESSAGE,
                "WriteFile" => MAX_FILE_MESSAGE,
                _ => MAX_OTHER_MESSAGE,
            },
        };
        (format!("/{PACKAGE}.{service}/{}", m.name()), method)
    })
    .collect()
}

fn permission(method: &str) -> Option<Permission> {
    Some(match method {
        "CreateSandbox" | "CreateSandboxFromTemplate" => Permission::Create,
        "GetSandbox" => Permission::Get,
        "ListSandboxes" | "ListAvailableRunners" | "GetAvailableRunner" => Permission::List,
        "DeleteSandbox" => Permission::Delete,
        "Exec" | "StreamExec" => Permission::Exec,
        "StreamLogs" => Permission::Logs,
        "ReadFile" => Permission::ReadFiles,
        "WriteFile" => Permission::WriteFiles,
        "GetVolume" | "ListVolumes" | "ValidateVolume" => Permission::GetVolumes,
        "CreateVolume" | "UpdateVolume" | "DeleteVolume" => Permission::RegisterVolumes,
        _ => return None,
    })
}

/// The descriptors for reflection: the `served` services, and no internal ones.
pub(crate) fn reflected(served: &[&str]) -> FileDescriptorSet {
    let mut set = descriptors();
    set.file
        .retain(|f| f.package() == PACKAGE || f.package().starts_with("google."));
    for file in set.file.iter_mut().filter(|f| f.package() == PACKAGE) {
        file.service
            .retain(|s| served.contains(&format!("{PACKAGE}.{}", s.name()).as_str()));
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_determines_the_method_and_its_limits() {
        let of = |path: &str| {
            let m = Method::of(path);
            (m.name.as_str(), m.unauthenticated, m.streaming, m.max_message >> 20)
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
    fn what_is_implemented_requires_a_permission() {
        let implemented = [
            "SandboxService",
            "SandboxDataPlaneService",
            "DiscoveryService",
            "VolumeService",
        ];
        let mut open: Vec<&str> = METHODS
            .values()
            .filter(|m| m.permission.is_none())
            .filter_map(|m| m.name.split_once('/'))
            .filter(|(service, _)| implemented.contains(service))
            .map(|(_, method)| method)
            .collect();
        open.sort_unstable();
        assert_eq!(
            open,
            [
                "ConnectSandbox",
                "CreateFileSystemSnapshot",
                "CreateSandboxFromFile",
                "DeleteFileSystemSnapshot",
                "GetFileSystemSnapshot",
                "GetSandboxBuildLogs",
                "ListFileSystemSnapshots",
                "PurgeSandboxes",
            ]
        );
        assert_eq!(HEALTH.permission, None);
    }

    #[test]
    fn reflection_lists_only_the_served_services() {
        let set = reflected(&["coreweave.sandbox.v1.SandboxService"]);
        let services: Vec<&str> = set.file.iter().flat_map(|f| &f.service).map(|s| s.name()).collect();
        assert_eq!(services, ["SandboxService"]);
        assert!(set.file.iter().all(|f| !f.name().contains("agent")));
        assert!(set.file.iter().any(|f| f.name() == "google/protobuf/timestamp.proto"));
    }
}
