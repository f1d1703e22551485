//! Which pod belongs to a sandbox: a value in its status, not something that a name implies.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Instant;

use crate::api::{Sandbox, SandboxStatus};
use crate::resources::names;

/// A pod that this process created; the status does not name it yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CreatedPod {
    pub uid: String,
    pub at: Instant,
}

/// The pod of a sandbox, as far as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodRecord {
    pub name: String,
    /// None in a status that an older version wrote, which has the name only.
    pub uid: Option<String>,
}

impl PodRecord {
    /// The record in the status; before that is written, what this process created. None: no pod was created yet.
    pub(super) fn find(sandbox: &Sandbox, status: &SandboxStatus, created: Option<&CreatedPod>) -> Option<PodRecord> {
        if let Some(identity) = &status.pod {
            return Some(PodRecord {
                name: identity.name.clone(),
                uid: Some(identity.uid.clone()),
            });
        }
        if let Some(name) = &status.pod_name {
            let name = name.clone();
            return Some(PodRecord { name, uid: None });
        }
        created.map(|created| PodRecord {
            name: names::child(sandbox),
            uid: Some(created.uid.clone()),
        })
    }

    /// Whether this is the metadata of the pod, not of a later one with its name.
    pub(super) fn is(&self, pod: &ObjectMeta) -> bool {
        pod.name.as_ref() == Some(&self.name) && (self.uid.is_none() || pod.uid == self.uid)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sandbox() -> Sandbox {
        let object = json!({"metadata": {"name": "a", "uid": "1234abcd-1"}, "spec": {}});
        serde_json::from_value(object).unwrap()
    }

    fn find(status: serde_json::Value, created: Option<&str>) -> Option<(String, Option<String>)> {
        let status = serde_json::from_value(status).unwrap();
        let created = created.map(|uid| CreatedPod {
            uid: uid.into(),
            at: Instant::now(),
        });
        PodRecord::find(&sandbox(), &status, created.as_ref()).map(|r| (r.name, r.uid))
    }

    #[test]
    fn the_status_names_the_pod_and_before_it_does_the_memory() {
        let identity = json!({"podName": "b", "pod": {"name": "b", "uid": "u", "origin": "Created", "incarnation": 1}});
        assert_eq!(find(json!({}), None), None);
        assert_eq!(
            find(json!({}), Some("m")),
            Some(("a-1234abcd".into(), Some("m".into())))
        );
        assert_eq!(find(identity, Some("m")), Some(("b".into(), Some("u".into()))));
        assert_eq!(
            find(json!({"podName": "old"}), None),
            Some(("old".into(), None)),
            "of an older version"
        );
    }

    #[test]
    fn a_later_pod_of_the_same_name_is_another_one() {
        let meta = |name: &str, uid: &str| ObjectMeta {
            name: Some(name.into()),
            uid: Some(uid.into()),
            ..ObjectMeta::default()
        };
        let record = |uid: Option<&str>| PodRecord {
            name: "a".into(),
            uid: uid.map(Into::into),
        };
        assert!(record(Some("u")).is(&meta("a", "u")));
        assert!(!record(Some("u")).is(&meta("a", "v")));
        assert!(record(None).is(&meta("a", "v")));
        assert!(!record(None).is(&meta("b", "v")));
    }
}
