//! Hundreds of random requests: the spec in the response is the spec of the request.

use super::{config, draft, message_of, sandbox_of};
use crate::proto::sandbox as pb;

/// A random generator with a seed, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()].clone()
    }

    fn list<T>(&mut self, most: u64, mut make: impl FnMut(&mut Random, usize) -> T) -> Vec<T> {
        let n = usize::try_from(self.below(most + 1)).unwrap();
        (0..n).map(|i| make(self, i)).collect()
    }
}

const TEXTS: [&str; 6] = ["", "$HOME", "$$(X)", "ünïcode \n \"quotes\"", "-c", "a b"];

fn resources(random: &mut Random, gpu: Option<pb::Gpu>) -> pb::Resources {
    pb::Resources {
        cpu: random.one_of(&["500m", "1", "1.5"]).into(),
        memory: random.one_of(&["1Gi", "256Mi"]).into(),
        gpu,
    }
}

fn any_container(random: &mut Random, i: usize, volumes: &[pb::SandboxVolume]) -> pb::Container {
    let gpu = random.flip().then(|| pb::Gpu {
        count: 1,
        selector: Some(pb::gpu::Selector::Type("H100".into())),
    });
    let same = resources(random, gpu);
    let mounts = if volumes.is_empty() {
        vec![]
    } else {
        random.list(3, |random, j| pb::VolumeMount {
            volume: random.one_of(volumes).name,
            mount_path: format!("/mnt/{j}"),
            read_only: random.flip(),
            sub_path: random.one_of(&["", "a/b"]).into(),
        })
    };
    let has_command = random.flip();
    pb::Container {
        name: format!("c{i}"),
        image: random.one_of(&["python:3.11", "ghcr.io/a/b@sha256:0"]).into(),
        command: if has_command {
            random.one_of(&["/bin/sh", "$X"]).into()
        } else {
            String::new()
        },
        args: random.list(4, |random, _| random.one_of(&TEXTS).into()),
        environment_variables: random
            .list(4, |random, j| (format!("V{j}"), random.one_of(&TEXTS).into()))
            .into_iter()
            .collect(),
        resources: None,
        files: random.list(3, |_, j| pb::FileMount {
            path: if has_command && j == 0 {
                "relative.py".into()
            } else {
                format!("/files/{j}")
            },
            content: bytes::Bytes::new(),
        }),
        volume_mounts: mounts,
        secret_stores: random.list(1, |random, _| pb::SecretStoreReference {
            store_name: "store".into(),
            secrets: vec![
                pb::SecretMapping {
                    path: "TOKEN".into(),
                    field: String::new(),
                    env_var: "S1".into(),
                },
                pb::SecretMapping {
                    path: "login".into(),
                    field: random.one_of(&["", "password"]).into(),
                    env_var: "S2".into(),
                },
            ],
        }),
        working_dir: String::new(),
        resource_requirements: random.flip().then(|| pb::ResourceRequirements {
            requests: Some(same.clone()),
            limits: Some(same),
        }),
        security_context: random.flip().then(|| pb::SecurityContext {
            run_as_user: Some(1000),
            run_as_group: random.flip().then_some(0),
            read_only_root_filesystem: random.flip().then_some(false),
            capabilities_drop: if random.flip() { vec!["ALL".into()] } else { vec![] },
            ..pb::SecurityContext::default()
        }),
        image_pull_credentials: random.flip().then(|| pb::ImagePullCredentials {
            registry: "ghcr.io".into(),
            credentials: Some(pb::SecretSource {
                store_name: "store".into(),
                path: "login".into(),
                field: String::new(),
            }),
        }),
        primary: None,
        startup_probe: None,
    }
}

fn any_volume(random: &mut Random, i: usize) -> pb::SandboxVolume {
    let scratch = pb::ScratchVolume {
        size: "1Gi".into(),
        medium: random.one_of(&[0, 1, 2]),
        restore_from_snapshot_id: String::new(),
    };
    pb::SandboxVolume {
        name: format!("v{i}"),
        source: Some(if random.flip() {
            pb::sandbox_volume::Source::Scratch(scratch)
        } else {
            pb::sandbox_volume::Source::VolumeId("vol-1".into())
        }),
    }
}

fn any_network(random: &mut Random) -> pb::NetworkOptions {
    let ports = |random: &mut Random| {
        vec![pb::PortRange {
            protocol: random.one_of(&["", "TCP", "UDP"]).into(),
            port: 80,
            end_port: random.one_of(&[0, 90]),
        }]
    };
    let block = || pb::CidrBlock {
        cidr: "203.0.113.0/24".into(),
        except: vec!["203.0.113.0/30".into()],
    };
    let org = pb::TenantScope::SameOrg.into();
    pb::NetworkOptions {
        ingress: random.list(3, |random, _| pb::IngressRule {
            source: Some(random.one_of(&[
                pb::ingress_rule::Source::Any(true),
                pb::ingress_rule::Source::Tenant(org),
                pb::ingress_rule::Source::Cidr(block()),
            ])),
            ports: ports(random),
        }),
        egress: random.list(3, |random, _| pb::EgressRule {
            destination: Some(random.one_of(&[
                pb::egress_rule::Destination::Any(true),
                pb::egress_rule::Destination::Tenant(org),
                pb::egress_rule::Destination::Cidr(block()),
            ])),
            ports: if random.flip() { ports(random) } else { vec![] },
            https_hostname_except: vec![],
        }),
        deny_egress: None,
        deny_ingress: None,
        dns_egress: random.one_of(&[0, 1, 2]),
    }
}

fn any_spec(random: &mut Random) -> pb::SandboxSpec {
    let volumes = random.list(3, any_volume);
    let first = any_container(random, 0, &volumes);
    let mut containers = vec![first];
    containers.extend(random.list(2, |random, i| any_container(random, i + 1, &volumes)));
    if containers.len() > 1 {
        containers[0].primary = Some(true);
    }
    pb::SandboxSpec {
        containers,
        volumes,
        services: random.list(4, |random, i| pb::Service {
            port: 8000 + i32::try_from(i).unwrap(),
            name: format!("s{i}"),
            protocol: random.one_of(&[0, 1, 2, 3]),
            visibility: random.one_of(&[0, 1, 2, 3]),
            endpoint: None,
        }),
        max_lifetime_seconds: random.one_of(&[1, 600, 2_592_000]),
        tags: random.list(3, |random, _| random.one_of(&["a", "b"]).into()),
        runner_ids: random.list(1, |_, _| config().runner_id),
        network: Some(any_network(random)).filter(|n| *n != pb::NetworkOptions::default()),
        annotations: random
            .list(2, |random, i| {
                (format!("example.com/k{i}"), random.one_of(&TEXTS).into())
            })
            .into_iter()
            .collect(),
        mode: random.one_of(&[0, 1, 2]),
        runtime_class: random.one_of(&["", "gvisor"]).into(),
        ..pb::SandboxSpec::default()
    }
}

#[test]
fn the_spec_of_a_response_is_that_of_the_request() {
    for seed in 0..500 {
        let mut requested = any_spec(&mut Random(seed));
        let first = sandbox_of(requested.clone());
        let returned = message_of(&first).spec.unwrap();
        for container in &mut requested.containers {
            if container.security_context == Some(pb::SecurityContext::default()) {
                container.security_context = None;
            }
        }
        assert_eq!(returned, requested, "seed {seed}");
        // And a request for what was returned creates the same sandbox.
        assert_eq!(sandbox_of(returned).spec, first.spec, "seed {seed}");
    }
}

#[test]
fn no_request_panics() {
    use prost::Message;
    for seed in 0..500 {
        let mut random = Random(seed);
        let mut bytes = any_spec(&mut random).encode_to_vec();
        for _ in 0..random.below(6) {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        if let Ok(spec) = pb::SandboxSpec::decode(bytes.as_slice())
            && let Ok(draft) = draft(spec)
        {
            assert!(draft.workload.lifecycle.max_lifetime_seconds.is_some());
        }
    }
}
