//! Containers: the fields that the main container and every sidecar have in common, and sidecars.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::file::File;
use super::merge::{merge_env, or_defaults};
use super::rules;
use super::volume::Mount;

/// Fields of one container. The main container has them at the top of a `spec`; a sidecar has them beside its name and
/// image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The command and its first arguments, started without a shell. `$(VAR)` is replaced by the variable's value and
    /// `$$` by `$`, as in a pod. The exit code of the main container's command is the sandbox's; without a command the
    /// main container stays alive, doing nothing, until the sandbox is stopped or its lifetime ends. A sidecar without
    /// a command runs its image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub command: Option<Vec<String>>,
    /// Arguments after `command`. Without `command` they replace the arguments of the image's entrypoint; in the main
    /// container that needs `entrypoint: Image`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub args: Option<Vec<String>>,
    /// Working directory of the command: an absolute path. Default: the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), regex(pattern = r"^/"))]
    pub working_dir: Option<String>,
    /// Environment variables of this container, as in a pod. Those of the main container are merged with the session's
    /// by name. The operator sets `CW_SANDBOX_ID` to the sandbox's name. At most 512, with names of printable ASCII
    /// characters other than `=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub env: Option<Vec<EnvVar>>,
    /// Secrets and ConfigMaps whose keys become environment variables, as in a pod. The sandbox waits for a missing one
    /// until `startTimeoutSeconds`, then it is FAILED and its message names what is missing. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub env_from: Option<Vec<EnvFromSource>>,
    /// Requests and limits of this container, as in a pod. CPU, memory and ephemeral storage that are not set get the
    /// operator's defaults, since namespaces with a quota refuse pods without them. A resource with only a request or
    /// only a limit gets the same value for the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// `Baseline` (the default): all capabilities are dropped except those that `pip`, `apt` and `su` need; passes Pod
    /// Security `baseline`. `Restricted`: all are dropped; passes Pod Security `restricted` if the image's user is not
    /// root or `hostUsers` is false. A sidecar's default is the main container's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<SecurityProfile>,
    /// User (uid) that the container runs as. A sidecar's default is the main container's value. Otherwise the image
    /// decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_user: Option<i64>,
    /// Group (gid) that the container runs as. A sidecar's default is the main container's value. Otherwise the image
    /// decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub run_as_group: Option<i64>,
    /// Whether the root file system of this container is read-only. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,
    /// Files that exist before the container's command starts. At most 128 in the main container and 64 in a sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Option<Vec<File>>,
    /// Where volumes of the sandbox are mounted in this container; in the main container in addition to their own
    /// `mountPath`. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"]))]
    pub mounts: Option<Vec<Mount>>,
}

impl Container {
    /// These fields, with `defaults` for those that are not set; `env` is merged by name.
    #[must_use]
    pub fn or(mut self, mut defaults: Container) -> Container {
        let env = merge_env(self.env.take(), defaults.env.take());
        let merged = or_defaults!(
            self,
            defaults,
            Container {
                command,
                args,
                working_dir,
                env,
                env_from,
                resources,
                security_profile,
                run_as_user,
                run_as_group,
                read_only_root_filesystem,
                files,
                mounts,
            }
        );
        Container { env, ..merged }
    }
}

/// How many privileges the processes of a container have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum SecurityProfile {
    /// The capabilities that package managers need.
    #[default]
    Baseline,
    /// No capabilities.
    Restricted,
}

/// A container beside the main one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Name, unique in the sandbox: a DNS label. `main` and names that begin with `sandbox-operator` are reserved.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = rules::name("sidecars[].name"))]
    #[x_kube(validation = Rule::new("self != 'main'").message("sidecars[].name: main is the name of the main container"))]
    pub name: String,
    /// Image of the container, as in a pod.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub image: String,
    /// Everything else.
    #[serde(flatten)]
    pub container: Container,
}
