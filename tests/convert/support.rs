//! Requests, and their way to a Sandbox.

use k8s_openapi::ByteString;
use sandbox_operator::api::{Sandbox, Workload};
use sandbox_operator::gateway::config::Config;
use sandbox_operator::gateway::convert::problems::Problems;
use sandbox_operator::gateway::convert::request::{self, Draft, Known};
use sandbox_operator::gateway::convert::volumes::Registered;
use sandbox_operator::gateway::convert::{echo, secrets};
use sandbox_operator::gateway::create::objects;
use sandbox_operator::gateway::create::order::Order;
use sandbox_operator::gateway::identity::Caller;
use sandbox_operator::gateway::runners::Runners;
use sandbox_operator::proto::sandbox as pb;
use std::collections::BTreeMap;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub const NAME: &str = "sbx-0123";

/// A cluster with one type of GPU and one registered volume.
pub fn config() -> Config {
    let mut config = Config::default();
    let labels = |v: &str| BTreeMap::from([("gpu".to_owned(), v.to_owned())]);
    config.gpus.types = BTreeMap::from([("H100".into(), labels("h100")), ("A10".into(), labels("a10"))]);
    config.gpus.memory_gb = BTreeMap::from([(24, labels("24"))]);
    config
}

pub fn claims() -> BTreeMap<String, Registered> {
    let of = |claim: &str, read_only, sub_path: &str| Registered {
        claim: claim.into(),
        read_only,
        sub_path: sub_path.into(),
    };
    BTreeMap::from([("vol-1".into(), of("claim-1", false, "")), ("part".into(), of("claim-2", true, "team/a"))])
}

/// The least that the SDK sends.
pub fn minimum() -> pb::SandboxSpec {
    pb::SandboxSpec {
        containers: vec![container("main")],
        ..pb::SandboxSpec::default()
    }
}

pub fn container(name: &str) -> pb::Container {
    pb::Container {
        name: name.into(),
        image: "python:3.11".into(),
        command: "/bin/sh".into(),
        args: ["-c", "trap \"exit 0\" TERM INT; sleep infinity & wait"].map(Into::into).to_vec(),
        ..pb::Container::default()
    }
}

/// A spec that is the minimum but for what `change` does.
pub fn with(change: impl FnOnce(&mut pb::SandboxSpec)) -> pb::SandboxSpec {
    let mut spec = minimum();
    change(&mut spec);
    spec
}

pub fn draft_from(base: Option<&Workload>, spec: pb::SandboxSpec) -> Result<Draft, Status> {
    let (config, claims) = (config(), claims());
    let known = Known {
        config: &config,
        runners: &Runners::new(&config),
        claims: &claims,
    };
    request::draft(NAME, base, spec, &known, Problems::default())
}

pub fn draft(spec: pb::SandboxSpec) -> Result<Draft, Status> {
    draft_from(None, spec)
}

pub fn workload(spec: pb::SandboxSpec) -> Workload {
    draft(spec).unwrap().workload
}

fn order() -> Order {
    let caller = Caller {
        namespace: "tenant".into(),
        ..Caller::default()
    };
    let mut order = Order::of_create(&caller, pb::CreateSandboxRequest::default()).unwrap().0;
    order.name = NAME.into();
    order
}

/// What the stores have: one secret with members.
pub fn stores() -> BTreeMap<String, secrets::Store> {
    let keys = [("TOKEN", "t0k"), ("login", r#"{"username":"u","password":"p$ss"}"#)];
    let keys = keys.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec())));
    BTreeMap::from([("store".into(), Some(BTreeMap::from(keys)))])
}

/// The Sandbox as the API server would have it, and its Secrets.
pub fn objects_of(draft: &Draft) -> (Sandbox, Vec<k8s_openapi::api::core::v1::Secret>) {
    let resolved = secrets::resolve(&draft.needs, &stores()).unwrap();
    let mut sandbox = objects::sandbox("tenant", &order(), draft, &resolved).unwrap();
    sandbox.metadata.uid = Some("01234567-89ab-cdef-0123-456789abcdef".into());
    // Through JSON and back, as by the API server.
    let sandbox = serde_json::from_value(serde_json::to_value(&sandbox).unwrap()).unwrap();
    let secrets = objects::secrets(&sandbox, draft, &resolved);
    (sandbox, secrets)
}

pub fn sandbox_of(spec: pb::SandboxSpec) -> Sandbox {
    objects_of(&draft(spec).unwrap()).0
}

/// What the SDK gets back.
pub fn echoed(sandbox: &Sandbox) -> pb::Sandbox {
    let config = config();
    echo::sandbox(sandbox, &config, Runners::new(&config).of(sandbox))
}

/// What makes a spec wrong.
pub type Change = fn(&mut pb::SandboxSpec);

pub fn refused(change: Change) -> Status {
    draft(with(change)).err().unwrap()
}

/// Each change is refused, with that field named and no other.
pub fn assert_refused(cases: &[(&str, Change)]) {
    let mut other = vec![];
    for (field, change) in cases {
        let status = refused(*change);
        let violations = status.get_details_bad_request().map(|b| b.field_violations).unwrap_or_default();
        let only_it = !violations.is_empty() && violations.iter().all(|v| v.field == *field);
        let told = status.message().starts_with(&format!("{field}: "));
        if !(only_it && told && status.code() == Code::InvalidArgument) {
            other.push(format!("{field}: {status:?}"));
        }
    }
    assert!(other.is_empty(), "{}", other.join("\n"));
}
