//! Names of fields in messages, written as in the user's own document.

use std::fmt;

/// Path of a field, such as `spec.network.egress.rules[2].cidr`. Built from a root, which is how the document calls its
/// outermost part, or relative (the default) where a function does not know where its input is; the caller then
/// completes it with [`FieldError::within`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath {
    path: String,
    /// Which document it is in, where that is not the object that the message is attached to.
    document: Option<String>,
}

impl FieldPath {
    /// The outermost part: `spec`, `spec.defaults`, or a name in a request such as `sandbox.spec`.
    pub fn root(path: &str) -> FieldPath {
        FieldPath {
            path: path.into(),
            document: None,
        }
    }

    /// The same path in another document, such as `SandboxSession train`.
    #[must_use]
    pub fn of(self, document: impl Into<String>) -> FieldPath {
        FieldPath {
            document: Some(document.into()),
            ..self
        }
    }

    /// A field of this object.
    #[must_use]
    pub fn field(&self, name: &str) -> FieldPath {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.extended(format_args!("{dot}{name}"))
    }

    /// An item of this list by its position.
    #[must_use]
    pub fn index(&self, index: usize) -> FieldPath {
        self.extended(format_args!("[{index}]"))
    }

    /// An item of this list by the value of its key field, as Kubernetes writes it: `env[name="HOME"]`.
    #[must_use]
    pub fn item(&self, key: &str, value: &str) -> FieldPath {
        self.extended(format_args!("[{key}={value:?}]"))
    }

    /// A value of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> FieldPath {
        self.extended(format_args!("[{key:?}]"))
    }

    /// What is wrong with this field, and what to write.
    pub fn error(&self, message: impl Into<String>) -> FieldError {
        FieldError {
            path: self.clone(),
            message: message.into(),
        }
    }

    /// The path without its document.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    fn extended(&self, end: fmt::Arguments) -> FieldPath {
        FieldPath {
            path: format!("{}{end}", self.path),
            document: self.document.clone(),
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.path)?;
        match &self.document {
            Some(document) => write!(f, " of {document}"),
            None => Ok(()),
        }
    }
}

/// A field that cannot be as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Which one.
    pub path: FieldPath,
    /// What is wrong with it, and what to write.
    pub message: String,
}

impl FieldError {
    /// Completes a relative path.
    #[must_use]
    pub fn within(self, parent: &FieldPath) -> FieldError {
        let relative = self.path.path;
        let path = if relative.is_empty() {
            parent.clone()
        } else if relative.starts_with('[') {
            parent.extended(format_args!("{relative}"))
        } else {
            parent.field(&relative)
        };
        FieldError {
            path,
            message: self.message,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_kubernetes_writes_them() {
        let rules = FieldPath::root("spec").field("network").field("egress").field("rules");
        assert_eq!(
            rules.index(2).field("cidr").to_string(),
            "spec.network.egress.rules[2].cidr"
        );
        let env = FieldPath::root("spec").field("env").item("name", "A\"B").field("value");
        assert_eq!(env.to_string(), r#"spec.env[name="A\"B"].value"#);
        let map = FieldPath::root("sandbox.spec").field("annotations").key("a/b");
        assert_eq!(map.as_str(), r#"sandbox.spec.annotations["a/b"]"#);
    }

    #[test]
    fn a_relative_path_is_completed_by_who_knows_the_document() {
        let rules = FieldPath::root("spec.defaults").of("SandboxSession s").field("rules");
        for (relative, completed) in [
            (FieldPath::default().field("cidr"), "spec.defaults.rules.cidr"),
            (
                FieldPath::default().index(1).field("cidr"),
                "spec.defaults.rules[1].cidr",
            ),
            (FieldPath::default(), "spec.defaults.rules"),
        ] {
            let error = relative.error("is wrong").within(&rules);
            assert_eq!(error.to_string(), format!("{completed} of SandboxSession s: is wrong"));
        }
    }
}
