"""Listing and finding sandboxes."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import cwsandbox
from conftest import SMALL, eventually, kubectl
from cwsandbox import Sandbox, SandboxStatus, Session


def test_filters_by_tags_and_state(tag, defaults):
    first = Sandbox.run(tags=["first"], defaults=defaults)
    second = Sandbox.run(tags=["second"], defaults=defaults)
    for sandbox in (first, second):
        sandbox.wait()

    def ids(**filters):
        return {s.sandbox_id for s in Sandbox.list(**filters).result()}

    both = {first.sandbox_id, second.sandbox_id}
    assert ids(tags=[tag]) == both
    assert ids(tags=[tag, "first"]) == {first.sandbox_id}
    assert ids(tags=[tag], status="running") == both
    first.stop().result()
    assert ids(tags=[tag]) == {second.sandbox_id}
    assert ids(tags=[tag], show_terminated=True) == both
    assert ids(tags=[tag], status="terminated") == {first.sandbox_id}
    second.stop().result()


def test_clean_up_by_age(tag, defaults):
    old = Sandbox.run(defaults=defaults).wait()
    # Times have a precision of seconds.
    limit = old.started_at + timedelta(seconds=1)
    eventually(lambda: datetime.now(UTC).replace(tzinfo=limit.tzinfo) > limit)
    young = Sandbox.run(defaults=defaults).wait()
    (found,) = [s for s in Sandbox.list(tags=[tag]).result() if s.started_at < limit]
    assert found.sandbox_id == old.sandbox_id
    Sandbox.delete(found.sandbox_id).result()
    # Another replica may see the change a moment later.
    eventually(lambda: {s.sandbox_id for s in Sandbox.list(tags=[tag], status="running").result()} == {young.sandbox_id})
    eventually(lambda: Sandbox.from_id(old.sandbox_id).result().status == SandboxStatus.TERMINATED)


def test_another_process_can_use_the_sandbox(defaults):
    sandbox = Sandbox.run(defaults=defaults).wait()
    code = f"from cwsandbox import Sandbox; print(Sandbox.from_id('{sandbox.sandbox_id}').result().exec(['echo', 'hi']).result().stdout, end='')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "hi\n"
    with Session() as session:
        session.adopt(Sandbox.from_id(sandbox.sandbox_id).result())
    assert sandbox.get_status() == SandboxStatus.TERMINATED


def test_the_sdk_can_use_a_sandbox_that_kubectl_created(tag):
    import json

    name = f"k-{tag}"
    spec = {"tags": [tag], "maxLifetimeSeconds": 300, "resources": SMALL}
    manifest = {"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec}
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    sandbox = Sandbox.from_id(name).result().wait()
    assert sandbox.exec(["echo", "hi"]).result().stdout == "hi\n"
    assert name in {s.sandbox_id for s in Sandbox.list(tags=[tag]).result()}
    sandbox.stop().result()


def test_dozens_of_sandboxes_at_once(defaults):
    sandboxes = [Sandbox.run(defaults=defaults) for _ in range(24)]
    results = cwsandbox.results([s.exec(["sh", "-c", "echo $CW_SANDBOX_ID"]) for s in sandboxes])
    assert [r.stdout.strip() for r in results] == [s.sandbox_id for s in sandboxes]
    cwsandbox.results([s.stop() for s in sandboxes])


def test_await(defaults):
    async def work():
        async with Sandbox.run(defaults=defaults) as sandbox:
            return (await sandbox.exec(["echo", "async"])).stdout

    assert asyncio.run(work()) == "async\n"


def test_functions(tag):
    with Session({"tags": (tag,), "container_image": "python:3.11"}) as session:

        @session.function()
        def double(x):
            if x < 0:
                raise ValueError("negative")
            return x * 2

        assert double.remote(21).result() == 42
        assert [r.result() for r in double.map([(1,), (2,)])] == [2, 4]
        try:
            double.remote(-1).result()
        except Exception as error:  # noqa: BLE001 - the SDK wraps it in a class of its own
            assert "negative" in str(error)
        else:
            raise AssertionError("the exception was lost")


def test_a_record_outlives_its_pod(defaults):
    sandbox = Sandbox.run("sh", "-c", "exit 0", defaults=defaults)
    sandbox.wait_until_complete().result()
    kubectl("delete", "pods", "-l", f"sandbox-operator.dev/sandbox={sandbox.sandbox_id}")
    assert eventually(lambda: Sandbox.from_id(sandbox.sandbox_id).result().status) == SandboxStatus.COMPLETED
