//! The fields that shape a sandbox's pod. A `Sandbox` has them; a session's `defaults` and a template have the same.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::lifecycle::Lifecycle;
use super::limits::MAX_TAGS_TEXT;
use super::network::Network;
use super::pod::PodShape;
use super::rules;

/// Fields that shape the pod. All are optional: a field that is not set comes from the session's `defaults`, then from
/// the operator. In a manifest they are all on one level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Image of the main container, as in a pod. Default: the session's, then the operator's (`python:3.11` unless
    /// configured otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^\S+$"))]
    pub container_image: Option<String>,
    /// Where the main command comes from. `Command` (the default): from `command`. `Image`: the image's own entrypoint
    /// runs, with `args` in place of its arguments, as PID 1 and without the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Entrypoint>,
    /// The main container.
    #[serde(flatten)]
    pub container: Container,
    /// Ports on which the sandbox listens, each number once per protocol. A sandbox with ports gets a Service, which
    /// `status.serviceName` names; `network.ingress` decides who may connect. At most 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::unique(
        |p| format!("[string({p}.port), {p}.?protocol.orValue('TCP')]"),
        "ports[]: port and protocol must not be those of another port"
    ))]
    pub ports: Option<Vec<Port>>,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodShape,
    /// Which connections the sandbox may open and accept. Default: outgoing ones to DNS and public addresses, no
    /// incoming ones. Replaces the session's `network` as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Time limits.
    #[serde(flatten)]
    pub lifecycle: Lifecycle,
    /// Tags for listing and cleaning up; united with the session's. At most 64, each of at most 256 characters, with
    /// 2048 characters in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = rules::total_of_list("tags", MAX_TAGS_TEXT))]
    pub tags: Option<Vec<String>>,
}

impl Workload {
    /// These fields, with `defaults` for those that are not set. `env` is merged by name, `tags` are united, and
    /// `command`, `args` and `entrypoint` are one field: whoever sets one of them sets all.
    #[must_use]
    pub fn or(self, mut defaults: Workload) -> Workload {
        let Workload {
            container_image,
            entrypoint,
            container,
            ports,
            pod,
            network,
            lifecycle,
            tags,
        } = self;
        if entrypoint.is_some() || container.command.is_some() || container.args.is_some() {
            defaults.entrypoint = None;
            (defaults.container.command, defaults.container.args) = (None, None);
        }
        Workload {
            container_image: container_image.or(defaults.container_image),
            entrypoint: entrypoint.or(defaults.entrypoint),
            container: container.or(defaults.container),
            ports: ports.or(defaults.ports),
            pod: pod.or(defaults.pod),
            network: network.or(defaults.network),
            lifecycle: lifecycle.or(defaults.lifecycle),
            tags: match (tags, defaults.tags) {
                (Some(own), Some(more)) => Some(own.into_iter().chain(more).collect()),
                (own, more) => own.or(more),
            },
        }
    }
}

/// Where the main command comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = rules::undescribed)]
pub enum Entrypoint {
    /// From `command`; without one the sandbox stays alive.
    Command,
    /// The image's own entrypoint, without the agent.
    Image,
}

/// A port on which the sandbox listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// Name, unique in the sandbox: at most 15 lower-case letters, digits and `-`, with at least one letter.
    #[schemars(
        length(min = 1, max = 15),
        regex(pattern = r"^([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$")
    )]
    pub name: String,
    /// Port number, 1 to 65535.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
    /// `TCP` (the default), `UDP` or `SCTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<super::network::Protocol>,
    /// Whether the port is published outside the cluster until the sandbox ends: by a second Service, named after the
    /// pod with the suffix `-public`, of the type that the operator is configured with (chart value
    /// `sandboxes.publicServices.type`; by default none is created). `network.ingress` decides here too who may
    /// connect. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
}
