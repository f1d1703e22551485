//! What is not supported is refused by name, all of it in one answer, and every refusal names a field of the request.

mod containers;
mod spec;

use std::collections::BTreeSet;
use std::panic::Location;
use std::path::Path;
use std::sync::Mutex;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::descriptors::has_field;
use super::{draft, with};
use crate::api::FieldPath;
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
    REFUSED_AT
        .lock()
        .unwrap()
        .insert((location.file().into(), location.line()));
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
        let name = file
            .strip_prefix(env!("CARGO_MANIFEST_DIR"))
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        for (line, text) in (1..).zip(source.lines()) {
            let is_refusal =
                CALLS.iter().any(|call| text.contains(&format!("problems{call}"))) || text.contains("problems.refuse(");
            if is_refusal && !name.contains("/tests") && !refused_at.contains(&(name.clone(), line)) {
                missing.push(format!("{name}:{line}: {}", text.trim()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no test provokes these refusals:\n{}",
        missing.join("\n")
    );
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
        let violations = status
            .get_details_bad_request()
            .map(|b| b.field_violations)
            .unwrap_or_default();
        let is_only = !violations.is_empty() && violations.iter().all(|v| v.field == *field);
        let in_message = status.message().starts_with(&format!("{field}: "));
        if !(is_only && in_message && status.code() == Code::InvalidArgument) {
            failures.push(format!("{field}: {status:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

pub(super) fn file(path: &str) -> pb::FileMount {
    pb::FileMount {
        path: path.into(),
        content: "x".into(),
    }
}

pub(super) fn mount(volume: &str, path: &str) -> pb::VolumeMount {
    pb::VolumeMount {
        volume: volume.into(),
        mount_path: path.into(),
        ..pb::VolumeMount::default()
    }
}

pub(super) fn scratch(name: &str, size: &str, medium: pb::StorageMedium) -> pb::SandboxVolume {
    pb::SandboxVolume {
        name: name.into(),
        source: Some(pb::sandbox_volume::Source::Scratch(pb::ScratchVolume {
            size: size.into(),
            medium: medium.into(),
            ..pb::ScratchVolume::default()
        })),
    }
}

pub(super) fn security(context: pb::SecurityContext) -> Option<pb::SecurityContext> {
    Some(context)
}

pub(super) fn cpu(requests: &str, limits: &str) -> Option<pb::ResourceRequirements> {
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

pub(super) fn service(port: i32, name: &str) -> pb::Service {
    pb::Service {
        port,
        name: name.into(),
        visibility: pb::Visibility::Private.into(),
        ..pb::Service::default()
    }
}

pub(super) fn endpoint(endpoint: pb::EndpointSpec) -> Vec<pb::Service> {
    vec![pb::Service {
        endpoint: Some(endpoint),
        ..service(80, "a")
    }]
}

#[test]
fn every_refusal_of_the_conversion_names_a_field_of_the_request() {
    containers::an_invalid_field_is_named();
    spec::an_invalid_field_is_named();
    spec::what_this_cluster_does_not_have_is_refused_with_a_reason();
    spec::overrides_of_a_template_are_named_as_such();
    spec::a_template_that_the_operator_would_refuse_is_refused();
    super::constraints::a_violation_names_the_field_of_the_request();
    network::tests::refusals::an_invalid_field_is_named();
    secrets::tests::missing_secrets_are_named_and_values_are_not();
    secrets::tests::copies_must_fit_into_a_secret();
    assert_all_refused(Path::new("src/gateway/convert"));
}
