//! Requests, and what they are converted to.
#![allow(clippy::unwrap_used)]

mod constraints;
mod descriptors;
pub(crate) mod refusals;
mod round_trip;
mod shapes;
mod templates;

use kube::ResourceExt;
use std::collections::BTreeMap;
use tonic::Status;

use super::context::ConvertContext;
use super::draft::Draft;
use super::problems::Problems;
use super::volumes::RegisteredVolume;
use super::{from_proto, to_proto};
use crate::api::{ANNOTATION_MAIN_NAME, ANNOTATION_REQUEST_METADATA, Sandbox, SandboxSpec, Workload};
use crate::gateway::config::Config;
use crate::gateway::convert::runners::RunnerSet;
use crate::proto::sandbox as pb;

pub(crate) const NAME: &str = "sbx-0123";

/// A cluster with two types of GPU, where annotations may have one prefix.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    let labels = |v: &str| BTreeMap::from([("gpu".to_owned(), v.to_owned())]);
    config.gpus.types = BTreeMap::from([("H100".into(), labels("h100")), ("A10".into(), labels("a10"))]);
    config.gpus.memory_gb = BTreeMap::from([(24, labels("24"))]);
    config.constraints.pod_annotation_keys.push("example.com/*".into());
    config
}

/// Two registered volumes.
fn volumes() -> BTreeMap<String, RegisteredVolume> {
    let volume = |claim: &str, read_only, sub_path: &str| RegisteredVolume {
        claim: claim.into(),
        read_only,
        sub_path: sub_path.into(),
    };
    let (whole, part) = (volume("claim-1", false, ""), volume("claim-2", true, "team/a"));
    BTreeMap::from([("vol-1".into(), whole), ("part".into(), part)])
}

/// The smallest spec that the SDK sends.
pub(crate) fn minimum() -> pb::SandboxSpec {
    pb::SandboxSpec {
        containers: vec![container("main")],
        ..pb::SandboxSpec::default()
    }
}

pub(crate) fn container(name: &str) -> pb::Container {
    pb::Container {
        name: name.into(),
        image: "python:3.11".into(),
        command: "/bin/sh".into(),
        args: ["-c", "trap \"exit 0\" TERM INT; sleep infinity & wait"]
            .map(Into::into)
            .to_vec(),
        ..pb::Container::default()
    }
}

/// The smallest spec with a change.
pub(crate) fn with(change: impl FnOnce(&mut pb::SandboxSpec)) -> pb::SandboxSpec {
    let mut spec = minimum();
    change(&mut spec);
    spec
}

pub(crate) fn draft_from(template: Option<&Workload>, spec: pb::SandboxSpec) -> Result<Draft, Status> {
    draft_on(&config(), template, spec)
}

/// A cluster with this configuration.
fn draft_on(config: &Config, template: Option<&Workload>, spec: pb::SandboxSpec) -> Result<Draft, Status> {
    let volumes = volumes();
    let context = ConvertContext {
        config,
        runners: &RunnerSet::new(config),
        volumes: &volumes,
        template,
    };
    from_proto::draft(NAME, spec, &context, Problems::default())
}

pub(crate) fn draft(spec: pb::SandboxSpec) -> Result<Draft, Status> {
    draft_from(None, spec)
}

pub(crate) fn workload(spec: pb::SandboxSpec) -> Workload {
    draft(spec).unwrap().workload
}

/// The Sandbox of a draft, as the API server returns it.
pub(crate) fn sandbox_of(spec: pb::SandboxSpec) -> Sandbox {
    let draft = draft(spec).unwrap();
    let spec = SandboxSpec {
        workload: draft.workload,
        ..SandboxSpec::default()
    };
    let mut sandbox = Sandbox::new(&draft.name, spec);
    sandbox.metadata.namespace = Some("tenant".into());
    sandbox.metadata.uid = Some("01234567-89ab-cdef-0123-456789abcdef".into());
    let annotations = [
        (ANNOTATION_REQUEST_METADATA, draft.metadata.annotation()),
        (ANNOTATION_MAIN_NAME, draft.main_name),
    ];
    let annotations = annotations
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    sandbox.annotations_mut().extend(annotations);
    serde_json::from_value(serde_json::to_value(&sandbox).unwrap()).unwrap()
}

/// The message that the SDK gets.
pub(crate) fn message_of(sandbox: &Sandbox) -> pb::Sandbox {
    let config = config();
    to_proto::sandbox(sandbox, &config, RunnerSet::new(&config).all().first())
}
