//! Who asks for a sandbox, and by which request: what makes two requests the same.

use kube::ResourceExt;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::api::{ANNOTATION_REQUEST, Sandbox};
use crate::gateway::convert::problems::Problems;
use crate::gateway::convert::request;
use crate::gateway::error::{self, reason};
use crate::gateway::identity::Caller;
use crate::proto::sandbox as pb;
use crate::resources::names;

/// Longest `request_id`.
const MAX_REQUEST_ID: usize = 128;
/// Longest display name.
const MAX_DISPLAY_NAME: usize = 256;

/// A request to create.
pub struct Order {
    /// Name of its sandbox: a hash of tenant, user and `request_id`, or random.
    pub name: String,
    /// SHA-256 of its body, in hex.
    pub hash: String,
    /// A name for people; may be empty.
    pub display_name: String,
    /// Name and generation of its template.
    pub template: Option<(String, i64)>,
    wrong: Vec<(&'static str, String)>,
}

impl Order {
    /// CreateSandbox.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a `request_id` that is too long.
    pub fn of_create(caller: &Caller, mut request: pb::CreateSandboxRequest) -> Result<(Order, pb::SandboxSpec), Status> {
        let request_id = std::mem::take(&mut request.request_id);
        let hash = hash("CreateSandbox", &request);
        let pb::Sandbox {
            sandbox_id,
            spec,
            status,
            source_template_id,
            source_template_revision,
            display_name,
            endpoint_share_token,
            control,
        } = request.sandbox.unwrap_or_default();
        let mut order = Order::new(caller, &request_id, hash, display_name)?;
        for (field, given) in [
            ("sandbox.sandbox_id", !sandbox_id.is_empty()),
            ("sandbox.status", status.is_some()),
            ("sandbox.source_template_id", !source_template_id.is_empty()),
            ("sandbox.source_template_revision", source_template_revision != 0),
            ("sandbox.endpoint_share_token", !endpoint_share_token.is_empty()),
        ] {
            if given {
                order.wrong.push((field, "is set by the platform".into()));
            }
        }
        if control > pb::Control::Platform.into() {
            order.wrong.push(("sandbox.control", "only CONTROL_PLATFORM is supported".into()));
        }
        Ok((order, spec.unwrap_or_default()))
    }

    /// CreateSandboxFromTemplate.
    ///
    /// # Errors
    /// As [`Order::of_create`].
    pub fn of_template(caller: &Caller, mut request: pb::CreateSandboxFromTemplateRequest) -> Result<(Order, pb::SandboxSpec), Status> {
        let request_id = std::mem::take(&mut request.request_id);
        let hash = hash("CreateSandboxFromTemplate", &request);
        let pb::CreateSandboxFromTemplateRequest {
            template_id: _,
            overrides,
            request_id: _,
            display_name,
        } = request;
        let order = Order::new(caller, &request_id, hash, display_name)?;
        Ok((order, request::overrides(overrides.unwrap_or_default())))
    }

    fn new(caller: &Caller, request_id: &str, hash: String, display_name: String) -> Result<Order, Status> {
        if request_id.len() > MAX_REQUEST_ID {
            let text = format!("is longer than {MAX_REQUEST_ID} bytes");
            return Err(error::invalid(vec![error::Violation::new("request_id", text)]));
        }
        let mut wrong = vec![];
        if display_name.len() > MAX_DISPLAY_NAME {
            wrong.push(("display_name", format!("is longer than {MAX_DISPLAY_NAME} bytes")));
        }
        Ok(Order {
            name: name(caller, request_id),
            hash,
            display_name,
            template: None,
            wrong,
        })
    }

    /// What is wrong so far.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        for (field, text) in &self.wrong {
            problems.wrong(*field, text);
        }
        problems
    }

    /// Checks that the same request made `sandbox`, which has our name.
    ///
    /// # Errors
    /// ALREADY_EXISTS if it was another one.
    pub fn check_same(&self, sandbox: &Sandbox) -> Result<(), Status> {
        if sandbox.annotations().get(ANNOTATION_REQUEST) == Some(&self.hash) {
            return Ok(());
        }
        let text = "this request_id came with another request";
        Err(error::status(Code::AlreadyExists, reason::REQUEST_ID_CONFLICT, text))
    }
}

fn name(caller: &Caller, request_id: &str) -> String {
    if request_id.is_empty() {
        let [a, b] = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(uuid::Uuid::into_bytes);
        return names::of_request(&Sha256::new().chain_update(a).chain_update(b).finalize().into());
    }
    let mut hasher = Sha256::new();
    for part in [&caller.namespace, &caller.user] {
        // Neither has a NUL: no two callers meet.
        hasher.update(part);
        hasher.update([0]);
    }
    hasher.update(request_id);
    names::of_request(&hasher.finalize().into())
}

/// Maps are ordered in what is hashed (see `build.rs`), so that equal requests have equal bytes.
fn hash(method: &str, request: &impl Message) -> String {
    let digest = Sha256::new()
        .chain_update(method)
        .chain_update([0])
        .chain_update(request.encode_to_vec())
        .finalize();
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::SandboxSpec;

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
    fn a_name_is_of_tenant_user_and_request() {
        let of = |ns: &str, user: &str, id: &str| Order::of_create(&caller(ns, user), request("i", id)).unwrap().0.name;
        assert_eq!(of("a", "u", "1"), of("a", "u", "1"));
        for (ns, user, id) in [("b", "u", "1"), ("a", "v", "1"), ("a", "u", "2")] {
            assert_ne!(of(ns, user, id), of("a", "u", "1"));
        }
        assert_ne!(of("a", "u", ""), of("a", "u", ""), "without a request_id every request is a new one");
        assert!(Order::of_create(&caller("a", "u"), request("i", &"x".repeat(129))).is_err());
    }

    #[test]
    fn the_same_request_is_the_same_and_another_is_a_conflict() {
        let order = |image: &str| Order::of_create(&caller("a", "u"), request(image, "1")).unwrap().0;
        let first = order("i");
        let mut sandbox = Sandbox::new(&first.name, SandboxSpec::default());
        sandbox.annotations_mut().insert(ANNOTATION_REQUEST.into(), first.hash.clone());
        assert!(order("i").check_same(&sandbox).is_ok());
        assert_eq!(order("j").check_same(&sandbox).unwrap_err().code(), Code::AlreadyExists);
        sandbox.annotations_mut().clear();
        assert!(order("i").check_same(&sandbox).is_err(), "made by somebody else");
    }

    #[test]
    fn what_the_platform_sets_is_refused() {
        let mut request = request("i", "1");
        let sandbox = request.sandbox.as_mut().unwrap();
        (sandbox.sandbox_id, sandbox.control) = ("x".into(), pb::Control::ContainerEngine.into());
        let (order, _) = Order::of_create(&caller("a", "u"), request).unwrap();
        let message = order.problems().result().unwrap_err().message().to_owned();
        assert!(message.contains("sandbox.sandbox_id") && message.contains("sandbox.control"), "{message}");
    }
}
