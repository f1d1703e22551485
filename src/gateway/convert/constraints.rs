//! Checks the constraints of the cluster's administrator at the request. The operator checks them again.

use super::context::ConvertContext;
use super::problems::Problems;
use crate::api::{FieldPath, Sandbox, SandboxSpec, Workload};
use crate::resources::constraints::{self, Violation};
use crate::resources::{Effective, Settings};

/// Checks the workload of the sandbox `name`.
pub(crate) fn check(name: &str, workload: &Workload, context: &ConvertContext<'_>, problems: &mut Problems) {
    let settings = Settings {
        defaults: context.config.defaults.clone(),
        constraints: context.config.constraints.clone(),
        ..Settings::default()
    };
    let spec = SandboxSpec {
        workload: workload.clone(),
        ..SandboxSpec::default()
    };
    let effective = Effective::new(&Sandbox::new(name, spec), None, &settings);
    for violation in constraints::check(&effective, &settings) {
        let (field, description) = in_request(&violation, context);
        problems.invalid(&field, description);
    }
}

/// The field of the request that sets the value, and the rule. A field that requests do not have comes from the
/// template, from a runner or from the operator's defaults.
fn in_request(violation: &Violation, context: &ConvertContext<'_>) -> (FieldPath, String) {
    let (spec, (name, rest)) = (context.spec_path(), violation.split());
    let detailed = || format!("its {} {}", violation.field, violation.rule);
    match name {
        "runtimeClassName" => (spec.field("runtime_class"), violation.rule.clone()),
        "maxLifetimeSeconds" => (spec.field("max_lifetime_seconds"), violation.rule.clone()),
        "podAnnotations" => (spec.field(&format!("annotations{rest}")), violation.rule.clone()),
        "network" => (spec.field("network"), detailed()),
        "containerImage" | "sidecars" | "resources" | "securityProfile" => (spec.field("containers"), detailed()),
        _ if context.template.is_some() => (FieldPath::root("template_id"), detailed()),
        _ => (spec, detailed()),
    }
}
