"""What the tests share: a tag per test, a sandbox to use, kubectl, keys, and that nothing is left running."""

import json
import os
import socket
import subprocess
import time
import uuid
from urllib.parse import urlsplit

import pytest
from cwsandbox import Sandbox, SandboxDefaults, results

NAMESPACE = os.environ["SDK_TEST_NAMESPACE"]
ELSEWHERE = f"{NAMESPACE}-other"
# What the test node has.
IMAGE = "python:3.11"
OTHER_IMAGE = "redis:7"
# So that many fit on a small node.
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
GATEWAY = ["-n", "sandbox-operator"]
OURS = "app.kubernetes.io/name=sandbox-operator"


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: disturbs other tests; run.sh runs it after them")


def kubectl(*args, stdin=None, check=True):
    """kubectl in the tests' namespace, where `args` name no other; its output."""
    done = subprocess.run(["kubectl", "-n", NAMESPACE, *args], input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout


def apply(manifest):
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def key_of(account, namespace=NAMESPACE, audience="sandbox-operator.dev"):
    """A ServiceAccount's token; without audience one for the API server."""
    audience = ["--audience", audience] if audience else []
    return kubectl("-n", namespace, "create", "token", account, *audience).strip()


def restart(component):
    """A new pod for each replica of the operator or the gateway; the old ones are gone."""
    selector = ["-l", f"{OURS},app.kubernetes.io/component={component}"]
    before = kubectl(*GATEWAY, "get", "pods", *selector, "-o", "name").split()
    kubectl(*GATEWAY, "rollout", "restart", "deployment", *selector)
    kubectl(*GATEWAY, "rollout", "status", "deployment", *selector, "--timeout", "120s")
    kubectl(*GATEWAY, "wait", "--for=delete", *before, "--timeout", "60s")


def gateway_pods():
    """The gateway's pods that serve, and their addresses."""
    selector = f"{OURS},app.kubernetes.io/component=gateway"
    pods = json.loads(kubectl(*GATEWAY, "get", "pods", "-l", selector, "-o", "json"))["items"]

    def serves(pod):
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        return ready and "deletionTimestamp" not in pod["metadata"]

    return {p["metadata"]["name"]: p["status"]["podIP"] for p in pods if serves(p)}


def eventually(what, seconds=60.0):
    """The first true value of `what()`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def tag(request):
    """A tag that only this test's sandboxes carry; they are stopped at its end."""
    mark = f"t-{uuid.uuid4().hex[:12]}"
    yield mark
    left = Sandbox.list(tags=[mark]).result()
    results([s.stop(graceful_shutdown_seconds=0, missing_ok=True) for s in left])


@pytest.fixture
def defaults(tag):
    return SandboxDefaults(tags=(tag,), max_lifetime_seconds=300, resources=SMALL)


@pytest.fixture(scope="session")
def box():
    """A sandbox that stays alive, for tests that leave no trace in it."""
    with Sandbox.run(tags=["shared"], max_lifetime_seconds=900, resources=SMALL) as sandbox:
        yield sandbox.wait()


@pytest.fixture(scope="session")
def replicas():
    """Two addresses, each of which leads to another replica of the gateway."""
    pods = sorted(gateway_pods().items())[:2]
    assert len(pods) == 2, "the chart's two replicas are needed"
    # Of this run only: a node may still lead those of another elsewhere.
    services = [f"replica-{uuid.uuid4().hex[:8]}" for _ in pods]
    yield [address_of(service, ip) for service, (_, ip) in zip(services, pods, strict=True)]
    kubectl("delete", "service", *services, "--wait=false")


def address_of(service, ip):
    """A node port that leads to this one pod."""
    port = {"name": "grpc", "port": 8080, "protocol": "TCP"}
    apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": service}, "spec": {"type": "NodePort", "ports": [port]}})
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv6" if ":" in ip else "IPv4",
        "ports": [port],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": True}}],
    }
    apply(endpoints)
    node = urlsplit(os.environ["CWSANDBOX_BASE_URL"]).hostname
    port = int(kubectl("get", "service", service, "-o", "jsonpath={.spec.ports[0].nodePort}"))

    def answers():
        try:
            socket.create_connection((node, port), timeout=2).close()
        except OSError:
            return False
        return True

    eventually(answers)
    return f"{node}:{port}"
