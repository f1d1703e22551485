//! What a sandbox is like inside, seen from inside.

use crate::release::image;
use crate::support::{Case, TestNamespace, light, outcome, sh, with};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use serde_json::{Value, json};

/// What depends on how the agent gets in: every kind of user and of root file system, and an image (the operator's own)
/// that has nothing but one static program. All must succeed.
pub fn agent_cases(image: &str) -> Vec<Case> {
    let case = |script: &str, more: Value| with(light(sh(script)), more);
    let program = light(json!({"containerImage": image, "command": ["/sandbox-operator", "--version"]}));
    let cases = vec![
        (
            "root-is-nobody",
            case(
                "test $(id -u) = 0 && test $(awk '{print $2}' /proc/self/uid_map) != 0",
                json!({}),
            ),
        ),
        (
            "non-root",
            case(
                "test $(id -u) = 1000",
                json!({"runAsUser": 1000, "securityProfile": "Restricted"}),
            ),
        ),
        (
            "read-only",
            case(
                "! touch /x 2>/dev/null && touch /dev/shm/x",
                json!({"readOnlyRootFilesystem": true}),
            ),
        ),
        (
            "host-users",
            case(
                "test $(awk '{print $2}' /proc/self/uid_map) = 0",
                json!({"hostUsers": true}),
            ),
        ),
        ("no-shell", program.clone()),
        (
            "no-shell-read-only",
            with(program, json!({"readOnlyRootFilesystem": true, "runAsUser": 1000})),
        ),
    ];
    cases.into_iter().map(succeeds).collect()
}

fn succeeds((name, spec): (&'static str, Value)) -> Case {
    (name, spec, ("COMPLETED", "Completed", Some(0)))
}

/// A script that must succeed, and the spec in which it runs.
fn cases() -> Vec<(&'static str, Value)> {
    let case = |script: &str, more: Value| with(light(sh(script)), more);
    vec![
        (
            "identity",
            case(
                "test $CW_SANDBOX_ID = identity && test $(hostname) = identity",
                json!({}),
            ),
        ),
        (
            "own-id-wins",
            case(
                "test $CW_SANDBOX_ID = own-id-wins",
                json!({"env": [{"name": "CW_SANDBOX_ID", "value": "forged"}]}),
            ),
        ),
        (
            "no-token",
            case("! ls /var/run/secrets/kubernetes.io 2>/dev/null", json!({})),
        ),
        (
            "process-limit",
            case(
                "test $(awk '/Max processes/ {print $3}' /proc/self/limits) = 4096",
                json!({}),
            ),
        ),
        (
            "restricted",
            case(
                "grep -q '^CapEff:.0*$' /proc/self/status",
                json!({"securityProfile": "Restricted"}),
            ),
        ),
        (
            "baseline",
            case("chown 1000 /tmp && su -s /bin/sh nobody -c true", json!({})),
        ),
        // The agent is PID 1 and reaps what is left behind: no zombie stays.
        (
            "reaped",
            case(
                "(sleep 0.1 &) ; sleep 1; ! grep -l '^State:.Z' /proc/[0-9]*/status",
                json!({}),
            ),
        ),
        (
            "image-entrypoint",
            light(json!({"entrypoint": "Image", "args": ["python3", "-c", "import os; assert os.getpid() == 1"]})),
        ),
        (
            "expanded",
            case(
                "test \"$B\" = '1 $$(A)'",
                json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A) $$(A)"}]}),
            ),
        ),
        (
            "file-mode",
            case(
                "test $(stat -Lc %a /a/b/c) = 640 && test $(cat /a/b/c) = text",
                json!({"files": [{"path": "/a/b/c", "content": "text", "mode": 0o640}]}),
            ),
        ),
        (
            "working-dir",
            case("test $(pwd) = /some/where", json!({"workingDir": "/some/where"})),
        ),
        (
            "no-dns",
            case(
                "grep -q 127.0.0.1 /etc/resolv.conf",
                json!({"network": {"egress": {"mode": "None"}}}),
            ),
        ),
        (
            "sidecar",
            case(
                "for i in $(seq 100); do python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8000\")' && test -e /shared/mark && exit 0; sleep 0.1; done; exit 1",
                json!({
                    "volumes": [{"name": "shared", "mountPath": "/shared", "readOnly": true, "scratch": {"size": "1Mi"}}],
                    "sidecars": [{
                        "name": "server", "image": "python:3.11", "command": ["sh", "-c", "touch /out/mark; exec python3 -m http.server 8000"],
                        "mounts": [{"name": "shared", "mountPath": "/out"}], "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}},
                    }],
                }),
            ),
        ),
    ]
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn it_is_inside_as_the_spec_says() {
    let ns = TestNamespace::new("shapes").await;
    let image = image(&ns).await;
    let wrong = ns
        .run_all(cases().into_iter().map(succeeds).chain(agent_cases(&image)))
        .await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_claim_binds_and_a_declared_port_gets_a_service() {
    let ns = TestNamespace::new("claim").await;
    ns.create::<PersistentVolumeClaim>(json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}},
    }))
    .await;
    let volumes = json!([{"name": "data", "mountPath": "/data", "persistentVolumeClaim": {"claimName": "data"}}]);
    ns.sandbox(
        "writer",
        with(sh("echo kept > /data/file"), json!({"volumes": volumes})),
    )
    .await;
    assert_eq!(outcome(&ns.ended("writer").await), ("COMPLETED", "Completed", Some(0)));
    let ports = json!([{"name": "http", "port": 8000}]);
    ns.sandbox(
        "reader",
        with(sh("grep kept /data/file"), json!({"volumes": volumes, "ports": ports})),
    )
    .await;
    let status = ns.ended("reader").await;
    assert_eq!(outcome(&status), ("COMPLETED", "Completed", Some(0)));
    let service = ns.api::<Service>().get("reader").await.unwrap();
    assert_eq!(service.spec.unwrap().ports.unwrap()[0].port, 8000);
    ns.end().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_status_names_the_service_and_its_urls_and_a_foreign_service_is_left_alone() {
    let ns = TestNamespace::new("service").await;
    let foreign: Service = ns
        .create(json!({"metadata": {"name": "taken"}, "spec": {"ports": [{"port": 1}]}}))
        .await;
    let ports = json!({"ports": [{"name": "http", "port": 8000}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
    let mut names = vec![];
    for sandbox in ["free", "taken"] {
        ns.sandbox(sandbox, ports.clone()).await;
        let status = ns.running(sandbox).await;
        let name = status.service_name.clone().unwrap();
        let host = format!("{name}.{}.svc", ns.namespace);
        assert_eq!(status.urls, [format!("http://{host}:8000"), format!("udp://{host}:53")]);
        let service = ns.api::<Service>().get(&name).await.unwrap();
        assert_eq!(service.spec.unwrap().ports.unwrap().len(), 2);
        names.push((name, status.pod_name.unwrap()));
    }
    assert_eq!(names[0].0, "free");
    assert_eq!(names[1].0, names[1].1, "the name of the pod instead");
    let kept = ns.api::<Service>().get("taken").await.unwrap();
    assert_eq!((kept.metadata.uid, kept.spec), (foreign.metadata.uid, foreign.spec));
    ns.stop("free").await;
    assert_eq!(ns.ended("free").await.urls, Vec::<String>::new());
    ns.end().await;
}
