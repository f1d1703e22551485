"""Life cycle of a sandbox."""

import pytest
from conftest import IMAGE, OTHER_IMAGE, eventually, kubectl
from cwsandbox import (
    Sandbox,
    SandboxDefaults,
    SandboxFailedError,
    SandboxNotFoundError,
    SandboxStatus,
    SandboxTerminatedError,
    SandboxValidationError,
    Session,
)


def test_a_with_block_stops_its_sandbox_even_if_it_raises(tag):
    with pytest.raises(RuntimeError):
        with Sandbox.run(tags=[tag]) as sandbox:
            assert sandbox.sandbox_id in repr(sandbox)
            raise RuntimeError("in the block")
    assert Sandbox.from_id(sandbox.sandbox_id).result().get_status() == SandboxStatus.TERMINATED


@pytest.mark.parametrize(("image", "command", "says"), [(IMAGE, "python", "Python 3."), (OTHER_IMAGE, "redis-server", "Redis server v=7.")])
def test_the_requested_image_runs(defaults, image, command, says):
    with Sandbox.run(container_image=image, defaults=defaults) as sandbox:
        assert sandbox.exec([command, "--version"]).result().stdout.startswith(says)


def test_a_successful_script_is_completed(defaults):
    script = {"mount_path": "train.py", "file_content": b"print('trained')"}
    sandbox = Sandbox.run("python", "train.py", mounted_files=[script], defaults=defaults)
    sandbox.wait_until_complete().result()
    assert (sandbox.status, sandbox.returncode) == (SandboxStatus.COMPLETED, 0)
    assert "trained" in "".join(sandbox.stream_logs())


def test_a_missing_script_fails_with_the_exit_code(defaults):
    sandbox = Sandbox.run("python", "train.py", defaults=defaults)
    with pytest.raises(SandboxFailedError, match="exit code 2"):
        sandbox.wait_until_complete().result()
    assert [(c.name, c.exit_code) for c in sandbox.container_statuses] == [("main", 2)]
    assert "can't open file" in "".join(Sandbox.from_id(sandbox.sandbox_id).result().stream_logs())


def test_a_sleeping_sandbox_serves_commands_until_it_is_stopped(defaults):
    sandbox = Sandbox.run("sleep", "infinity", defaults=defaults)
    sandbox.exec(["sh", "-c", "echo one > file"], cwd="/tmp", check=True).result()
    assert sandbox.exec(["cat", "file"], cwd="/tmp").result().stdout == "one\n"
    assert sandbox.exec(["cat", "/tmp/file"]).result().stdout == "one\n"
    sandbox.stop(graceful_shutdown_seconds=2).result()
    with pytest.raises(SandboxTerminatedError):
        sandbox.wait_until_complete().result()


def test_arguments_with_dollars_and_newlines_arrive_unchanged(defaults):
    text = "$HOME $$ $(CW_SANDBOX_ID) $$(X) \"quoted\" 'single'\nsecond line\n" + "x" * 100_000
    code = "import os,sys; sys.stdout.write(sys.argv[1]); sys.exit(sys.argv[1] != os.environ['TEXT'])"
    sandbox = Sandbox.run("python", "-c", code, text, environment_variables={"TEXT": text}, defaults=defaults)
    sandbox.wait_until_complete().result()
    assert sandbox.returncode == 0
    assert "".join(sandbox.stream_logs()) == text


def test_a_session_shares_defaults_and_stops_its_sandboxes(tag):
    shared = SandboxDefaults(container_image="python:3.11", max_lifetime_seconds=300, tags=(tag, "batch-job"))
    with Session(shared) as session:
        both = [session.sandbox(), session.sandbox()]
        for sandbox in both:
            assert sandbox.exec(["echo", "hello"]).result().stdout == "hello\n"
        assert {s.sandbox_id for s in Sandbox.list(tags=[tag, "batch-job"]).result()} == {s.sandbox_id for s in both}
    for sandbox in both:
        assert Sandbox.from_id(sandbox.sandbox_id).result().get_status() == SandboxStatus.TERMINATED


def test_stop_is_idempotent_and_missing_sandboxes_are_reported(defaults):
    sandbox = Sandbox.run(defaults=defaults).wait()
    sandbox.stop(graceful_shutdown_seconds=30, missing_ok=True).result()
    sandbox.stop(missing_ok=True).result()
    again = Sandbox.from_id(sandbox.sandbox_id).result()
    again.stop(missing_ok=True).result()
    with pytest.raises(SandboxTerminatedError):
        again.wait_until_complete().result()
    again.wait_until_complete(raise_on_termination=False).result()
    Sandbox.delete("no-such-sandbox", missing_ok=True).result()
    with pytest.raises(SandboxNotFoundError):
        Sandbox.delete("no-such-sandbox").result()
    with pytest.raises(SandboxNotFoundError):
        Sandbox.from_id("no-such-sandbox").result()


def test_a_stopped_sandbox_is_terminated_even_if_it_ignores_sigterm(defaults):
    sandbox = Sandbox.run("sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600", defaults=defaults).wait()
    sandbox.stop(graceful_shutdown_seconds=1).result()
    assert sandbox.status == SandboxStatus.TERMINATED


def test_a_stop_waits_for_its_grace_period(defaults):
    """The command needs three seconds after SIGTERM. With a grace period of twenty it exits by itself."""
    script = "trap 'sleep 3; echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    sandbox = Sandbox.run("sh", "-c", script, defaults=defaults).wait()
    eventually(lambda: "ready" in "".join(sandbox.stream_logs()))
    sandbox.stop(graceful_shutdown_seconds=20).result()
    assert "cleaned up" in "".join(Sandbox.from_id(sandbox.sandbox_id).result().stream_logs())


def test_the_lifetime_ends_a_sandbox(tag):
    sandbox = Sandbox.run(tags=[tag], max_lifetime_seconds=5).wait()
    with pytest.raises(SandboxTerminatedError):
        sandbox.wait_until_complete(timeout=60).result()
    assert "LifetimeExceeded" in sandbox.status_reason


def test_an_image_pull_error_is_reported_immediately(tag):
    sandbox = Sandbox.run(container_image="registry.invalid/nothing:1", tags=[tag], max_lifetime_seconds=300)
    eventually(lambda: sandbox.get_status() and "registry.invalid" in (sandbox.status_reason or ""))
    sandbox.stop(missing_ok=True).result()


def test_an_invalid_image_name_fails(tag):
    with pytest.raises(SandboxValidationError, match=r"containers\[0\].image"):
        Sandbox.run(container_image="NOT AN IMAGE", tags=[tag]).wait(timeout=60)
    sandbox = Sandbox.run(container_image="NOT/AN-IMAGE", tags=[tag])
    with pytest.raises(SandboxFailedError, match="NOT/AN-IMAGE"):
        sandbox.wait(timeout=60)


def test_variables_of_defaults_and_sandbox_are_merged(tag):
    base = SandboxDefaults(environment_variables={"A": "1", "B": "1"}, tags=(tag,))
    with Sandbox.run(defaults=base, environment_variables={"B": "2", "C": "a=b c"}) as sandbox:
        seen = sandbox.exec(["sh", "-c", 'echo "$A $B $C $CW_SANDBOX_ID"; hostname']).result().stdout.splitlines()
        assert seen[0] == f"1 2 a=b c {sandbox.sandbox_id}"
        assert seen[1].startswith(sandbox.sandbox_id)


def test_mounted_files_exist_before_the_command_starts(defaults):
    files = [
        {"mount_path": "/data/in.bin", "file_content": bytes(range(256)) * 2048},
        {"mount_path": "relative/dir/note.txt", "file_content": b"relative"},
    ]
    script = "sha256sum < /data/in.bin; cat relative/dir/note.txt"
    sandbox = Sandbox.run("sh", "-c", script, mounted_files=files, defaults=defaults)
    sandbox.wait_until_complete().result()
    import hashlib

    assert "".join(sandbox.stream_logs()) == f"{hashlib.sha256(bytes(range(256)) * 2048).hexdigest()}  -\nrelative"


@pytest.mark.parametrize(
    ("asked", "requests", "limits"),
    [
        ({"cpu": "0.1", "memory": "256Mi"}, {"cpu": "0.1", "memory": "256Mi"}, {"cpu": "0.1", "memory": "256Mi"}),
        (
            {"requests": {"cpu": "100m", "memory": "0.125Gi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            {"cpu": "100m", "memory": "0.125Gi"},
            {"cpu": "1", "memory": "256Mi"},
        ),
    ],
    ids=["guaranteed", "burstable"],
)
def test_resources_are_returned_unchanged(defaults, asked, requests, limits):
    with Sandbox.run(resources=asked, defaults=defaults) as sandbox:
        sandbox.wait()
        assert (sandbox.resource_requests, sandbox.resource_limits) == (requests, limits)
        pod = kubectl("get", "pods", "-l", f"sandbox-operator.dev/sandbox={sandbox.sandbox_id}", "-o", "jsonpath={..limits.memory}")
        assert pod.split()[0] == "256Mi"


def test_a_missing_gpu_is_reported(tag):
    sandbox = Sandbox.run(resources={"cpu": "100m", "memory": "64Mi", "gpu": {"count": 1}}, tags=[tag])
    eventually(lambda: sandbox.get_status() and "nvidia.com/gpu" in (sandbox.status_reason or ""))
    sandbox.stop().result()
