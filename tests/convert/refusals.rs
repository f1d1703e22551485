//! What is not honoured is refused by name, all of it at once.

use crate::support::{Change, assert_refused, container, draft, refused, with};
use sandbox_operator::gateway::convert::files::MAX_SECRET_BYTES;
use sandbox_operator::proto::sandbox as pb;
use tonic::Code;
use tonic_types::StatusExt;

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

#[test]
fn a_field_that_is_wrong_is_named() {
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
        ("sandbox.spec.containers[0].environment_variables", |s| {
            s.containers[0].environment_variables.insert("NOT A NAME".into(), "x".into());
        }),
        ("sandbox.spec.containers[0].environment_variables", |s| {
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
        ("sandbox.spec.containers[].files", |s| {
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
        ("sandbox.spec.containers[].volume_mounts[].volume", |s| {
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
        ("sandbox.spec.services[1]", |s| s.services = vec![service(80, "a"), service(81, "a")]),
        ("sandbox.spec.services[1]", |s| s.services = vec![service(80, "a"), service(80, "b")]),
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
        ("sandbox.spec.annotations", |s| {
            drop(s.annotations.insert("sandbox-operator.dev/x".into(), "y".into()))
        }),
        ("sandbox.spec.annotations", |s| drop(s.annotations.insert("not a key".into(), "y".into()))),
        ("sandbox.spec.tags[0]", |s| s.tags = vec![String::new()]),
        ("sandbox.spec.tags", |s| s.tags = vec!["t".into(); 65]),
        ("sandbox.spec.mode", |s| s.mode = 9),
        ("sandbox.spec.containers", |s| {
            s.containers = (0..18).map(|i| container(&format!("c{i}"))).collect()
        }),
        ("sandbox.spec", |s| s.runner_ids = vec!["x".repeat(1000); 50]),
    ];
    assert_refused(cases);
}

#[test]
fn what_this_cluster_does_not_have_has_its_own_reason() {
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
fn all_that_is_wrong_is_said_at_once_and_the_answer_stays_small() {
    let status = refused(|s| {
        s.tags = vec![String::new()];
        s.instance_type = "x".into();
        s.containers[0].image_pull_credentials = Some(pb::ImagePullCredentials::default());
        // A refusal waits until the fields are right.
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
    assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 9);
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 8 << 10, "{bytes}: clients take no more");
}
