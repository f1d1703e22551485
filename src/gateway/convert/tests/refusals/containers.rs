//! Invalid fields of containers.

use super::{Change, assert_refused, cpu, file, mount, scratch, security};
use crate::gateway::convert::files::MAX_SECRET_BYTES;
use crate::gateway::convert::tests::container;
use crate::proto::sandbox as pb;

#[test]
pub(super) fn an_invalid_field_is_named() {
    let cases: &[(&str, Change)] = &[
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
        ("sandbox.spec.containers[1].name", |s| {
            s.containers.push(container("main"))
        }),
        ("sandbox.spec.containers[1].name", |s| {
            s.containers.push(container("Upper"))
        }),
        ("sandbox.spec.containers[1].name", |s| {
            s.containers.push(container("sandbox-operator-agent"))
        }),
        ("sandbox.spec.containers[1].primary", |s| {
            s.containers.push(container("b"));
            s.containers.iter_mut().for_each(|c| c.primary = Some(true));
        }),
        ("sandbox.spec.containers[0].working_dir", |s| {
            s.containers[0].working_dir = "work".into()
        }),
        ("sandbox.spec.containers[0].command", |s| {
            s.containers[0].command = "a\0b".into()
        }),
        ("sandbox.spec.containers[0].args[1]", |s| {
            s.containers[0].args[1] = "\0".into()
        }),
        (
            "sandbox.spec.containers[0].environment_variables[\"NOT A NAME\"]",
            |s| {
                s.containers[0]
                    .environment_variables
                    .insert("NOT A NAME".into(), "x".into());
            },
        ),
        (
            "sandbox.spec.containers[0].environment_variables[\"CW_SANDBOX_ID\"]",
            |s| {
                s.containers[0]
                    .environment_variables
                    .insert("CW_SANDBOX_ID".into(), "x".into());
            },
        ),
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
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].files = vec![file("a/")]
        }),
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].files = vec![file("")]
        }),
        ("sandbox.spec.containers[0].files[0].path", |s| {
            s.containers[0].files = vec![file("/a:b")]
        }),
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
        (
            "sandbox.spec.containers[0].resource_requirements.limits.gpu.count",
            |s| {
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
            },
        ),
        ("sandbox.spec.containers[0].security_context.privileged", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                privileged: Some(true),
                ..pb::SecurityContext::default()
            });
        }),
        (
            "sandbox.spec.containers[0].security_context.allow_privilege_escalation",
            |s| {
                s.containers[0].security_context = security(pb::SecurityContext {
                    allow_privilege_escalation: Some(true),
                    ..pb::SecurityContext::default()
                });
            },
        ),
        ("sandbox.spec.containers[0].security_context.capabilities_add[0]", |s| {
            s.containers[0].security_context = security(pb::SecurityContext {
                capabilities_add: vec!["SYS_ADMIN".into()],
                ..pb::SecurityContext::default()
            });
        }),
        (
            "sandbox.spec.containers[0].security_context.capabilities_drop[0]",
            |s| {
                s.containers[0].security_context = security(pb::SecurityContext {
                    capabilities_drop: vec!["CAP_CHOWN".into()],
                    ..pb::SecurityContext::default()
                });
            },
        ),
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
        ("sandbox.spec.containers[0].image", |s| {
            s.containers[0].image = "a b".into()
        }),
        ("sandbox.spec.containers[0].working_dir", |s| {
            s.containers[0].working_dir = "/\0".into()
        }),
        ("sandbox.spec.containers[0].working_dir", |s| {
            s.containers[0].working_dir = format!("/{}", "x".repeat(4096))
        }),
        ("sandbox.spec.containers[0].args", |s| {
            s.containers[0].args = vec!["x".into(); 1025]
        }),
        // What Linux cannot pass to a process. A dollar counts once, though it is escaped in the Sandbox.
        ("sandbox.spec.containers[0].command", |s| {
            s.containers[0].command = "$".repeat(131_072)
        }),
        ("sandbox.spec.containers[0].args[0]", |s| {
            s.containers[0].args[0] = "$".repeat(131_072)
        }),
        ("sandbox.spec.containers[0].environment_variables[\"A\"]", |s| {
            s.containers[0]
                .environment_variables
                .insert("A".into(), "x".repeat(131_070));
        }),
        ("sandbox.spec.containers[0]", |s| {
            s.containers[0].args = vec!["x".repeat(131_071); 16]
        }),
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
            s.containers.push(pb::Container {
                files,
                ..container("b")
            });
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
                    gpu: Some(pb::Gpu {
                        count,
                        ..pb::Gpu::default()
                    }),
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
    ];
    assert_refused(cases);
}
