//! Objects of a watch, read one by one: one that cannot be understood must not hide all others, as it would in a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, de::Error};
use serde_json::Value;
use std::borrow::Cow;

/// Where `kubectl apply` keeps a copy of what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of a watch, if it can be understood. It comes without what nobody here reads: kubectl's copy of it, and `managedFields`.
/// Whoever may update an object may put anything into those, times included that the API server takes and no type of ours does.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// An object that cannot be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Its name, namespace and UID.
    pub metadata: ObjectMeta,
    /// What is wrong with it.
    pub error: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Guarded<K>, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(D::Error::missing_field("metadata"));
        };
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        let text = |key: &str| Some(metadata.get(key)?.as_str()?.to_owned());
        let told = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Guarded(K::deserialize(object).map_err(|error| Unreadable {
            metadata: told,
            error: error.to_string(),
        })))
    }
}

impl<K> Guarded<K> {
    /// The object.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn readable(self) -> kube::Result<K> {
        self.0.map_err(|unreadable| kube::Error::SerdeError(Error::custom(unreadable.error)))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, Resource::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use serde_json::json;

    #[test]
    fn an_object_that_cannot_be_understood_is_told_by_name() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"containers": "ls"}});
        let Guarded(Err(unreadable)) = serde_json::from_value::<Guarded<Pod>>(object).unwrap() else {
            panic!("containers are a list");
        };
        assert_eq!(unreadable.metadata.name.as_deref(), Some("a"));
        assert_eq!(unreadable.metadata.uid.as_deref(), Some("u"));
        assert!(unreadable.error.contains("invalid type"), "{}", unreadable.error);
    }

    /// The API server takes a year 9999 that `jiff` does not.
    #[test]
    fn managed_fields_can_be_anything() {
        let managed = json!([{"manager": "x", "time": "9999-12-31T23:59:59Z"}]);
        let object = json!({"metadata": {"name": "a", "managedFields": managed}});
        assert!(serde_json::from_value::<Pod>(object.clone()).is_err(), "this test tests nothing");
        let read: Guarded<Pod> = serde_json::from_value(object).unwrap();
        assert_eq!(read.name_any(), "a");
        assert_eq!(read.0.unwrap().metadata.managed_fields, None);
    }
}
