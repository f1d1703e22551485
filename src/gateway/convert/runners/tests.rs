use super::*;
use serde_json::{Value, json};

fn runners() -> RunnerSet {
    let text = "runners: [{id: cpu, nodeLabels: {pool: cpu}}, \
        {id: gpu, groupId: big, nodeLabels: {pool: gpu, zone: a}, tolerations: [{key: gpu, operator: Exists}]}]";
    let config: Config = serde_saphyr::from_str(text).unwrap();
    assert_eq!(config.check(), Ok(()));
    RunnerSet::new(&config)
}

fn required(w: &Workload) -> Value {
    let affinity = w.pod.affinity.as_ref().unwrap().node_affinity.as_ref().unwrap();
    json!(affinity.required_during_scheduling_ignored_during_execution)
}

#[test]
fn the_whole_cluster_as_a_runner_restricts_nothing() {
    let runners = RunnerSet::new(&Config::default());
    let mut w = Workload::default();
    assert!(runners.place(&mut w, &["default".into()]) && runners.place(&mut w, &[]));
    assert_eq!(w, Workload::default());
    assert!(!runners.place(&mut w, &["other".into()]));
}

#[test]
fn a_workload_is_restricted_to_the_nodes_of_the_chosen_runners() {
    let (runners, mut w) = (runners(), Workload::default());
    assert!(runners.place(&mut w, &["gpu".into()]));
    let gpu = json!([{"key": "pool", "operator": "In", "values": ["gpu"]}, {"key": "zone", "operator": "In", "values": ["a"]}]);
    assert_eq!(required(&w), json!({"nodeSelectorTerms": [{"matchExpressions": gpu}]}));
    assert_eq!(w.pod.tolerations.as_ref().unwrap().len(), 1);
    let mut w: Workload = serde_json::from_value(
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}, {"matchFields": []}]}}}}),
    )
    .unwrap();
    assert!(runners.place(&mut w, &[]));
    let keys = |term: &Value| -> Vec<String> {
        let expressions = term["matchExpressions"].as_array().unwrap();
        expressions
            .iter()
            .map(|e| e["key"].as_str().unwrap().to_owned())
            .collect()
    };
    let keys: Vec<Vec<String>> = required(&w)["nodeSelectorTerms"]
        .as_array()
        .unwrap()
        .iter()
        .map(keys)
        .collect();
    assert_eq!(
        keys,
        [
            vec!["disk", "pool"],
            vec!["disk", "pool", "zone"],
            vec!["pool"],
            vec!["pool", "zone"]
        ]
    );
}
