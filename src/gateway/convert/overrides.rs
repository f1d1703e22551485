//! The overrides of a template as the spec that they stand for. Both messages have the same fields.

use crate::proto::sandbox as pb;

/// Destructures without `..`, so that a new field cannot be forgotten.
pub(crate) fn into_spec(partial: pb::PartialSandboxSpec) -> pb::SandboxSpec {
    let pb::PartialSandboxSpec {
        containers,
        volumes,
        services,
        max_lifetime_seconds,
        network_ids,
        object_storage_access,
        tags,
        runner_ids,
        network,
        annotations,
        instance_type,
        mode,
        runtime_class,
        network_config_id,
        runtime_class_selection,
    } = partial;
    pb::SandboxSpec {
        containers: containers.into_iter().map(into_container).collect(),
        volumes,
        services,
        max_lifetime_seconds,
        network_ids,
        object_storage_access,
        tags,
        runner_ids,
        network,
        annotations,
        instance_type,
        mode,
        runtime_class,
        network_config_id,
        runtime_class_selection: runtime_class_selection.unwrap_or_default(),
    }
}

fn into_container(partial: pb::PartialContainer) -> pb::Container {
    let pb::PartialContainer {
        name,
        image,
        command,
        args,
        environment_variables,
        resources,
        files,
        volume_mounts,
        secret_stores,
        working_dir,
        resource_requirements,
        security_context,
        image_pull_credentials,
        primary,
        startup_probe,
    } = partial;
    pb::Container {
        name,
        image,
        command,
        args,
        environment_variables,
        resources,
        files,
        volume_mounts,
        secret_stores,
        working_dir,
        resource_requirements,
        security_context,
        image_pull_credentials,
        primary,
        startup_probe,
    }
}
