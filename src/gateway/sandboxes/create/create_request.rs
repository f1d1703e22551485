//! A request to create a sandbox, with a spec or from a template.

use tonic::Status;

use super::idempotency::IdempotencyKey;
use crate::api::FieldPath;
use crate::gateway::convert::overrides;
use crate::gateway::convert::problems::Problems;
use crate::gateway::edge::caller::Caller;
use crate::proto::sandbox as pb;

const MAX_REQUEST_ID_BYTES: usize = 128;
const MAX_DISPLAY_NAME_BYTES: usize = 256;

/// A request to create a sandbox.
pub(crate) struct CreateRequest {
    pub(crate) key: IdempotencyKey,
    /// A name for people; may be empty.
    pub(crate) display_name: String,
    /// Name and generation of the template.
    pub(crate) template: Option<(String, i64)>,
    /// What is wrong with the fields outside the spec.
    pub(crate) problems: Problems,
}

impl CreateRequest {
    /// Reads a CreateSandboxRequest: everything but its spec, which is returned as it is.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a `request_id` that is too long.
    pub(crate) fn from_create(
        caller: &Caller,
        mut request: pb::CreateSandboxRequest,
    ) -> Result<(CreateRequest, pb::SandboxSpec), Status> {
        let request_id = std::mem::take(&mut request.request_id);
        check_request_id(&request_id)?;
        let key = IdempotencyKey::new(caller, &request_id, "CreateSandbox", &request);
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
        let sandbox = FieldPath::root("sandbox");
        let mut problems = Problems::default();
        for (field, is_set) in [
            ("sandbox_id", !sandbox_id.is_empty()),
            ("status", status.is_some()),
            ("source_template_id", !source_template_id.is_empty()),
            ("source_template_revision", source_template_revision != 0),
            ("endpoint_share_token", !endpoint_share_token.is_empty()),
        ] {
            if is_set {
                problems.invalid(&sandbox.field(field), "is set by the platform; leave it out");
            }
        }
        if ![pb::Control::Unspecified, pb::Control::Platform]
            .map(i32::from)
            .contains(&control)
        {
            problems.invalid(&sandbox.field("control"), "must be CONTROL_PLATFORM or left out");
        }
        check_display_name(&sandbox.field("display_name"), &display_name, &mut problems);
        let request = CreateRequest {
            key,
            display_name,
            template: None,
            problems,
        };
        Ok((request, spec.unwrap_or_default()))
    }

    /// Reads a CreateSandboxFromTemplateRequest. Its overrides are returned as the spec that they stand for.
    ///
    /// # Errors
    /// As [`CreateRequest::from_create`].
    pub(crate) fn from_template(
        caller: &Caller,
        mut request: pb::CreateSandboxFromTemplateRequest,
    ) -> Result<(CreateRequest, pb::SandboxSpec), Status> {
        let request_id = std::mem::take(&mut request.request_id);
        check_request_id(&request_id)?;
        let key = IdempotencyKey::new(caller, &request_id, "CreateSandboxFromTemplate", &request);
        let pb::CreateSandboxFromTemplateRequest {
            template_id: _,
            overrides,
            request_id: _,
            display_name,
        } = request;
        let mut problems = Problems::default();
        check_display_name(&FieldPath::root("display_name"), &display_name, &mut problems);
        let request = CreateRequest {
            key,
            display_name,
            template: None,
            problems,
        };
        Ok((request, overrides::into_spec(overrides.unwrap_or_default())))
    }
}

fn check_request_id(request_id: &str) -> Result<(), Status> {
    let mut problems = Problems::default();
    if request_id.len() > MAX_REQUEST_ID_BYTES {
        let text = format!(
            "must have at most {MAX_REQUEST_ID_BYTES} bytes, not {}",
            request_id.len()
        );
        problems.invalid(&FieldPath::root("request_id"), text);
    }
    problems.into_result()
}

fn check_display_name(path: &FieldPath, display_name: &str, problems: &mut Problems) {
    if display_name.len() > MAX_DISPLAY_NAME_BYTES {
        problems.invalid(
            path,
            format!(
                "must have at most {MAX_DISPLAY_NAME_BYTES} bytes, not {}",
                display_name.len()
            ),
        );
    }
}

#[cfg(test)]
mod tests;
