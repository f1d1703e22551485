//! Objects that may be malformed. They are deserialized one by one: a single bad object must not hide all others, as it
//! would in a list.

use ::kube::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, de::Error};
use serde_json::Value;
use std::borrow::Cow;

/// The annotation in which `kubectl apply` keeps a copy of the manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object, if it can be deserialized. `managedFields` and kubectl's copy of the manifest are dropped first: nobody
/// reads them, and whoever may update an object may put anything into them, such as times that the API server accepts
/// and our types do not.
#[derive(Clone, Debug)]
pub struct Readable<K>(pub Result<K, Unreadable>);

/// An object that cannot be deserialized.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Name, namespace, UID and resourceVersion.
    pub metadata: ObjectMeta,
    /// Why it cannot be deserialized.
    pub error: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Readable<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Readable<K>, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(D::Error::missing_field("metadata"));
        };
        metadata.remove("managedFields");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        let text = |key: &str| Some(metadata.get(key)?.as_str()?.to_owned());
        let identity = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Readable(K::deserialize(object).map_err(|error| Unreadable {
            metadata: identity,
            error: error.to_string(),
        })))
    }
}

impl<K> Readable<K> {
    /// The object, or why it cannot be deserialized.
    ///
    /// # Errors
    /// It cannot be deserialized.
    pub fn into_result(self) -> ::kube::Result<K> {
        self.0
            .map_err(|unreadable| ::kube::Error::SerdeError(Error::custom(unreadable.error)))
    }
}

impl<K: Resource> Resource for Readable<K> {
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
        self.0
            .as_ref()
            .map_or_else(|unreadable| &unreadable.metadata, Resource::meta)
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
    use ::kube::ResourceExt;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn an_unreadable_object_keeps_its_identity() {
        let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"containers": "ls"}});
        let Readable(Err(unreadable)) = serde_json::from_value::<Readable<Pod>>(object).unwrap() else {
            panic!("containers are a list");
        };
        assert_eq!(unreadable.metadata.name.as_deref(), Some("a"));
        assert_eq!(unreadable.metadata.uid.as_deref(), Some("u"));
        assert!(unreadable.error.contains("invalid type"), "{}", unreadable.error);
    }

    /// The API server accepts a year 9999 that `jiff` does not.
    #[test]
    fn managed_fields_can_be_anything() {
        let managed = json!([{"manager": "x", "time": "9999-12-31T23:59:59Z"}]);
        let object = json!({"metadata": {"name": "a", "managedFields": managed}});
        assert!(
            serde_json::from_value::<Pod>(object.clone()).is_err(),
            "this test tests nothing"
        );
        let read: Readable<Pod> = serde_json::from_value(object).unwrap();
        assert_eq!(read.name_any(), "a");
        assert_eq!(read.0.unwrap().metadata.managed_fields, None);
    }
}
