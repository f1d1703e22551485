//! Constraints of the cluster's administrator on the resolved spec of a sandbox, wherever a field is set. The chart
//! generates admission policies from the same values (`templates/constraints.yaml`); a test compares both.

mod allowed;

use ipnet::IpNet;
use std::collections::BTreeMap;

use self::allowed::{covers, image_is_below, key_matches};
use super::network_policy::mode;
use super::pod_containers::resources;
use super::settings::{Constraints, EgressConstraints, Pods};
use super::{Effective, Settings, quantity};
use crate::api::{Container, EgressMode, EgressRule, FieldError, FieldPath, Sandbox, SandboxSession, Workload};
use crate::text::short;

/// Maximum size of a rule in a message, in bytes.
const MAX_RULE: usize = 240;

/// A field that violates a constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path below the fields that shape the pod: `sidecars[0].image`, for instance.
    pub field: FieldPath,
    /// What is allowed, and by which constraint.
    pub rule: String,
}

impl Violation {
    /// The name of the field, and the rest of the path below it.
    pub(crate) fn split(&self) -> (&str, &str) {
        let path = self.field.as_str();
        path.split_at(path.find(['.', '[']).unwrap_or(path.len()))
    }

    /// The message, with the path in the object that sets the field. If none does, that is the Sandbox.
    pub(crate) fn of(self, sandbox: &Sandbox, session: Option<&SandboxSession>) -> FieldError {
        let (name, _) = self.split();
        let sets = |fields: serde_json::Result<serde_json::Value>| fields.is_ok_and(|f| f.get(name).is_some());
        let defaults = session.filter(|s| sets(serde_json::to_value(&s.spec.defaults)));
        let root = match (sets(serde_json::to_value(&sandbox.spec)), &sandbox.spec.session_name) {
            (false, Some(session)) if defaults.is_some() => {
                FieldPath::root("spec.defaults").of(format!("SandboxSession {session}"))
            }
            _ => FieldPath::root("spec"),
        };
        self.field.error(self.rule).within(&root)
    }
}

/// All violations of the constraints in `settings` by a resolved spec.
pub fn check(effective: &Effective, settings: &Settings) -> Vec<Violation> {
    let (w, c) = (&effective.workload, &settings.constraints);
    let mut found = Found::default();
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    let (runtime, priority) = (text(&w.pod.runtime_class_name), text(&w.pod.priority_class_name));
    let account = w.pod.service_account_name.clone().unwrap_or_else(|| "default".into());
    let of_pod = |name: &str| FieldPath::default().field(name);
    for (field, value, allowed, constraint) in [
        ("runtimeClassName", runtime, &c.runtime_class_names, "runtimeClassNames"),
        (
            "priorityClassName",
            priority,
            &c.priority_class_names,
            "priorityClassNames",
        ),
        (
            "serviceAccountName",
            account,
            &c.service_account_names,
            "serviceAccountNames",
        ),
    ] {
        if let Some(allowed) = allowed.as_ref().filter(|a| !a.contains(&value)) {
            found.add(of_pod(field), &value, &format!("one of {}", list(allowed)), constraint);
        }
    }
    check_containers(effective, c, &mut found);
    check_placement(w, c, &mut found);
    let host_users = w.pod.host_users.unwrap_or(settings.defaults.host_users);
    if let Some(must) = c.host_users.filter(|must| *must != host_users) {
        found.add(
            of_pod("hostUsers"),
            &host_users.to_string(),
            &must.to_string(),
            "hostUsers",
        );
    }
    check_resources(w, settings, &mut found);
    if let Some(most) = c.max_lifetime_seconds.filter(|most| effective.lifetime > *most) {
        let (value, most) = (effective.lifetime.to_string(), format!("at most {most}"));
        found.add(of_pod("maxLifetimeSeconds"), &value, &most, "maxLifetimeSeconds");
    }
    check_egress(effective, &c.egress, &mut found);
    for (field, keys, allowed, constraint) in [
        ("podLabels", &w.pod.pod_labels, &c.pod_label_keys, "podLabelKeys"),
        (
            "podAnnotations",
            &w.pod.pod_annotations,
            &c.pod_annotation_keys,
            "podAnnotationKeys",
        ),
    ] {
        for key in keys.iter().flat_map(BTreeMap::keys) {
            if !allowed.iter().any(|entry| key_matches(entry, key)) {
                let rule = format!("a key that matches one of {}", list(allowed));
                found.add(of_pod(field).key(key), key, &rule, constraint);
            }
        }
    }
    found.violations
}

/// The main container and the sidecars.
fn check_containers(effective: &Effective, c: &Constraints, found: &mut Found) {
    let w = &effective.workload;
    let of_main = w.container.security_profile.unwrap_or_default();
    let main = (
        FieldPath::default(),
        "containerImage",
        effective.image.as_str(),
        &w.container,
    );
    let sidecars = w.pod.sidecars.iter().flatten().enumerate().map(|(i, sidecar)| {
        let path = FieldPath::default().field("sidecars").index(i);
        (path, "image", sidecar.image.as_str(), &sidecar.container)
    });
    for (path, image_field, image, container) in std::iter::once(main).chain(sidecars) {
        if let Some(allowed) = &c.images
            && !allowed.iter().any(|entry| image_is_below(entry, image))
        {
            let rule = format!("an image of {}", list(allowed));
            found.add(path.field(image_field), image, &rule, "images");
        }
        let profile = container.security_profile.unwrap_or(of_main);
        if let Some(allowed) = c.security_profiles.as_ref().filter(|a| !a.contains(&profile)) {
            let rule = format!("one of {}", list(&words(allowed)));
            found.add(
                path.field("securityProfile"),
                &format!("{profile:?}"),
                &rule,
                "securityProfiles",
            );
        }
    }
}

fn check_placement(w: &Workload, c: &Constraints, found: &mut Found) {
    for (key, must) in &c.node_selector {
        let value = w.pod.node_selector.as_ref().and_then(|s| s.get(key));
        if value != Some(must) {
            let path = FieldPath::default().field("nodeSelector").key(key);
            let value = value.map_or("", String::as_str);
            found.add(path, value, &format!("{must:?}"), "nodeSelector");
        }
    }
    let Some(allowed) = &c.tolerations else { return };
    for (i, toleration) in w.pod.tolerations.iter().flatten().enumerate() {
        if !allowed.iter().any(|entry| covers(entry, toleration)) {
            let path = FieldPath::default().field("tolerations").index(i);
            let key = toleration.key.as_deref().unwrap_or_default();
            found.add(path, key, "a toleration that the list has", "tolerations");
        }
    }
}

/// Checks the sum of the limits of all containers, because they run at the same time.
fn check_resources(w: &Workload, settings: &Settings, found: &mut Found) {
    let sidecars = w.pod.sidecars.iter().flatten().map(|s| &s.container);
    let containers: Vec<&Container> = std::iter::once(&w.container).chain(sidecars).collect();
    for (name, most) in &settings.constraints.max_resources {
        let total = containers.iter().fold(0_i64, |sum, container| {
            let all = resources(container.resources.as_ref(), settings);
            let values = [all.limits, all.requests].into_iter().flatten();
            // A value that is not a quantity counts as a violation.
            let largest = values
                .filter_map(|q| q.get(name).map(|q| quantity::thousandths(q).unwrap_or(i64::MAX)))
                .max();
            sum.saturating_add(largest.unwrap_or_default())
        });
        if total > quantity::thousandths(most).unwrap_or_default() {
            let path = FieldPath::default().field("resources").field("limits").key(name);
            let rule = format!("at most {} for all containers together", most.0);
            found.add(path, "", &rule, "maxResources");
        }
    }
}

fn check_egress(effective: &Effective, c: &EgressConstraints, found: &mut Found) {
    let egress = FieldPath::default().field("network").field("egress");
    let closed = || vec![EgressMode::None, EgressMode::Rules];
    let modes = c.modes.clone().or_else(|| c.cidrs.is_some().then(closed));
    let allows = |mode| modes.as_ref().is_none_or(|modes| modes.contains(&mode));
    let rule = || format!("one of {}", list(&words(modes.as_deref().unwrap_or_default())));
    let mode = mode(effective);
    if !allows(mode) {
        found.add(egress.field("mode"), &format!("{mode:?}"), &rule(), "egress.modes");
    }
    let network = effective.workload.network.as_ref();
    let rules = network.and_then(|n| n.egress.as_ref()?.rules.as_ref());
    for (i, declared) in rules.into_iter().flatten().enumerate() {
        let path = egress.field("rules").index(i);
        // Without `..`, so that a new kind of destination cannot be forgotten.
        let EgressRule {
            internet,
            cidr,
            except: _,
            pod_selector,
            namespace_selector,
            ports: _,
        } = declared;
        if internet.is_some() && !allows(EgressMode::Internet) {
            found.add(path.field("internet"), "Internet", &rule(), "egress.modes");
        }
        if let (Some(cidr), Some(allowed)) = (cidr, &c.cidrs) {
            let inside = |range: IpNet| allowed.iter().any(|a| a.contains(&range));
            if !cidr.parse().is_ok_and(inside) {
                let allowed: Vec<_> = allowed.iter().map(IpNet::to_string).collect();
                let rule = format!("inside one of {}", list(&allowed));
                found.add(path.field("cidr"), cidr, &rule, "egress.cidrs");
            }
        }
        match c.pods {
            Pods::None if pod_selector.is_some() => {
                found.add(path.field("podSelector"), "", "left out", "egress.pods");
            }
            Pods::None | Pods::SameNamespace if namespace_selector.is_some() => {
                found.add(path.field("namespaceSelector"), "", "left out", "egress.pods");
            }
            Pods::None | Pods::SameNamespace | Pods::All => {}
        }
    }
}

#[derive(Default)]
struct Found {
    violations: Vec<Violation>,
}

impl Found {
    /// `must`: what the field must be. `value`: what it is; empty if it is not set or not useful.
    fn add(&mut self, field: FieldPath, value: &str, must: &str, constraint: &str) {
        let must = short(must, MAX_RULE);
        let is = match value {
            "" => String::new(),
            value => format!(", and {:?} is not", short(value, MAX_RULE)),
        };
        let rule =
            format!("must be {must}{is}; the cluster's administrator set it in sandboxes.constraints.{constraint}");
        self.violations.push(Violation { field, rule });
    }
}

fn words<T: std::fmt::Debug>(values: &[T]) -> Vec<String> {
    values.iter().map(|v| format!("{v:?}")).collect()
}

/// The entries of a list; the empty one stands for a field that is not set.
fn list(entries: &[String]) -> String {
    let texts: Vec<&str> = entries
        .iter()
        .map(|e| if e.is_empty() { "(not set)" } else { e })
        .collect();
    match texts.as_slice() {
        [] => "an empty list".into(),
        texts => texts.join(", "),
    }
}

#[cfg(test)]
mod tests;
