"""Shared fixtures and helpers: a tag per test, which also cleans up, a shared sandbox, kubectl, API keys."""

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
# The images on the test cluster's node.
IMAGE = "python:3.11"
OTHER_IMAGE = "redis:7"
# Many of these fit on a small node.
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}}
GATEWAY = ["-n", "sandbox-operator"]
OURS = "app.kubernetes.io/name=sandbox-operator"


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: disturbs other tests, so run.sh runs it after them")


def kubectl(*args, stdin=None, check=True):
    """Runs kubectl, in the tests' namespace unless `args` name another, and returns its output."""
    done = subprocess.run(["kubectl", "-n", NAMESPACE, *args], input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout


def apply(manifest):
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def key_of(account, namespace=NAMESPACE, audience="sandbox-operator.dev"):
    """A token of a ServiceAccount. With audience None it is for the API server."""
    audience = ["--audience", audience] if audience else []
    return kubectl("-n", namespace, "create", "token", account, *audience).strip()


def restart(component):
    """Restarts operator or gateway and waits until the old pods have been deleted."""
    selector = ["-l", f"{OURS},app.kubernetes.io/component={component}"]
    before = kubectl(*GATEWAY, "get", "pods", *selector, "-o", "name").split()
    kubectl(*GATEWAY, "rollout", "restart", "deployment", *selector)
    kubectl(*GATEWAY, "rollout", "status", "deployment", *selector, "--timeout", "120s")
    kubectl(*GATEWAY, "wait", "--for=delete", *before, "--timeout", "60s")


def gateway_pods():
    """Names and addresses of the gateway's ready pods."""
    selector = f"{OURS},app.kubernetes.io/component=gateway"
    pods = json.loads(kubectl(*GATEWAY, "get", "pods", "-l", selector, "-o", "json"))["items"]

    def is_ready(pod):
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
        return ready and "deletionTimestamp" not in pod["metadata"]

    return {p["metadata"]["name"]: p["status"]["podIP"] for p in pods if is_ready(p)}


def eventually(what, seconds=60.0):
    """Returns the first true value of `what()`. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture
def tag(request):
    """A tag for this test's sandboxes. Those that still run at its end are stopped."""
    mark = f"t-{uuid.uuid4().hex[:12]}"
    yield mark
    left = Sandbox.list(tags=[mark]).result()
    results([s.stop(graceful_shutdown_seconds=0, missing_ok=True) for s in left])


@pytest.fixture
def defaults(tag):
    return SandboxDefaults(tags=(tag,), max_lifetime_seconds=300, resources=SMALL)


@pytest.fixture(scope="session")
def box():
    """A running sandbox for tests that do not change it."""
    with Sandbox.run(tags=["shared"], max_lifetime_seconds=900, resources=SMALL) as sandbox:
        yield sandbox.wait()


@pytest.fixture(scope="session")
def replicas():
    """Addresses of two replicas of the gateway."""
    pods = sorted(gateway_pods().items())[:2]
    assert len(pods) == 2, "the tests need two replicas of the gateway"
    # Unique names: kube-proxy may still route the Services of an earlier run to other pods.
    services = [f"replica-{uuid.uuid4().hex[:8]}" for _ in pods]
    yield [address_of(service, ip) for service, (_, ip) in zip(services, pods, strict=True)]
    kubectl("delete", "service", *services, "--wait=false")


def address_of(service, ip):
    """The address of a node port that leads to this pod only."""
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
