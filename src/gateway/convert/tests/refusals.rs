//! What is not supported is refused by name, all of it in one answer, and every refusal names a field of the request.

use std::collections::BTreeSet;
use std::panic::Location;
use std::path::Path;
use std::sync::Mutex;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::descriptors::has_field;
use super::templates::template;
use super::{container, draft, draft_from, with};
use crate::api::FieldPath;
use crate::gateway::convert::files::MAX_SECRET_BYTES;
use crate::gateway::convert::overrides::into_spec;
use crate::gateway::convert::{network, secrets};
use crate::proto::sandbox as pb;

/// The places in the code that have refused something: file and line.
static REFUSED_AT: Mutex<BTreeSet<(String, u32)>> = Mutex::new(BTreeSet::new());

/// Called for every refusal in any test of this process.
pub(crate) fn record(field: &FieldPath, location: &Location<'_>) {
    let field = field.to_string();
    let requests = ["CreateSandboxRequest", "CreateSandboxFromTemplateRequest"];
    assert!(
        requests.iter().any(|r| has_field(r, &field)),
        "{field} is no field of a request ({location})"
    );
    REFUSED_AT.lock().unwrap().insert((location.file().into(), location.line()));
}

/// Checks that each refusal in the code below `directory` has occurred.
pub(crate) fn assert_all_refused(directory: &Path) {
    const CALLS: [&str; 6] = [
        ".invalid(",
        ".check(",
        ".at_most(",
        ".unsupported(",
        ".no_suitable_runner(",
        ".not_implemented(",
    ];
    let refused_at = REFUSED_AT.lock().unwrap().clone();
    let mut missing = vec![];
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)) {
        let source = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
        for (line, text) in (1..).zip(source.lines()) {
            let is_refusal = CALLS.iter().any(|call| text.contains(&format!("problems{call}"))) || text.contains("problems.refuse(");
            if is_refusal && !name.contains("/tests") && !refused_at.contains(&(name.clone(), line)) {
                missing.push(format!("{name}:{line}: {}", text.trim()));
            }
        }
    }
    assert!(missing.is_empty(), "no test provokes these refusals:\n{}", missing.join("\n"));
}

fn rust_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    let nested = directories.iter().flat_map(|d| rust_files(d));
    nested
        .chain(files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")))
        .collect()
}

/// A change that makes a spec invalid.
pub(crate) type Change = fn(&mut pb::SandboxSpec);

pub(crate) fn refused(change: Change) -> Status {
    draft(with(change)).err().unwrap()
}

/// Each change is refused, with that field and no other.
pub(crate) fn assert_refused(cases: &[(&str, Change)]) {
    let mut failures = vec![];
    for (field, change) in cases {
        let status = refused(*change);
        let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
        let is_only = !violations.is_empty() && violations.iter().all(|v| v.field == *field);
        let in_message = status.message().starts_with(&format!("{field}: "));
        if !(is_only && in_message && status.code() == Code::InvalidArgument) {
            failures.push(format!("{field}: {status:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn file(path: &str) -> pb::FileMount {
    pb::FileMount {
        path: path.into(),
        content: "x".into(),
    }
}

fn mount(volume: &str, path: &str) -> pb::VolumeMount {
    pb::VolumeMount {
        volume: volume.into(),
        mount_path: path.into(),
        ..pb::VolumeMount::default()
    }
}

fn scratch(name: &str, size: &str, medium: pb::StorageMedium) -> pb::SandboxVolume {
    pb::SandboxVolume {
        name: name.into(),
        source: Some(pb::sandbox_volume::Source::Scratch(pb::ScratchVolume {
            size: size.into(),
            medium: medium.into(),
            ..pb::ScratchVolume::default()
        })),
    }
}

fn security(context: pb::SecurityContext) -> Option<pb::SecurityContext> {
    Some(context)
}

fn cpu(requests: &str, limits: &str) -> Option<pb::ResourceRequirements> {
    let of = |cpu: &str| {
        Some(pb::Resources {
            cpu: cpu.into(),
            ..pb::Resources::default()
        })
    };
    Some(pb::ResourceRequirements {
        requests: of(requests),
        limits: of(limits),
    })
}

fn service(port: i32, name: &str) -> pb::Service {
    pb::Service {
        port,
        name: name.into(),
        visibility: pb::Visibility::Private.into(),
        ..pb::Service::default()
    }
}

fn endpoint(endpoint: pb::EndpointSpec) -> Vec<pb::Service> {
    vec![pb::Service {
        endpoint: Some(endpoint),
        ..service(80, "a")
    }]
}

#[test]
fn an_invalid_field_is_named() {
    let cases: &[(&str, Change)] = &[
        ("sandbox.spec.containers", |s| s.containers.clear()),
        ("sandbox.spec.containers[1].startup_probe", |s| {
            s.containers.push(pb::Container {
                startup_probe: Some(pb::Probe::default()),
                ..container("b")
            });
        }),
        ("sandbox.spec.containers[1].image", |s| {
            s.containers.push(pb::Container {
                image: String::new(),
                ..container("b")
            });
        }),
        ("sandbox.spec.containers[1].name", |s| s.containers.push(container("main"))),
        ("sandbox.spec.containers[1].name", |s| s.containers.push(container("Upper"))),
        ("sandbox.spec.containers[1].name", |s| {
            s.containers.push(container("sandbox-operator-agent"))
        }),
        ("sandbox.spec.containers[1].primary", |s| {
            s.containers.push(container("b"));
            s.containers.iter_mut().for_each(|c| c.primary = Some(true));
        }),
        ("sandbox.spec.containers[0].working_dir", |s| s.containers[0].working_dir = "work".into()),
        ("sandbox.spec.containers[0].command", |s| s.containers[0].command = "a\0b".into()),
        ("sandbox.spec.containers[0].args[1]", |s| s.containers[0].args[1] = "\0".into()),
        ("sandbox.spec.containers[0].environment_variables[\"NOT A NAME\"]", |s| {
            s.containers[0].environment_variables.insert("NOT A NAME".into(), "x".into());
        }),
        ("sandbox.spec.containers[0].environment_variables[\"CW_SANDBOX_ID\"]", |s| {
            s.containers[0].environment_variables.insert("CW_SANDBOX_ID".into(), "x".into());
        }),
        ("sandbox.spec.containers[0].environment_variables[\"A\"]", |s| {
            s.containers[0].environment_variables.insert("A".into(), "\0".into());
        }),
        ("sandbox.spec.containers[0].secret_stores[0].secrets[0].env_var", |s| {
            s.containers[0].environment_variables.insert("TOKEN".into(), "x".into());
            s.containers[0].secret_stores = vec![pb::SecretStoreReference {
                store_name: "store".into(),
                secrets: vec![pb::SecretMapping {
                    path: "TOKEN".into(),
                    ..pb::SecretMapping::default()
                }],
            }];
        }),
        ("sandbox.spec.containers[0].image_pull_credentials.registry", |s| {
            s.containers[0].image_pull_credentials = Some(pb::ImagePullCredentials::default());
        }),
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].files = vec![file("../../etc/passwd")]
        }),
        ("sandbox.spec.containers[0].files[0].path", |s| s.containers[0].files = vec![file("a/")]),
        ("sandbox.spec.containers[0].files[0].path", |s| s.containers[0].files = vec![file("")]),
        ("sandbox.spec.containers[0].files[0].path", |s| s.containers[0].files = vec![file("/a:b")]),
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].files = vec![file("/.sandbox-operator/x")]
        }),
        ("sandbox.spec.containers[0].files[1].path", |s| {
            s.containers[0].files = vec![file("/a"), file("//a")]
        }),
        ("sandbox.spec.containers[0].files[1].path", |s| {
            s.containers[0].working_dir = "/w".into();
            s.containers[0].files = vec![file("/w/a"), file("a")];
        }),
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].command.clear();
            s.containers[0].files = vec![file("train.py")];
        }),
        ("sandbox.spec.containers[0].files[0].content", |s| {
            s.containers[0].files = vec![pb::FileMount {
                content: vec![0; MAX_SECRET_BYTES + 1].into(),
                ..file("/a")
            }];
        }),
        ("sandbox.spec.containers", |s| {
            let big = |i: usize| pb::FileMount {
                content: vec![0; MAX_SECRET_BYTES].into(),
                ..file(&format!("/{i}"))
            };
            s.containers[0].files = (0..10).map(big).collect();
        }),
        ("sandbox.spec.containers[0].resource_requirements.requests.cpu", |s| {
            s.containers[0].resource_requirements = cpu("much", "1")
        }),
        ("sandbox.spec.containers[0].resource_requirements.requests.cpu", |s| {
            s.containers[0].resource_requirements = cpu("1500m", "1")
        }),
        ("sandbox.spec.containers[0].resource_requirements.limits.cpu", |s| {
            s.containers[0].resource_requirements = cpu("1", "1e999999999")
        }),
        ("sandbox.spec.containers[0].resources", |s| {
            s.containers[0].resource_requirements = cpu("1", "1");
            s.containers[0].resources = Some(pb::Resources::default());
        }),
        ("sandbox.spec.containers[0].resource_requirements.limits.gpu.count", |s| {
            let gpu = pb::Gpu {
                count: -1,
                ..pb::Gpu::default()
            };
            s.containers[0].resource_requirements = Some(pb::ResourceRequirements {
                requests: None,
                limits: Some(pb::Resources {
                    gpu: Some(gpu),
                    ..pb::Resources::default()
                }),
            });
        }),
        ("sandbox.spec.containers[0].security_context.privileged", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                privileged: Some(true),
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].security_context.allow_privilege_escalation", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                allow_privilege_escalation: Some(true),
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].security_context.capabilities_add[0]", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                capabilities_add: vec!["SYS_ADMIN".into()],
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].security_context.capabilities_drop[0]", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                capabilities_drop: vec!["CAP_CHOWN".into()],
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].security_context.seccomp_profile", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                seccomp_profile: "Unconfined".into(),
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].security_context.run_as_user", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                run_as_user: Some(u32::MAX),
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].volume_mounts[0].volume", |s| {
            s.containers[0].volume_mounts = vec![mount("v", "/v")]
        }),
        ("sandbox.spec.containers[0].volume_mounts[0].mount_path", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk)];
            s.containers[0].volume_mounts = vec![mount("v", "/")];
        }),
        ("sandbox.spec.containers[0].volume_mounts[1].mount_path", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk)];
            s.containers[0].volume_mounts = vec![mount("v", "/v"), mount("v", "/v/")];
        }),
        ("sandbox.spec.containers[0].volume_mounts[0].sub_path", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk)];
            s.containers[0].volume_mounts = vec![pb::VolumeMount {
                sub_path: "a/../..".into(),
                ..mount("v", "/v")
            }];
        }),
        ("sandbox.spec.volumes[0]", |s| {
            s.volumes = vec![pb::SandboxVolume {
                name: "v".into(),
                source: None,
            }]
        }),
        ("sandbox.spec.volumes[0].scratch.size", |s| {
            s.volumes = vec![scratch("v", "50%", pb::StorageMedium::Disk)]
        }),
        ("sandbox.spec.volumes[0].scratch.size", |s| {
            s.volumes = vec![scratch("v", "0Gi", pb::StorageMedium::Disk)]
        }),
        ("sandbox.spec.volumes[0].scratch.size", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Memory)]
        }),
        ("sandbox.spec.volumes[0].name", |s| {
            s.volumes = vec![scratch("sandbox-operator-agent", "", pb::StorageMedium::Disk)]
        }),
        ("sandbox.spec.volumes[1].name", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk), scratch("v", "", pb::StorageMedium::Disk)];
        }),
        ("sandbox.spec.services[0].port", |s| s.services = vec![service(0, "a")]),
        ("sandbox.spec.services[0].port", |s| s.services = vec![service(8971, "a")]),
        ("sandbox.spec.services[0].name", |s| s.services = vec![service(80, "My_Service")]),
        ("sandbox.spec.services[1].name", |s| s.services = vec![service(80, "a"), service(81, "a")]),
        ("sandbox.spec.services[1].port", |s| s.services = vec![service(80, "a"), service(80, "b")]),
        ("sandbox.spec.services[0].visibility", |s| {
            s.services = vec![pb::Service {
                visibility: 77,
                ..service(80, "a")
            }];
        }),
        ("sandbox.spec.network_ids", |s| s.network_ids = vec!["n".into()]),
        ("sandbox.spec.object_storage_access", |s| {
            s.object_storage_access = Some(pb::ObjectStorageAccess::default())
        }),
        ("sandbox.spec.instance_type", |s| s.instance_type = "x".into()),
        ("sandbox.spec.network_config_id", |s| s.network_config_id = "x".into()),
        ("sandbox.spec.runtime_class_selection", |s| s.runtime_class_selection = 1),
        ("sandbox.spec.runtime_class", |s| s.runtime_class = "Not A Name".into()),
        ("sandbox.spec.max_lifetime_seconds", |s| s.max_lifetime_seconds = 2_592_001),
        ("sandbox.spec.max_lifetime_seconds", |s| s.max_lifetime_seconds = -1),
        ("sandbox.spec.annotations[\"sandbox-operator.dev/x\"]", |s| {
            drop(s.annotations.insert("sandbox-operator.dev/x".into(), "y".into()))
        }),
        ("sandbox.spec.annotations[\"not a key\"]", |s| {
            drop(s.annotations.insert("not a key".into(), "y".into()))
        }),
        ("sandbox.spec.tags[0]", |s| s.tags = vec![String::new()]),
        ("sandbox.spec.tags", |s| s.tags = vec!["t".into(); 65]),
        ("sandbox.spec.mode", |s| s.mode = 9),
        ("sandbox.spec.containers", |s| {
            s.containers = (0..18).map(|i| container(&format!("c{i}"))).collect()
        }),
        ("sandbox.spec.annotations", |s| {
            s.annotations = (0..65).map(|i| (format!("a{i}"), String::new())).collect();
        }),
        ("sandbox.spec.annotations", |s| {
            drop(s.annotations.insert("a".into(), "x".repeat(256 << 10)))
        }),
        ("sandbox.spec.runner_ids", |s| s.runner_ids = vec!["default".into(); 101]),
        ("sandbox.spec.containers[0].image", |s| s.containers[0].image = "a b".into()),
        ("sandbox.spec.containers[0].working_dir", |s| s.containers[0].working_dir = "/\0".into()),
        ("sandbox.spec.containers[0].working_dir", |s| {
            s.containers[0].working_dir = format!("/{}", "x".repeat(4096))
        }),
        ("sandbox.spec.containers[0].args", |s| s.containers[0].args = vec!["x".into(); 1025]),
        // What Linux cannot pass to a process. A dollar counts once, though it is escaped in the Sandbox.
        ("sandbox.spec.containers[0].command", |s| s.containers[0].command = "$".repeat(131_072)),
        ("sandbox.spec.containers[0].args[0]", |s| s.containers[0].args[0] = "$".repeat(131_072)),
        ("sandbox.spec.containers[0].environment_variables[\"A\"]", |s| {
            s.containers[0].environment_variables.insert("A".into(), "x".repeat(131_070));
        }),
        ("sandbox.spec.containers[0]", |s| s.containers[0].args = vec!["x".repeat(131_071); 16]),
        ("sandbox.spec.containers[0].environment_variables", |s| {
            s.containers[0].environment_variables = (0..513).map(|i| (format!("V{i}"), String::new())).collect();
        }),
        ("sandbox.spec.containers[0].secret_stores[0].secrets[0].env_var", |s| {
            s.containers[0].secret_stores = vec![pb::SecretStoreReference {
                store_name: "store".into(),
                secrets: vec![pb::SecretMapping {
                    path: "not a name".into(),
                    ..pb::SecretMapping::default()
                }],
            }];
        }),
        ("sandbox.spec.containers[0].files", |s| {
            s.containers[0].files = (0..129).map(|i| file(&format!("/{i}"))).collect();
        }),
        ("sandbox.spec.containers[1].files", |s| {
            let files = (0..65).map(|i| file(&format!("/{i}"))).collect();
            s.containers.push(pb::Container { files, ..container("b") });
        }),
        ("sandbox.spec.containers[0].resources.cpu", |s| {
            s.containers[0].resources = Some(pb::Resources {
                cpu: "much".into(),
                ..pb::Resources::default()
            });
        }),
        ("sandbox.spec.containers[0].resource_requirements.requests.gpu", |s| {
            let gpus = |count: i64| {
                Some(pb::Resources {
                    gpu: Some(pb::Gpu { count, ..pb::Gpu::default() }),
                    ..pb::Resources::default()
                })
            };
            s.containers[0].resource_requirements = Some(pb::ResourceRequirements {
                requests: gpus(1),
                limits: gpus(2),
            });
        }),
        ("sandbox.spec.containers[0].security_context.capabilities_add[0]", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                capabilities_add: vec!["CHOWN".into()],
                capabilities_drop: vec!["ALL".into()],
                ..pb::SecurityContext::default()
            });
        }),
        ("sandbox.spec.containers[0].volume_mounts", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk)];
            s.containers[0].volume_mounts = (0..33).map(|i| mount("v", &format!("/{i}"))).collect();
        }),
        ("sandbox.spec.volumes", |s| {
            s.volumes = (0..33).map(|i| scratch(&format!("v{i}"), "", pb::StorageMedium::Disk)).collect();
        }),
        ("sandbox.spec.volumes[0].name", |s| {
            s.volumes = vec![scratch("V", "", pb::StorageMedium::Disk)]
        }),
        ("sandbox.spec.volumes[0].scratch.medium", |s| {
            s.volumes = vec![scratch("v", "", pb::StorageMedium::Disk)];
            if let Some(pb::sandbox_volume::Source::Scratch(scratch)) = &mut s.volumes[0].source {
                scratch.medium = 9;
            }
        }),
        ("sandbox.spec.services", |s| {
            s.services = (1..34).map(|i| service(i, &format!("s{i}"))).collect()
        }),
        ("sandbox.spec.services[0].protocol", |s| {
            s.services = vec![pb::Service {
                protocol: 9,
                ..service(80, "a")
            }];
        }),
        ("sandbox.spec.services[0].endpoint.auth", |s| {
            s.services = endpoint(pb::EndpointSpec {
                auth: 1,
                ..pb::EndpointSpec::default()
            });
        }),
        ("sandbox.spec.services[0].endpoint.request_timeout_seconds", |s| {
            s.services = endpoint(pb::EndpointSpec {
                request_timeout_seconds: 1,
                ..pb::EndpointSpec::default()
            });
        }),
        ("sandbox.spec.services[0].endpoint.kind", |s| {
            s.services = endpoint(pb::EndpointSpec {
                kind: 9,
                ..pb::EndpointSpec::default()
            });
        }),
        ("sandbox.spec", |s| s.runner_ids = vec!["x".repeat(1000); 50]),
    ];
    assert_refused(cases);
}

#[test]
fn what_this_cluster_does_not_have_is_refused_with_a_reason() {
    let gpu = |selector: pb::gpu::Selector| {
        let resources = pb::Resources {
            gpu: Some(pb::Gpu {
                count: 1,
                selector: Some(selector),
            }),
            ..pb::Resources::default()
        };
        Some(pb::ResourceRequirements {
            requests: None,
            limits: Some(resources),
        })
    };
    let mut with_gpu = with(|_| {});
    with_gpu.containers[0].resource_requirements = gpu(pb::gpu::Selector::Type("B200".into()));
    let mut by_memory = with(|_| {});
    by_memory.containers[0].resource_requirements = gpu(pb::gpu::Selector::MemoryGb(80));
    let mut two = with(|s| s.containers.push(container("b")));
    two.containers[0].resource_requirements = gpu(pb::gpu::Selector::Type("H100".into()));
    two.containers[1].resource_requirements = gpu(pb::gpu::Selector::Type("A10".into()));
    let endpoint = |kind: pb::EndpointKind| {
        with(|s| {
            s.services = vec![pb::Service {
                endpoint: Some(pb::EndpointSpec {
                    kind: kind.into(),
                    ..pb::EndpointSpec::default()
                }),
                ..service(80, "a")
            }];
        })
    };
    let restore = with(|s| {
        s.volumes = vec![pb::SandboxVolume {
            name: "v".into(),
            source: Some(pb::sandbox_volume::Source::Scratch(pb::ScratchVolume {
                restore_from_snapshot_id: "fss".into(),
                ..pb::ScratchVolume::default()
            })),
        }];
    });
    let volume = with(|s| {
        s.volumes = vec![pb::SandboxVolume {
            name: "v".into(),
            source: Some(pb::sandbox_volume::Source::VolumeId("vol-2".into())),
        }];
    });
    let by_name = with(|s| {
        let destination = Some(pb::egress_rule::Destination::HttpsHostname("pypi.org".into()));
        let egress = vec![pb::EgressRule {
            destination,
            ..pb::EgressRule::default()
        }];
        s.network = Some(pb::NetworkOptions {
            egress,
            ..pb::NetworkOptions::default()
        });
    });
    for (spec, code, reason) in [
        (with_gpu, Code::FailedPrecondition, "NO_SUITABLE_RUNNER"),
        (by_memory, Code::FailedPrecondition, "NO_SUITABLE_RUNNER"),
        (two, Code::FailedPrecondition, "NO_SUITABLE_RUNNER"),
        (
            with(|s| s.runner_ids = vec!["other".into()]),
            Code::FailedPrecondition,
            "NO_SUITABLE_RUNNER",
        ),
        (by_name, Code::FailedPrecondition, "NO_SUITABLE_RUNNER"),
        (endpoint(pb::EndpointKind::Https), Code::Unimplemented, "NOT_IMPLEMENTED"),
        (endpoint(pb::EndpointKind::TlsPassthrough), Code::Unimplemented, "NOT_IMPLEMENTED"),
        (restore, Code::Unimplemented, "FSS_NOT_SUPPORTED"),
        (volume, Code::NotFound, "VOLUME_NOT_FOUND"),
    ] {
        let status = draft(spec).err().unwrap();
        assert_eq!(
            (status.code(), status.get_details_error_info().unwrap().reason),
            (code, format!("CWSANDBOX_{reason}"))
        );
        assert!(status.message().starts_with("sandbox.spec."), "{}", status.message());
    }
}

#[test]
fn all_invalid_fields_are_in_one_small_answer() {
    let status = refused(|s| {
        s.tags = vec![String::new()];
        s.instance_type = "x".into();
        s.containers[0].image_pull_credentials = Some(pb::ImagePullCredentials::default());
        // Invalid fields come before refusals.
        s.runner_ids = vec!["other".into()];
    });
    assert_eq!(
        (status.code(), status.get_details_bad_request().unwrap().field_violations.len()),
        (Code::InvalidArgument, 3)
    );
    let status = refused(|s| {
        s.tags = vec!["x".repeat(300); 65];
        s.containers[0].environment_variables = (0..99).map(|i| (format!("bad {i}{}", "😀".repeat(300)), String::new())).collect();
    });
    assert_eq!(
        status.get_details_bad_request().unwrap().field_violations.len(),
        8,
        "only fields of the request"
    );
    assert!(status.message().starts_with("165 fields are invalid"), "{}", status.message());
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 8 << 10, "{bytes}: clients accept 8 KiB");
}

#[test]
fn overrides_of_a_template_are_named_as_such() {
    type Case = (&'static str, fn(&mut pb::PartialSandboxSpec));
    let cases: [Case; 6] = [
        ("overrides.tags[0]", |p| p.tags = vec![String::new()]),
        ("overrides.containers[0].args[0]", |p| {
            p.containers = vec![pb::PartialContainer {
                image: "i".into(),
                command: "sh".into(),
                args: vec!["\0".into()],
                ..pb::PartialContainer::default()
            }];
        }),
        ("overrides.containers[0].image", |p| {
            p.containers = vec![pb::PartialContainer {
                command: "sh".into(),
                ..pb::PartialContainer::default()
            }];
        }),
        ("overrides.services[0].port", |p| p.services = vec![service(0, "a")]),
        ("overrides.network.deny_egress", |p| {
            p.network = Some(pb::NetworkOptions {
                deny_egress: Some(true),
                egress: vec![pb::EgressRule {
                    destination: Some(pb::egress_rule::Destination::Any(true)),
                    ..pb::EgressRule::default()
                }],
                ..pb::NetworkOptions::default()
            });
        }),
        ("overrides.volumes", |p| p.volumes = vec![scratch("other", "", pb::StorageMedium::Disk)]),
    ];
    for (field, change) in cases {
        let mut partial = pb::PartialSandboxSpec::default();
        change(&mut partial);
        let status = draft_from(Some(&template()), into_spec(partial)).err().unwrap();
        assert!(status.message().starts_with(&format!("{field}: ")), "{field}: {}", status.message());
    }
}

#[test]
fn a_template_that_the_operator_would_refuse_is_refused() {
    let cases = [
        (
            serde_json::json!({"network": {"egress": {"mode": "Rules", "rules": [{"internet": true}, {"cidr": "169.254.169.254/32"}]}}}),
            "spec.network.egress.rules[1].cidr: must contain an address that a sandbox can reach",
        ),
        (
            serde_json::json!({"network": {"ingress": {"rules": [{"cidr": "0.0.0.0/0", "ports": [{"port": 8971}]}]}}}),
            "spec.network.ingress.rules[0].ports: must have a port other than 8971",
        ),
        (
            serde_json::json!({"ports": [{"name": "a", "port": 8971}]}),
            "spec.ports[0].port: must be a port other than 8971",
        ),
        (
            serde_json::json!({"files": [{"path": "/a", "contentBase64": "x"}]}),
            "spec.files[0].contentBase64: ",
        ),
    ];
    for (template, expected) in cases {
        let template = serde_json::from_value(template).unwrap();
        let status = draft_from(Some(&template), pb::SandboxSpec::default()).err().unwrap();
        let expected = format!("template_id: must name a template that a sandbox can use; its {expected}");
        assert!(status.message().starts_with(&expected), "{}", status.message());
    }
}

#[test]
fn every_refusal_of_the_conversion_names_a_field_of_the_request() {
    an_invalid_field_is_named();
    what_this_cluster_does_not_have_is_refused_with_a_reason();
    overrides_of_a_template_are_named_as_such();
    a_template_that_the_operator_would_refuse_is_refused();
    network::tests::refusals::an_invalid_field_is_named();
    secrets::tests::missing_secrets_are_named_and_values_are_not();
    secrets::tests::copies_must_fit_into_a_secret();
    assert_all_refused(Path::new("src/gateway/convert"));
}
