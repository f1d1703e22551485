//! Constraints of the administrator. `resources::constraints` checks them.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::api::{EgressMode, SecurityProfile};

/// Constraints on the resolved spec of every sandbox. `None` is no constraint; a list allows only its entries.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Constraints {
    /// RuntimeClasses; `""` is the node's default.
    pub runtime_class_names: Option<Vec<String>>,
    /// PriorityClasses; `""` is the cluster's default.
    pub priority_class_names: Option<Vec<String>>,
    /// ServiceAccounts of the pod. Without one it is `default`.
    pub service_account_names: Option<Vec<String>>,
    /// Images of the main container and of sidecars.
    pub images: Option<Vec<String>>,
    /// Labels that the node selector must have.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations. Each allows all tolerations that tolerate no more than it does.
    pub tolerations: Option<Vec<Toleration>>,
    /// What `hostUsers` must be.
    pub host_users: Option<bool>,
    /// Security profiles of all containers.
    pub security_profiles: Option<Vec<SecurityProfile>>,
    /// Maximum of a resource, by its name, for all containers together.
    pub max_resources: BTreeMap<String, Quantity>,
    /// Maximum lifetime in seconds.
    pub max_lifetime_seconds: Option<i64>,
    /// Outgoing connections.
    pub egress: EgressConstraints,
    /// Keys of `podLabels`.
    pub pod_label_keys: Vec<String>,
    /// Keys of `podAnnotations`.
    pub pod_annotation_keys: Vec<String>,
}

/// Constraints on outgoing connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EgressConstraints {
    /// Modes. If only `cidrs` is set: None and Rules.
    pub modes: Option<Vec<EgressMode>>,
    /// Ranges. The range of each rule must be inside one of them.
    pub cidrs: Option<Vec<IpNet>>,
    /// Rules that select pods.
    pub pods: Pods,
}

/// Which pods a rule may select.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Pods {
    /// Those of any namespace.
    #[default]
    All,
    /// Those of the sandbox's namespace.
    SameNamespace,
    /// None.
    None,
}

impl Default for Constraints {
    fn default() -> Self {
        // Keys with a prefix control webhooks of clouds and service meshes.
        let unprefixed = || vec!["*".to_owned()];
        Constraints {
            runtime_class_names: None,
            priority_class_names: None,
            service_account_names: None,
            images: None,
            node_selector: BTreeMap::new(),
            tolerations: None,
            host_users: None,
            security_profiles: None,
            max_resources: BTreeMap::new(),
            max_lifetime_seconds: None,
            egress: EgressConstraints::default(),
            pod_label_keys: unprefixed(),
            pod_annotation_keys: unprefixed(),
        }
    }
}
