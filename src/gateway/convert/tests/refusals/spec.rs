//! Invalid fields outside the containers, and what a cluster cannot provide.

use tonic::Code;
use tonic_types::StatusExt;

use super::{Change, assert_refused, endpoint, file, refused, scratch, service};
use crate::gateway::convert::files::MAX_SECRET_BYTES;
use crate::gateway::convert::overrides::into_spec;
use crate::gateway::convert::tests::templates::template;
use crate::gateway::convert::tests::{container, draft, draft_from, with};
use crate::proto::sandbox as pb;

#[test]
pub(super) fn an_invalid_field_is_named() {
    let cases: &[(&str, Change)] = &[
        ("sandbox.spec.containers", |s| s.containers.clear()),
        ("sandbox.spec.containers", |s| {
            let big = |i: usize| pb::FileMount {
                content: vec![0; MAX_SECRET_BYTES].into(),
                ..file(&format!("/{i}"))
            };
            s.containers[0].files = (0..10).map(big).collect();
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
            s.volumes = vec![
                scratch("v", "", pb::StorageMedium::Disk),
                scratch("v", "", pb::StorageMedium::Disk),
            ];
        }),
        ("sandbox.spec.services[0].port", |s| s.services = vec![service(0, "a")]),
        ("sandbox.spec.services[0].port", |s| {
            s.services = vec![service(8971, "a")]
        }),
        ("sandbox.spec.services[0].name", |s| {
            s.services = vec![service(80, "My_Service")]
        }),
        ("sandbox.spec.services[1].name", |s| {
            s.services = vec![service(80, "a"), service(81, "a")]
        }),
        ("sandbox.spec.services[1].port", |s| {
            s.services = vec![service(80, "a"), service(80, "b")]
        }),
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
        ("sandbox.spec.runtime_class_selection", |s| {
            s.runtime_class_selection = 1
        }),
        ("sandbox.spec.runtime_class", |s| s.runtime_class = "Not A Name".into()),
        ("sandbox.spec.max_lifetime_seconds", |s| {
            s.max_lifetime_seconds = 2_592_001
        }),
        ("sandbox.spec.max_lifetime_seconds", |s| s.max_lifetime_seconds = -1),
        ("sandbox.spec.annotations[\"sandbox-operator.dev/x\"]", |s| {
            drop(s.annotations.insert("sandbox-operator.dev/x".into(), "y".into()))
        }),
        ("sandbox.spec.annotations[\"not a key\"]", |s| {
            drop(s.annotations.insert("not a key".into(), "y".into()))
        }),
        ("sandbox.spec.tags[0]", |s| s.tags = vec![String::new()]),
        ("sandbox.spec.tags", |s| s.tags = vec!["t".into(); 65]),
        ("sandbox.spec.tags", |s| s.tags = vec!["t".repeat(256); 9]),
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
        ("sandbox.spec.runner_ids", |s| {
            s.runner_ids = vec!["default".into(); 101]
        }),
        ("sandbox.spec.volumes", |s| {
            s.volumes = (0..33)
                .map(|i| scratch(&format!("v{i}"), "", pb::StorageMedium::Disk))
                .collect();
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
pub(super) fn what_this_cluster_does_not_have_is_refused_with_a_reason() {
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
    let endpoint = |kind: pb::EndpointKind, auth: pb::EndpointAuth| {
        with(|s| {
            s.services = vec![pb::Service {
                endpoint: Some(pb::EndpointSpec {
                    kind: kind.into(),
                    auth: auth.into(),
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
        (
            endpoint(pb::EndpointKind::Https, pb::EndpointAuth::Open),
            Code::Unimplemented,
            "NOT_IMPLEMENTED",
        ),
        (
            endpoint(pb::EndpointKind::Https, pb::EndpointAuth::ShareToken),
            Code::Unimplemented,
            "HTTPS_SHARE_TOKEN_NOT_SUPPORTED",
        ),
        (
            endpoint(pb::EndpointKind::TlsPassthrough, pb::EndpointAuth::Unspecified),
            Code::Unimplemented,
            "TLS_PASSTHROUGH_ENDPOINTS_NOT_SUPPORTED",
        ),
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
pub(super) fn all_invalid_fields_are_in_one_small_answer() {
    let status = refused(|s| {
        s.tags = vec![String::new()];
        s.instance_type = "x".into();
        s.containers[0].image_pull_credentials = Some(pb::ImagePullCredentials::default());
        // Invalid fields come before refusals.
        s.runner_ids = vec!["other".into()];
    });
    assert_eq!(
        (
            status.code(),
            status.get_details_bad_request().unwrap().field_violations.len()
        ),
        (Code::InvalidArgument, 3)
    );
    let status = refused(|s| {
        s.tags = vec!["x".repeat(300); 65];
        s.containers[0].environment_variables = (0..99)
            .map(|i| (format!("bad {i}{}", "😀".repeat(300)), String::new()))
            .collect();
    });
    assert_eq!(
        status.get_details_bad_request().unwrap().field_violations.len(),
        8,
        "only fields of the request"
    );
    assert!(
        status.message().starts_with("166 fields are invalid"),
        "{}",
        status.message()
    );
    let mut headers = http::HeaderMap::new();
    status.add_header(&mut headers).unwrap();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum();
    assert!(bytes < 8 << 10, "{bytes}: clients accept 8 KiB");
}

#[test]
pub(super) fn overrides_of_a_template_are_named_as_such() {
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
        ("overrides.volumes", |p| {
            p.volumes = vec![scratch("other", "", pb::StorageMedium::Disk)]
        }),
    ];
    for (field, change) in cases {
        let mut partial = pb::PartialSandboxSpec::default();
        change(&mut partial);
        let status = draft_from(Some(&template()), into_spec(partial)).err().unwrap();
        assert!(
            status.message().starts_with(&format!("{field}: ")),
            "{field}: {}",
            status.message()
        );
    }
}

#[test]
pub(super) fn a_template_that_the_operator_would_refuse_is_refused() {
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
