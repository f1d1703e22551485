#![allow(clippy::unwrap_used)]

use kube::ResourceExt;
use tonic::Code;

use std::path::Path;

use super::*;
use crate::api::{ANNOTATION_REQUEST, Sandbox, SandboxSpec};
use crate::gateway::convert::tests::refusals::assert_all_refused;
use crate::gateway::sandboxes::create::objects;

fn caller(namespace: &str, user: &str) -> Caller {
    Caller {
        namespace: namespace.into(),
        user: user.into(),
        ..Caller::default()
    }
}

fn request(image: &str, request_id: &str) -> pb::CreateSandboxRequest {
    let container = pb::Container {
        image: image.into(),
        environment_variables: (0..50).map(|i| (format!("V{i}"), i.to_string())).collect(),
        ..pb::Container::default()
    };
    let spec = pb::SandboxSpec {
        containers: vec![container],
        ..pb::SandboxSpec::default()
    };
    let sandbox = pb::Sandbox {
        spec: Some(spec),
        ..pb::Sandbox::default()
    };
    pb::CreateSandboxRequest {
        sandbox: Some(sandbox),
        request_id: request_id.into(),
    }
}

#[test]
fn a_name_depends_on_tenant_user_and_request_id() {
    let of = |ns: &str, user: &str, id: &str| {
        CreateRequest::from_create(&caller(ns, user), request("i", id))
            .unwrap()
            .0
            .key
            .name
    };
    assert_eq!(of("a", "u", "1"), of("a", "u", "1"));
    for (ns, user, id) in [("b", "u", "1"), ("a", "v", "1"), ("a", "u", "2")] {
        assert_ne!(of(ns, user, id), of("a", "u", "1"));
    }
    assert_ne!(
        of("a", "u", ""),
        of("a", "u", ""),
        "without a request_id every request is new"
    );
    assert!(CreateRequest::from_create(&caller("a", "u"), request("i", &"x".repeat(129))).is_err());
}

#[test]
fn a_repeated_request_is_accepted_and_another_is_a_conflict() {
    let key = |image: &str| {
        CreateRequest::from_create(&caller("a", "u"), request(image, "1"))
            .unwrap()
            .0
            .key
    };
    let first = key("i");
    let mut sandbox = Sandbox::new(&first.name, SandboxSpec::default());
    sandbox
        .annotations_mut()
        .insert(ANNOTATION_REQUEST.into(), first.body_sha256.clone());
    assert!(key("i").check_same(&sandbox).is_ok());
    assert_eq!(key("j").check_same(&sandbox).unwrap_err().code(), Code::AlreadyExists);
    sandbox.annotations_mut().clear();
    assert!(key("i").check_same(&sandbox).is_err(), "not created by a request");
}

#[test]
fn fields_that_the_platform_sets_are_refused() {
    let mut request = request("i", "1");
    let sandbox = request.sandbox.as_mut().unwrap();
    (sandbox.sandbox_id, sandbox.control) = ("x".into(), pb::Control::ContainerEngine.into());
    let (request, _) = CreateRequest::from_create(&caller("a", "u"), request).unwrap();
    let message = request.problems.into_result().unwrap_err().message().to_owned();
    assert!(
        message.contains("sandbox.sandbox_id") && message.contains("sandbox.control"),
        "{message}"
    );
}

#[test]
fn every_refusal_outside_the_spec_names_a_field_of_the_request() {
    fields_that_the_platform_sets_are_refused();
    objects::tests::a_sandbox_that_is_too_large_is_refused();
    let mut create = request("i", "1");
    create.sandbox.as_mut().unwrap().display_name = "x".repeat(257);
    let template = pb::CreateSandboxFromTemplateRequest {
        display_name: "x".repeat(257),
        ..pb::CreateSandboxFromTemplateRequest::default()
    };
    let (create, _) = CreateRequest::from_create(&caller("a", "u"), create).unwrap();
    let (template, _) = CreateRequest::from_template(&caller("a", "u"), template).unwrap();
    for (request, field) in [(create, "sandbox.display_name: "), (template, "display_name: ")] {
        let status = request.problems.into_result().unwrap_err();
        assert!(status.message().starts_with(field), "{}", status.message());
    }
    let too_long = CreateRequest::from_create(&caller("a", "u"), request("i", &"x".repeat(129)))
        .err()
        .unwrap();
    assert!(too_long.message().starts_with("request_id: "), "{}", too_long.message());
    assert_all_refused(Path::new(file!()).ancestors().nth(2).unwrap());
}
