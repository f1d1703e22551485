//! Checks what only the operator's builders see. A request's own fields are checked as they are converted; what a
//! template adds could make the sandbox FAILED a moment after it was created, and is refused here instead.

use super::context::ConvertContext;
use super::problems::Problems;
use crate::api::{FieldError, FieldPath, Sandbox, SandboxSpec, Workload};
use crate::resources::{AgentDelivery, AgentInjection, AgentKey, pod};
use crate::resources::{Effective, Settings, files, network_policy};

/// Checks the workload of the sandbox `name`.
pub(crate) fn check(name: &str, workload: &Workload, context: &ConvertContext<'_>, problems: &mut Problems) {
    if context.template.is_some()
        && let Err(error) = build(name, workload, context)
    {
        problems.invalid(
            &FieldPath::root("template_id"),
            format!("must name a template that a sandbox can use; its {error}"),
        );
    }
}

fn build(name: &str, workload: &Workload, context: &ConvertContext<'_>) -> Result<(), FieldError> {
    let mut settings = Settings::default();
    settings.agent.port = context.config.agents.port;
    settings.network.never.clone_from(&context.config.never);
    let spec = SandboxSpec {
        workload: workload.clone(),
        ..SandboxSpec::default()
    };
    let sandbox = Sandbox::new(name, spec);
    let effective = Effective::new(&sandbox, None, &settings);
    let agent = AgentInjection {
        delivery: AgentDelivery::ImageVolume,
        key: AgentKey::default(),
    };
    network_policy::build(&sandbox, &effective, &settings, &settings.lists())?;
    files::config_map(&sandbox, &effective)?;
    pod::build(&sandbox, &effective, &settings, &agent)?;
    Ok(())
}
