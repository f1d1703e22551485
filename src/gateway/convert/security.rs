//! Security contexts: a sandbox may be more restricted than the platform's rules, never less.

use super::problems::Problems;
use super::text::quoted;
use crate::api::SecurityProfile;
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::BASELINE_CAPABILITIES;

/// The security fields of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `Restricted`, if all capabilities are to go.
    pub profile: Option<SecurityProfile>,
    /// User.
    pub user: Option<i64>,
    /// Group.
    pub group: Option<i64>,
    /// Whether the root file system is read-only.
    pub read_only_root: Option<bool>,
}

/// From a request.
pub fn from_proto(at: &str, context: Option<&pb::SecurityContext>, problems: &mut Problems) -> Security {
    let Some(context) = context else {
        return Security::default();
    };
    let pb::SecurityContext {
        run_as_user,
        run_as_group,
        privileged,
        allow_privilege_escalation,
        read_only_root_filesystem,
        capabilities_add,
        capabilities_drop,
        seccomp_profile,
    } = context;
    let mut id = |name: &str, id: Option<u32>| {
        if id == Some(u32::MAX) {
            problems.wrong(format!("{at}.{name}"), "is not an id");
        }
        id.map(i64::from)
    };
    let (user, group) = (id("run_as_user", *run_as_user), id("run_as_group", *run_as_group));
    if *privileged == Some(true) {
        problems.wrong(format!("{at}.privileged"), "a sandbox is never privileged");
    }
    if *allow_privilege_escalation == Some(true) {
        problems.wrong(format!("{at}.allow_privilege_escalation"), "a sandbox never may");
    }
    if !["", "RuntimeDefault", "runtime/default"].contains(&seccomp_profile.as_str()) {
        let text = format!("{} is not supported: it is always RuntimeDefault", quoted(seccomp_profile));
        problems.wrong(format!("{at}.seccomp_profile"), text);
    }
    let plain = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let drop: Vec<String> = capabilities_drop.iter().map(plain).collect();
    let all = drop.iter().any(|c| c == "ALL");
    for (i, name) in drop.iter().enumerate() {
        // Others are dropped anyway.
        if !all && BASELINE_CAPABILITIES.contains(&name.as_str()) {
            let text = format!("{} cannot be dropped alone; drop ALL", quoted(name));
            problems.wrong(format!("{at}.capabilities_drop[{i}]"), text);
        }
    }
    for (i, name) in capabilities_add.iter().map(plain).enumerate() {
        if all {
            problems.wrong(format!("{at}.capabilities_add[{i}]"), "cannot be given with capabilities_drop ALL");
        } else if !BASELINE_CAPABILITIES.contains(&name.as_str()) {
            problems.wrong(format!("{at}.capabilities_add[{i}]"), format!("{} is not allowed", quoted(&name)));
        }
    }
    Security {
        profile: all.then_some(SecurityProfile::Restricted),
        user,
        group,
        read_only_root: *read_only_root_filesystem,
    }
}

/// The reverse; none if nothing was said.
pub fn to_proto(security: Security) -> Option<pb::SecurityContext> {
    let Security {
        profile,
        user,
        group,
        read_only_root,
    } = security;
    let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
    let context = pb::SecurityContext {
        run_as_user: id(user),
        run_as_group: id(group),
        read_only_root_filesystem: read_only_root,
        capabilities_drop: profile
            .filter(|p| *p == SecurityProfile::Restricted)
            .map(|_| vec!["ALL".into()])
            .unwrap_or_default(),
        ..pb::SecurityContext::default()
    };
    (context != pb::SecurityContext::default()).then_some(context)
}
