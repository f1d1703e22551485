"""What the tests share: a tag per test, a sandbox to use, kubectl, and that nothing is left running."""

import json
import os
import subprocess
import time
import uuid

import pytest
from cwsandbox import Sandbox, SandboxDefaults

NAMESPACE = os.environ["SDK_TEST_NAMESPACE"]
# The test node has no other image with a shell.
IMAGE = "python:3.11"


def kubectl(*args, stdin=None, check=True):
    """kubectl in the tests' namespace; its output."""
    done = subprocess.run(["kubectl", "-n", NAMESPACE, *args], input=stdin, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr}")
    return done.stdout


def apply(manifest):
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


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
    left = [s for s in Sandbox.list(tags=[mark]).result()]
    for sandbox in left:
        sandbox.stop(graceful_shutdown_seconds=0, missing_ok=True).result()


@pytest.fixture
def defaults(tag):
    return SandboxDefaults(tags=(tag,), max_lifetime_seconds=300)


@pytest.fixture(scope="module")
def box():
    """A sandbox that stays alive, for tests that leave no trace in it."""
    with Sandbox.run(tags=["shared"], max_lifetime_seconds=900) as sandbox:
        yield sandbox.wait()
