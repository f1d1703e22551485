"""A sandbox that sends from its first instruction on: nothing may arrive before its policy holds.

FIRST_MOMENT sets the number of sandboxes. A few are enough to notice a mistake; to measure, take 50.
"""

import json
import os
import subprocess
import time
import uuid

import pytest
from conftest import INTERNET, Pod, apply, get, kubectl, pod, sandbox

COUNT = int(os.environ.get("FIRST_MOMENT", "6"))
# Datagrams, as fast as the shell can, then for two seconds more. The stand-in for the internet notes what arrives.
SEND = f"""
for i in {{1..100}}; do echo -n $0-$i > /dev/udp/{INTERNET}/7; done 2> /dev/null
for i in {{101..200}}; do echo -n $0-$i > /dev/udp/{INTERNET}/7; read -t 0.02 <> <(:); done 2> /dev/null
echo sent
exec sleep infinity
"""


def arrived(world, tag):
    url = f"http://{INTERNET}/notes?{tag}"
    out = kubectl("exec", "-n", world["free"].namespace, "free", "--", "python3", "-c", f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())")
    return json.loads(out)


def run(namespace, tag, network, count):
    """Sandboxes that send, until all of them have sent everything."""
    names = [f"{tag}-{i}" for i in range(count)]
    command = ["bash", "-c", SEND]
    apply(*(sandbox(namespace, name, network, command=[*command, name]) for name in names))
    for name in names:
        kubectl("wait", "-n", namespace, f"sbx/{name}", "--for=condition=Ready", "--timeout=240s")
        pod = kubectl("get", "sbx", "-n", namespace, name, "-o", "jsonpath={.status.podName}")
        for line in kubectl("logs", "-f", "-n", namespace, pod, "-c", "main", "--tail=1", "--limit-bytes=5").splitlines():
            assert line == "sent", line
    return names


def test_nothing_arrives_before_the_policy_holds(world, namespaces):
    """In a namespace whose first sandbox this is, and in one that has others."""
    new = f"network-tests-new-{uuid.uuid4().hex[:6]}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": new}})
    try:
        for namespace, network in ((new, {"egress": {"mode": "None"}}), (namespaces[0], {"egress": {"mode": "None"}})):
            tag = f"denied-{uuid.uuid4().hex[:6]}"
            run(namespace, tag, network, COUNT // 2)
            leaked = arrived(world, tag)
            print(f"{namespace}: {COUNT // 2} sandboxes, {len(leaked)} datagrams arrived")
            assert leaked == []
            # Many of them fill a small node.
            kubectl("delete", "sbx", "-n", namespace, *(f"{tag}-{i}" for i in range(COUNT // 2)), "--wait=false")
        # The same without the denial: the datagrams arrive, from the first on.
        tag = f"allowed-{uuid.uuid4().hex[:6]}"
        (name,) = run(new, tag, None, 1)
        notes = arrived(world, tag)
        print(f"allowed: {len(notes)} datagrams, the first is {notes[0] if notes else None}")
        assert f"{name}-200" in notes
    finally:
        kubectl("delete", "namespace", new, "--wait=false")


def on_node(*command):
    (node,) = (n["metadata"]["name"] for n in get("nodes")["items"] if "type" not in n["metadata"]["labels"])
    return subprocess.run(["docker", "exec", node, *command], capture_output=True, text=True, check=True).stdout


# The network plugin's record of addresses. If the last one is missing, it assigns the lowest free address.
ASSIGNED = "/run/cni-ipam-state/kind"


# Measures what an engine lets through. This is not a promise yet, and engines differ, so the test is not part of `make test`.
@pytest.mark.skipif("FIRST_MOMENT" not in os.environ, reason="only measured")
@pytest.mark.xfail(reason="the engine applies the policies of a finished pod with the same address until it sees the new pod's")
def test_nothing_arrives_from_an_address_that_a_finished_pod_had(world, namespaces):
    here = namespaces[0]
    on_node("rm", "-f", f"{ASSIGNED}/last_reserved_ip.0")
    apply(pod(here, "finished", ["true"], restartPolicy="Never"))
    kubectl("wait", "-n", here, "pod/finished", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    address = Pod(here, "finished").ip
    end = time.monotonic() + 60
    while address in on_node("ls", ASSIGNED).split():
        assert time.monotonic() < end, f"{address} is not free"
        time.sleep(0.2)
    on_node("rm", "-f", f"{ASSIGNED}/last_reserved_ip.0")
    tag = f"reused-{uuid.uuid4().hex[:6]}"
    (name,) = run(here, tag, {"egress": {"mode": "None"}}, 1)
    # Not the expected failure: the test would show nothing.
    if Pod(here, get("sbx", "-n", here, name)["status"]["podName"]).ip != address:
        pytest.skip(f"another pod was assigned {address}")
    leaked = arrived(world, tag)
    print(f"{len(leaked)} datagrams arrived")
    assert leaked == []
