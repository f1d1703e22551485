//! The authenticated caller, and the permissions that RPCs require.

use std::collections::BTreeMap;

use crate::api::GROUP;

/// Prefix of a ServiceAccount's user name.
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A caller whose credentials were checked. The authentication layer puts it into the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The tenant: the namespace of the caller's ServiceAccount.
    pub namespace: String,
    /// The user name in Kubernetes: `system:serviceaccount:<namespace>:<name>`.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Further attributes from the TokenReview, for the SubjectAccessReview.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// A ServiceAccount, with the groups that the API server gives it.
    pub fn service_account(namespace: &str, name: &str) -> Caller {
        Caller {
            namespace: namespace.into(),
            user: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
            extra: BTreeMap::new(),
        }
    }
}

/// What an RPC requires, in terms of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Permission {
    /// create sandboxes
    Create,
    /// get sandboxes
    Get,
    /// list sandboxes
    List,
    /// delete sandboxes
    Delete,
    /// create sandboxes/exec
    Exec,
    /// get sandboxes/log
    Logs,
    /// get sandboxes/files
    ReadFiles,
    /// update sandboxes/files
    WriteFiles,
    /// get sandboxtemplates
    GetTemplates,
    /// get persistentvolumeclaims
    GetVolumes,
    /// patch persistentvolumeclaims
    RegisterVolumes,
}

impl Permission {
    /// Verb, API group, resource and subresource.
    pub(crate) fn attributes(self) -> (&'static str, &'static str, &'static str, Option<&'static str>) {
        match self {
            Permission::Create => ("create", GROUP, "sandboxes", None),
            Permission::Get => ("get", GROUP, "sandboxes", None),
            Permission::List => ("list", GROUP, "sandboxes", None),
            Permission::Delete => ("delete", GROUP, "sandboxes", None),
            Permission::Exec => ("create", GROUP, "sandboxes", Some("exec")),
            Permission::Logs => ("get", GROUP, "sandboxes", Some("log")),
            Permission::ReadFiles => ("get", GROUP, "sandboxes", Some("files")),
            Permission::WriteFiles => ("update", GROUP, "sandboxes", Some("files")),
            Permission::GetTemplates => ("get", GROUP, "sandboxtemplates", None),
            Permission::GetVolumes => ("get", "", "persistentvolumeclaims", None),
            Permission::RegisterVolumes => ("patch", "", "persistentvolumeclaims", None),
        }
    }
}
