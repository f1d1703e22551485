"""Rotation of the agents' keys while sandboxes run."""

import json
import time

import pytest
from conftest import GATEWAY, eventually, kubectl, restart
from cwsandbox import Sandbox, SandboxError

pytestmark = pytest.mark.alone

SECRET = "sandbox-operator-agent-keys"
DAY = 24 * 3600


def keys():
    return json.loads(kubectl(*GATEWAY, "get", "secret", SECRET, "-o", "json"))["data"]


def put(data):
    # A merge patch with null removes the others.
    removed = {name: None for name in keys() if name not in data}
    kubectl(*GATEWAY, "patch", "secret", SECRET, "--type", "merge", "-p", json.dumps({"data": {**data, **removed}}))


def key_id(seconds_ago):
    """The ID of a key that was created so long ago."""
    return f"k{int(time.time()) - seconds_ago:012}"


def key_of_pod(sandbox):
    pod = kubectl("get", "sbx", sandbox.sandbox_id, "-o", "jsonpath={.status.podName}")
    return json.loads(kubectl("get", "pod", pod, "-o", "json"))["metadata"]["annotations"]["sandbox-operator.dev/agent-key"]


def answers(sandbox):
    try:
        return sandbox.exec(["echo", "hello"], timeout_seconds=10).result().stdout == "hello\n"
    except SandboxError:
        return False


@pytest.fixture(autouse=True)
def restore_keys():
    """During the test the agents of other sandboxes cannot be called."""
    before = keys()
    yield
    put({**keys(), **before})


def test_a_pod_is_reachable_after_rotations_and_its_key_is_deleted_with_it(defaults):
    month, week, hours = key_id(30 * DAY), key_id(8 * DAY), key_id(4000)
    # Instead of waiting for weeks, the test gives the keys the ages that they would have.
    put({month: max(keys().items())[1]})
    restart("operator")
    restart("gateway")
    # The newest key is too old, so the operator creates another.
    fresh = eventually(lambda: [key for name, key in keys().items() if name != month])
    old = Sandbox.run(defaults=defaults).wait()
    assert key_of_pod(old) == month, "the new key is not used before every replica of the gateway has it"
    assert answers(old)

    put({month: keys()[month], week: fresh[0], hours: fresh[0]})
    restart("operator")
    young = Sandbox.run(defaults=defaults).wait()
    assert key_of_pod(young) == hours
    # The kubelet updates mounted Secrets with a delay.
    eventually(lambda: answers(young), 180)
    assert answers(old)
    eventually(lambda: set(keys()) == {month, hours})

    kubectl("delete", "sbx", old.sandbox_id, "--wait")
    kubectl("wait", "--for=delete", "pod", "-l", f"sandbox-operator.dev/sandbox={old.sandbox_id}", "--timeout", "60s")
    restart("operator")
    eventually(lambda: set(keys()) == {hours})
    assert answers(young)
    young.stop().result()
