use super::*;
use crate::network_probe::ProbeCommand;
use clap::{Parser, Subcommand};

/// Parses the arguments of a container as the program does.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    #[command(subcommand)]
    Probe(ProbeCommand),
}

fn settings() -> ProbeSettings {
    ProbeSettings {
        namespace: "probes".into(),
        image: "operator:1".into(),
        image_pull_policy: "Always".into(),
        ..ProbeSettings::default()
    }
}

fn policy(probe: &Probe<'_>) -> NetworkPolicy {
    let mut policy = probe.ingress_policy();
    policy.metadata.uid = Some("u".into());
    policy
}

fn command(pod: &Pod) -> ProbeCommand {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let words = container.command.iter().chain(&container.args).flatten();
    let Role::Probe(command) = Cli::try_parse_from(words).unwrap().role;
    command
}

#[test]
fn the_program_understands_the_arguments_of_both_pods() {
    let settings = settings();
    let probe = Probe {
        settings: &settings,
        token: "0123456789abcdef",
    };
    let owner = policy(&probe);
    let ProbeCommand::Serve(serve) = command(&probe.server(&owner)) else {
        panic!("the server serves");
    };
    let addresses = ["10.0.0.1".to_owned(), "2001:db8::1".to_owned()];
    let ProbeCommand::Connect(connect) = command(&probe.client(&addresses, &owner)) else {
        panic!("the client connects");
    };
    assert_eq!(
        (serve.token.as_str(), connect.token.as_str()),
        (probe.token, probe.token)
    );
    let read: Vec<String> = connect.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(read, addresses);
}

/// Each of the denied ports is denied by one policy only, so that each direction is tested by itself.
#[test]
fn each_policy_denies_one_port_that_the_other_allows() {
    let settings = settings();
    let probe = Probe {
        settings: &settings,
        token: "0123456789abcdef",
    };
    let owner = policy(&probe);
    let numbers = |ports: &Option<Vec<NetworkPolicyPort>>| -> Vec<i32> {
        let ports = ports.iter().flatten().filter_map(|p| p.port.clone());
        ports
            .map(|port| match port {
                IntOrString::Int(number) => number,
                IntOrString::String(name) => panic!("{name}"),
            })
            .collect()
    };
    let (ingress, egress) = (
        probe.ingress_policy().spec.unwrap(),
        probe.egress_policy(&owner).spec.unwrap(),
    );
    let allowed = i32::from(ALLOWED_PORT);
    assert_eq!(
        numbers(&ingress.ingress.unwrap()[0].ports),
        [allowed, i32::from(EGRESS_DENIED_PORT)]
    );
    assert_eq!(
        numbers(&egress.egress.unwrap()[0].ports),
        [allowed, i32::from(INGRESS_DENIED_PORT)]
    );
    assert_eq!(
        (ingress.policy_types.unwrap(), egress.policy_types.unwrap()),
        (vec!["Ingress".to_owned()], vec!["Egress".to_owned()])
    );
    let selects = |selector: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>, pod: &Pod| {
        let wanted = selector.and_then(|s| s.match_labels).unwrap();
        let labels = pod.metadata.labels.as_ref().unwrap();
        wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let (server, client) = (probe.server(&owner), probe.client(&[], &owner));
    assert!(selects(ingress.pod_selector.clone(), &server) && !selects(ingress.pod_selector, &client));
    assert!(selects(egress.pod_selector.clone(), &client) && !selects(egress.pod_selector, &server));
}

#[test]
fn nothing_of_a_check_outlives_its_first_policy_or_its_deadline() {
    let settings = settings();
    let probe = Probe {
        settings: &settings,
        token: "0123456789abcdef",
    };
    let owner = policy(&probe);
    let owners = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        let owner = &meta.owner_references.as_ref().unwrap()[0];
        (owner.kind.clone(), owner.uid.clone(), owner.block_owner_deletion)
    };
    let expected = ("NetworkPolicy".to_owned(), "u".to_owned(), None);
    assert_eq!(owners(&probe.egress_policy(&owner).metadata), expected);
    for pod in [probe.server(&owner), probe.client(&[], &owner)] {
        assert_eq!(owners(&pod.metadata), expected);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert!(
            !labels.contains_key(crate::api::LABEL_MANAGED_BY) && !labels.contains_key("app.kubernetes.io/part-of"),
            "neither a sandbox's pod nor a peer of sandboxes"
        );
        let spec = pod.spec.unwrap();
        assert_eq!(spec.active_deadline_seconds, Some(DEADLINE_SECONDS));
        assert_eq!(spec.automount_service_account_token, Some(false));
    }
}
