//! Hundreds of requests, put together at random: what is told of a sandbox is what was asked for.

use crate::support::{config, draft, echoed, sandbox_of};
use sandbox_operator::proto::sandbox as pb;

/// A generator with a seed, so that a failure can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn maybe(&mut self) -> bool {
        self.below(2) == 0
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()].clone()
    }

    fn some<T>(&mut self, most: u64, mut make: impl FnMut(&mut Dice, usize) -> T) -> Vec<T> {
        let n = usize::try_from(self.below(most + 1)).unwrap();
        (0..n).map(|i| make(self, i)).collect()
    }
}

const TEXTS: [&str; 6] = ["", "$HOME", "$$(X)", "ünïcode \n \"quotes\"", "-c", "a b"];

fn resources(dice: &mut Dice, gpu: Option<pb::Gpu>) -> pb::Resources {
    pb::Resources {
        cpu: dice.one_of(&["500m", "1", "1.5"]).into(),
        memory: dice.one_of(&["1Gi", "256Mi"]).into(),
        gpu,
    }
}

fn random_container(dice: &mut Dice, i: usize, volumes: &[pb::SandboxVolume]) -> pb::Container {
    let gpu = dice.maybe().then(|| pb::Gpu {
        count: 1,
        selector: Some(pb::gpu::Selector::Type("H100".into())),
    });
    let same = resources(dice, gpu);
    let mounts = if volumes.is_empty() {
        vec![]
    } else {
        dice.some(3, |dice, j| pb::VolumeMount {
            volume: dice.one_of(volumes).name,
            mount_path: format!("/mnt/{j}"),
            read_only: dice.maybe(),
            sub_path: dice.one_of(&["", "a/b"]).into(),
        })
    };
    let has_command = dice.maybe();
    pb::Container {
        name: format!("c{i}"),
        image: dice.one_of(&["python:3.11", "ghcr.io/a/b@sha256:0"]).into(),
        command: if has_command {
            dice.one_of(&["/bin/sh", "$X"]).into()
        } else {
            String::new()
        },
        args: dice.some(4, |dice, _| dice.one_of(&TEXTS).into()),
        environment_variables: dice
            .some(4, |dice, j| (format!("V{j}"), dice.one_of(&TEXTS).into()))
            .into_iter()
            .collect(),
        resources: None,
        files: dice.some(3, |_, j| pb::FileMount {
            path: if has_command && j == 0 {
                "relative.py".into()
            } else {
                format!("/files/{j}")
            },
            content: bytes::Bytes::new(),
        }),
        volume_mounts: mounts,
        secret_stores: dice.some(1, |dice, _| pb::SecretStoreReference {
            store_name: "store".into(),
            secrets: vec![
                pb::SecretMapping {
                    path: "TOKEN".into(),
                    field: String::new(),
                    env_var: "S1".into(),
                },
                pb::SecretMapping {
                    path: "login".into(),
                    field: dice.one_of(&["", "password"]).into(),
                    env_var: "S2".into(),
                },
            ],
        }),
        working_dir: String::new(),
        resource_requirements: dice.maybe().then(|| pb::ResourceRequirements {
            requests: Some(same.clone()),
            limits: Some(same),
        }),
        security_context: dice.maybe().then(|| pb::SecurityContext {
            run_as_user: Some(1000),
            run_as_group: dice.maybe().then_some(0),
            read_only_root_filesystem: dice.maybe().then_some(false),
            capabilities_drop: if dice.maybe() { vec!["ALL".into()] } else { vec![] },
            ..pb::SecurityContext::default()
        }),
        image_pull_credentials: dice.maybe().then(|| pb::ImagePullCredentials {
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

fn random_volume(dice: &mut Dice, i: usize) -> pb::SandboxVolume {
    let scratch = pb::ScratchVolume {
        size: "1Gi".into(),
        medium: dice.one_of(&[0, 1, 2]),
        restore_from_snapshot_id: String::new(),
    };
    pb::SandboxVolume {
        name: format!("v{i}"),
        source: Some(if dice.maybe() {
            pb::sandbox_volume::Source::Scratch(scratch)
        } else {
            pb::sandbox_volume::Source::VolumeId("vol-1".into())
        }),
    }
}

fn random_network(dice: &mut Dice) -> pb::NetworkOptions {
    let ports = |dice: &mut Dice| {
        vec![pb::PortRange {
            protocol: dice.one_of(&["", "TCP", "UDP"]).into(),
            port: 80,
            end_port: dice.one_of(&[0, 90]),
        }]
    };
    let block = || pb::CidrBlock {
        cidr: "203.0.113.0/24".into(),
        except: vec!["203.0.113.0/30".into()],
    };
    let org = pb::TenantScope::SameOrg.into();
    pb::NetworkOptions {
        ingress: dice.some(3, |dice, _| pb::IngressRule {
            source: Some(dice.one_of(&[
                pb::ingress_rule::Source::Any(true),
                pb::ingress_rule::Source::Tenant(org),
                pb::ingress_rule::Source::Cidr(block()),
            ])),
            ports: ports(dice),
        }),
        egress: dice.some(3, |dice, _| pb::EgressRule {
            destination: Some(dice.one_of(&[
                pb::egress_rule::Destination::Any(true),
                pb::egress_rule::Destination::Tenant(org),
                pb::egress_rule::Destination::Cidr(block()),
            ])),
            ports: if dice.maybe() { ports(dice) } else { vec![] },
            https_hostname_except: vec![],
        }),
        deny_egress: None,
        deny_ingress: None,
        dns_egress: dice.one_of(&[0, 1, 2]),
    }
}

fn random_spec(dice: &mut Dice) -> pb::SandboxSpec {
    let volumes = dice.some(3, random_volume);
    let first = random_container(dice, 0, &volumes);
    let mut containers = vec![first];
    containers.extend(dice.some(2, |dice, i| random_container(dice, i + 1, &volumes)));
    if containers.len() > 1 {
        containers[0].primary = Some(true);
    }
    pb::SandboxSpec {
        containers,
        volumes,
        services: dice.some(4, |dice, i| pb::Service {
            port: 8000 + i32::try_from(i).unwrap(),
            name: format!("s{i}"),
            protocol: dice.one_of(&[0, 1, 2, 3]),
            visibility: dice.one_of(&[0, 1, 2, 3]),
            endpoint: None,
        }),
        max_lifetime_seconds: dice.one_of(&[1, 600, 2_592_000]),
        tags: dice.some(3, |dice, _| dice.one_of(&["a", "b"]).into()),
        runner_ids: dice.some(1, |_, _| config().runner_id),
        network: Some(random_network(dice)).filter(|n| *n != pb::NetworkOptions::default()),
        annotations: dice
            .some(2, |dice, i| (format!("example.com/k{i}"), dice.one_of(&TEXTS).into()))
            .into_iter()
            .collect(),
        mode: dice.one_of(&[0, 1, 2]),
        runtime_class: dice.one_of(&["", "gvisor"]).into(),
        ..pb::SandboxSpec::default()
    }
}

#[test]
fn what_is_told_is_what_was_asked_for() {
    for seed in 0..500 {
        let mut asked = random_spec(&mut Dice(seed));
        let first = sandbox_of(asked.clone());
        let told = echoed(&first).spec.unwrap();
        for container in &mut asked.containers {
            if container.security_context == Some(pb::SecurityContext::default()) {
                container.security_context = None;
            }
        }
        assert_eq!(told, asked, "seed {seed}");
        // And asking for what was told makes the same sandbox.
        assert_eq!(sandbox_of(told).spec, first.spec, "seed {seed}");
    }
}

#[test]
fn no_request_of_any_kind_panics() {
    use prost::Message;
    for seed in 0..500 {
        let mut dice = Dice(seed);
        let mut bytes = random_spec(&mut dice).encode_to_vec();
        for _ in 0..dice.below(6) {
            let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
            bytes[at] = u8::try_from(dice.below(256)).unwrap();
        }
        if let Ok(spec) = pb::SandboxSpec::decode(bytes.as_slice())
            && let Ok(draft) = draft(spec)
        {
            assert!(draft.workload.lifecycle.max_lifetime_seconds.is_some());
        }
    }
}
