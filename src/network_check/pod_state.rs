//! Reads the status of a probe pod: pure.

use k8s_openapi::api::core::v1::{ContainerState, Pod};

use crate::network_probe::ProbeReport;

/// The addresses of a running pod.
pub(super) fn addresses(pod: &Pod) -> Option<Vec<String>> {
    let status = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Running"))?;
    let addresses: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
    Some(addresses).filter(|a| !a.is_empty())
}

/// What the client reported, once its container has ended.
pub(super) fn report(pod: &Pod) -> Option<Result<ProbeReport, String>> {
    let ended = state(pod)?.terminated.as_ref()?;
    let message = ended.message.as_deref().unwrap_or_default();
    Some(serde_json::from_str(message).map_err(|_| {
        let reason = ended.reason.as_deref().unwrap_or_default();
        format!(
            "it ended without a report: {reason}, exit code {} {message}",
            ended.exit_code
        )
    }))
}

/// Whether a pod's container can never start.
pub(super) fn is_hopeless(pod: &Pod) -> bool {
    let reason = state(pod)
        .and_then(|s| s.waiting.as_ref())
        .and_then(|w| w.reason.as_deref());
    matches!(reason, Some("ErrImageNeverPull" | "InvalidImageName"))
}

/// Why a pod is not further, according to its status.
pub(super) fn problem(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "it has no status".into();
    };
    let text = |reason: &Option<String>, message: &Option<String>| {
        let parts = [reason.as_deref(), message.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    };
    let waiting = state(pod).and_then(|s| s.waiting.as_ref());
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    match (waiting, unscheduled) {
        (Some(waiting), _) => text(&waiting.reason, &waiting.message),
        (None, Some(condition)) => text(&condition.reason, &condition.message),
        (None, None) => {
            let phase = status.phase.as_deref().unwrap_or("Unknown");
            let reported = text(&status.reason, &status.message);
            format!("its phase is {phase} {reported}").trim_end().into()
        }
    }
}

fn state(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ours = statuses.iter().find(|c| c.name == crate::resources::probe::CONTAINER);
    ours?.state.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"status": status})).unwrap()
    }

    fn container(state: Value) -> Pod {
        let status =
            json!({"name": "probe", "ready": false, "restartCount": 0, "image": "", "imageID": "", "state": state});
        pod(json!({"phase": "Pending", "containerStatuses": [status]}))
    }

    #[test]
    fn a_pod_has_addresses_once_it_runs() {
        let ips = json!([{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}]);
        for (status, expected) in [
            (
                json!({"phase": "Running", "podIPs": ips}),
                Some(vec!["10.0.0.1".to_owned(), "2001:db8::1".to_owned()]),
            ),
            (json!({"phase": "Pending", "podIPs": ips}), None),
            (json!({"phase": "Running"}), None),
            (json!({}), None),
        ] {
            assert_eq!(addresses(&pod(status.clone())), expected, "{status}");
        }
    }

    #[test]
    fn the_report_is_the_termination_message() {
        assert_eq!(report(&container(json!({"running": {}}))), None);
        let ended =
            json!({"terminated": {"exitCode": 0, "message": json!({"samples": [], "milliseconds": 3}).to_string()}});
        assert_eq!(report(&container(ended)).unwrap().unwrap().milliseconds, 3);
        let failed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let error = report(&container(failed)).unwrap().unwrap_err();
        assert!(error.contains("OOMKilled") && error.contains("137"), "{error}");
    }

    #[test]
    fn the_problem_of_a_pod_that_waits() {
        let pulling = container(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}));
        assert_eq!(problem(&pulling), "ErrImagePull: not found");
        let never = container(json!({"waiting": {"reason": "ErrImageNeverPull"}}));
        assert!(is_hopeless(&never) && !is_hopeless(&pulling));
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"});
        assert_eq!(
            problem(&pod(json!({"phase": "Pending", "conditions": [condition]}))),
            "Unschedulable: 0/3 nodes"
        );
        let evicted = pod(json!({"phase": "Failed", "reason": "DeadlineExceeded"}));
        assert_eq!(problem(&evicted), "its phase is Failed DeadlineExceeded");
    }
}
