//! Security contexts: a request can restrict a container further than the platform does, but never less.

use super::problems::Problems;
use super::text::quoted;
use crate::api::FieldPath;
use crate::api::SecurityProfile;
use crate::proto::sandbox as pb;
use crate::resources::pod_containers::BASELINE_CAPABILITIES;

/// The security fields of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    /// `Restricted` if all capabilities are dropped.
    pub(crate) profile: Option<SecurityProfile>,
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    pub(crate) read_only_root: Option<bool>,
}

/// Converts the security context at `path`.
pub(crate) fn from_proto(path: &FieldPath, context: Option<pb::SecurityContext>, problems: &mut Problems) -> Security {
    let pb::SecurityContext {
        run_as_user,
        run_as_group,
        privileged,
        allow_privilege_escalation,
        read_only_root_filesystem,
        capabilities_add,
        capabilities_drop,
        seccomp_profile,
    } = context.unwrap_or_default();
    for (field, id) in [("run_as_user", run_as_user), ("run_as_group", run_as_group)] {
        if id == Some(u32::MAX) {
            problems.invalid(&path.field(field), format!("must be 0 to {}", u32::MAX - 1));
        }
    }
    for (field, is_set) in [
        ("privileged", privileged == Some(true)),
        ("allow_privilege_escalation", allow_privilege_escalation == Some(true)),
    ] {
        if is_set {
            problems.invalid(&path.field(field), "must be false or left out");
        }
    }
    if !["", "RuntimeDefault", "runtime/default"].contains(&seccomp_profile.as_str()) {
        let text = format!(
            "must be RuntimeDefault or left out; {} is not supported",
            quoted(&seccomp_profile)
        );
        problems.invalid(&path.field("seccomp_profile"), text);
    }
    let drop_all = check_capabilities(path, &capabilities_add, &capabilities_drop, problems);
    Security {
        profile: drop_all.then_some(SecurityProfile::Restricted),
        user: run_as_user.map(i64::from),
        group: run_as_group.map(i64::from),
        read_only_root: read_only_root_filesystem,
    }
}

/// Returns whether all capabilities are dropped.
fn check_capabilities(path: &FieldPath, add: &[String], drop: &[String], problems: &mut Problems) -> bool {
    let plain = |name: &String| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let drop_all = drop.iter().map(plain).any(|name| name == "ALL");
    for (i, name) in drop.iter().map(plain).enumerate() {
        // Capabilities that are not in the baseline are dropped anyway.
        if !drop_all && BASELINE_CAPABILITIES.contains(&name.as_str()) {
            let text = format!("{} cannot be dropped alone; drop ALL", quoted(&name));
            problems.invalid(&path.field("capabilities_drop").index(i), text);
        }
    }
    for (i, name) in add.iter().map(plain).enumerate() {
        let field = path.field("capabilities_add").index(i);
        if drop_all {
            problems.invalid(&field, "must be left out if capabilities_drop has ALL");
        } else if !BASELINE_CAPABILITIES.contains(&name.as_str()) {
            let text = format!(
                "must be one of {}; {} is not allowed",
                BASELINE_CAPABILITIES.join(", "),
                quoted(&name)
            );
            problems.invalid(&field, text);
        }
    }
    drop_all
}

/// The reverse of [`from_proto`]; none if nothing is set.
pub(crate) fn to_proto(security: Security) -> Option<pb::SecurityContext> {
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
