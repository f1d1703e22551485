"""The keys of the agents are replaced while sandboxes live."""

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
    # What is not named any more goes.
    gone = {name: None for name in keys() if name not in data}
    kubectl(*GATEWAY, "patch", "secret", SECRET, "--type", "merge", "-p", json.dumps({"data": {**data, **gone}}))


def made(seconds_ago):
    """The id of a key that was made so long ago."""
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
def put_back():
    """Sandboxes that were there before cannot be reached until the end."""
    before = keys()
    yield
    put({**keys(), **before})


def test_a_pod_of_thirty_days_is_reached_after_rotations_and_its_key_goes_with_it(defaults):
    month, week, hours = made(30 * DAY), made(8 * DAY), made(4000)
    # Time cannot be waited for: the keys are given the ages that they would have.
    put({month: max(keys().items())[1]})
    restart("operator")
    restart("gateway")
    # The operator finds its newest key too old, and makes another.
    fresh = eventually(lambda: [key for name, key in keys().items() if name != month])
    old = Sandbox.run(defaults=defaults).wait()
    assert key_of_pod(old) == month, "the new one is not given away before every replica of the gateway has it"
    assert answers(old)

    put({month: keys()[month], week: fresh[0], hours: fresh[0]})
    restart("operator")
    young = Sandbox.run(defaults=defaults).wait()
    assert key_of_pod(young) == hours
    # The kubelet brings a Secret's changes to the gateway's pods in its own time.
    eventually(lambda: answers(young), 180)
    assert answers(old)
    eventually(lambda: set(keys()) == {month, hours})

    kubectl("delete", "sbx", old.sandbox_id, "--wait")
    kubectl("wait", "--for=delete", "pod", "-l", f"sandbox-operator.dev/sandbox={old.sandbox_id}", "--timeout", "60s")
    restart("operator")
    eventually(lambda: set(keys()) == {hours})
    assert answers(young)
    young.stop().result()
