"""The pods of these tests: sandboxes that attack, sandboxes and other pods that are attacked, and one without any policy."""

import json
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
IMAGE = "python:3.11"
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}
OURS = "app.kubernetes.io/name=sandbox-operator"
RELEASE = "sandbox-operator"

# Of the stand-in for the internet, see hack/cluster/network/internet.sh.
INTERNET, INTERNET_TOO, INTERNET_DNS = "192.31.196.1", "192.31.196.2", "192.31.196.53"
METADATA = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200"]
PRIVATE = ["10.200.0.10", "172.31.0.10", "192.168.200.10", "100.64.0.10", "169.254.10.10", "198.18.0.10", "203.0.113.10"]

# Ports of serve.py.
HTTP, UDP = 8000, 8001
HOST_HTTP, HOST_UDP = 18000, 18001
AGENT = 8971


def kubectl(*args, stdin=None, check=True):
    done = subprocess.run(["kubectl", *args], input=stdin, capture_output=True, text=True, timeout=180)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(args[:6])}: {done.stderr}")
    return done.stdout


def get(*args):
    return json.loads(kubectl("get", *args, "-o", "json"))


def apply(*objects):
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def serve(http, udp, *address):
    return ["python3", "-c", (HERE / "serve.py").read_text(), str(http), str(udp), *address]


def sandbox(namespace, name, network=None, session=None, command=None, **more):
    spec = {"containerImage": IMAGE, "maxLifetimeSeconds": 900, "resources": SMALL, "network": network, "sessionName": session, "command": command, **more}
    return {
        "apiVersion": "sandbox-operator.dev/v1alpha1",
        "kind": "Sandbox",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {field: value for field, value in spec.items() if value is not None},
    }


def pod(namespace, name, command, **spec):
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command}
    container["env"] = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, **spec},
    }


class Pod:
    """A running pod, and its address."""

    def __init__(self, namespace, name):
        self.namespace, self.name = namespace, name
        self.ip = get("pod", "-n", namespace, name)["status"]["podIP"]

    def attempts(self, attempts):
        """The outcome of each of these connections: (kind, host, port)."""
        script = (HERE / "probe.py").read_text()
        out = kubectl("exec", "-i", "-n", self.namespace, self.name, "-c", "main", "--", "python3", "-c", script, stdin=json.dumps(attempts))
        return dict(zip(attempts, json.loads(out), strict=True))


def is_reached(outcome):
    """A refusal is an answer of the other side, too."""
    return outcome.split()[0] in ("connected", "answered", "refused")


def by_outcome(attempts, reached):
    """Attempts whose outcome `is_reached` is as given, with the outcome."""
    return {a: outcome for a, outcome in attempts.items() if is_reached(outcome) == reached}


@pytest.fixture(scope="session")
def namespaces():
    """Two namespaces of this run, without any object of an earlier one."""
    run = uuid.uuid4().hex[:6]
    names = [f"network-tests-{run}", f"network-tests-other-{run}"]
    apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names))
    yield names
    kubectl("delete", "sandboxes.sandbox-operator.dev", "--all", "-n", names[0], "--wait=false")
    kubectl("delete", "namespace", *names, "--wait=false")


def rules(*all_rules):
    return {"egress": {"mode": "Rules", "rules": list(all_rules)}}


# Targets accept everything that rules can allow, so that an attack can fail only because of the attacker's own policy.
OPEN = {"ingress": {"rules": [{"cidr": "0.0.0.0/0", "ports": [{"port": HTTP}, {"port": UDP, "protocol": "UDP"}, {"port": AGENT}, {"port": HTTP + 2}]}]}}

ATTACKERS = {
    "default": None,
    "none": {"egress": {"mode": "None"}},
    "rules": rules({"cidr": f"{INTERNET}/32", "ports": [{"port": 80}]}),
    # Every address that a rule can allow.
    "widest": rules({"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}),
}
VICTIMS = {"same-session": "one", "other-session": "two", "other-namespace": None}


@pytest.fixture(scope="session")
def world(namespaces):
    """All pods by name."""
    here, elsewhere = namespaces
    session = {"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxSession", "spec": {}}
    sessions = [session | {"metadata": {"name": name, "namespace": here}} for name in ("one", "two")]
    where = {name: elsewhere if name == "other-namespace" else here for name in VICTIMS}
    server = serve(HTTP, UDP)
    victims = [sandbox(where[name], name, OPEN, of, server) for name, of in VICTIMS.items()]
    closed = sandbox(here, "closed", None, None, server)
    attackers = [sandbox(here, name, network, "one") for name, network in ATTACKERS.items()]
    # In a user namespace there are no sockets for ICMP.
    attackers.append(sandbox(here, "host-users", None, "one", hostUsers=True))
    pods = [
        pod(here, "free", ["sleep", "infinity"]),
        pod(here, "server", server),
        # On the node's address: replies would otherwise come from the address that the node has towards its pods.
        pod(here, "host", serve(HOST_HTTP, HOST_UDP, "$(NODE)"), hostNetwork=True),
    ]
    ports = [{"name": "http", "port": 80, "targetPort": HTTP}, {"name": "udp", "port": 81, "targetPort": UDP, "protocol": "UDP"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server", "namespace": here},
        "spec": {"type": "NodePort", "selector": {"app": "server"}, "ports": ports},
    }
    sandboxes = [*victims, closed, *attackers]
    apply(*sessions, *sandboxes, *pods, service)

    def ready(namespace, kind):
        kubectl("wait", "-n", namespace, kind, "--all", "--for=condition=Ready", "--timeout=120s")

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda w: ready(*w), [(here, "sbx"), (here, "pods"), (elsewhere, "sbx")]))
    found = {}
    for s in sandboxes:
        meta = s["metadata"]
        name = get("sbx", "-n", meta["namespace"], meta["name"])["status"]["podName"]
        found[meta["name"]] = Pod(meta["namespace"], name)
    return found | {p["metadata"]["name"]: Pod(here, p["metadata"]["name"]) for p in pods}


@pytest.fixture(scope="session")
def cluster(namespaces):
    """Addresses and ports of the cluster itself."""
    node = next(n for n in get("nodes")["items"] if "type" not in n["metadata"]["labels"])
    node_ip = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")

    def service(namespace, name):
        return get("service", "-n", namespace, name)["spec"]

    def pods_of(component):
        all_pods = get("pods", "-n", RELEASE, "-l", f"{OURS},app.kubernetes.io/component={component}")["items"]
        return [p["status"]["podIP"] for p in all_pods if p["status"].get("podIP") and "deletionTimestamp" not in p["metadata"]]

    return {
        "node": node_ip,
        "api": service("default", "kubernetes")["clusterIP"],
        "dns": service("kube-system", "kube-dns")["clusterIP"],
        "gateway": service(RELEASE, f"{RELEASE}-gateway"),
        "gateway pods": pods_of("gateway"),
        "operator pods": pods_of("operator"),
        "server": lambda: service(namespaces[0], "server"),
    }
