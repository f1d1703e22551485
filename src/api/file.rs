//! Files of a container.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// One file. Exactly one of `content`, `contentBase64`, `secretKeyRef` and `configMapKeyRef` is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.content), has(self.contentBase64), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(x, x).size() == 1")
    .message("files[]: give exactly one of content, contentBase64, secretKeyRef and configMapKeyRef"))]
pub struct File {
    /// Path in the container, not the `mountPath` of a volume; missing parent directories are created. An absolute path
    /// is a read-only mount. A relative path starts at the container's working directory: the agent copies the file
    /// there before the command starts.
    #[schemars(length(max = 1024))]
    #[x_kube(validation = rules::path_of_file("files[].path"))]
    pub path: String,
    /// The content as text. All inline content of a sandbox may have at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub content: Option<String>,
    /// The content in base64, for files that are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 349_528), regex(pattern = r"^[A-Za-z0-9+/\n]*={0,2}\n?$"))]
    pub content_base64: Option<String>,
    /// The content is a key of a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// The content is a key of a ConfigMap of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// Permission bits, 0 to 511 (0777 in octal). Default: 420 (0644). The file belongs to the container's user; a
    /// file that everyone may read may belong to root where the container has no `runAsUser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 511))]
    pub mode: Option<i32>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyRef {
    /// Name of the Secret or ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which of its keys.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
