"""Authentication, authorization, runners."""

import pytest
from conftest import ELSEWHERE, key_of
from cwsandbox import CWSandboxAuthenticationError, Sandbox, SandboxError, SandboxNotFoundError, get_runner, list_runners


def key(monkeypatch, value):
    monkeypatch.setenv("CWSANDBOX_API_KEY", value)


@pytest.mark.parametrize("value", ["", "wrong", "a.b.c"])
def test_a_wrong_key_is_rejected(monkeypatch, value):
    key(monkeypatch, value)
    with pytest.raises(CWSandboxAuthenticationError):
        Sandbox.list().result()


def test_a_token_for_the_api_server_is_rejected(monkeypatch):
    key(monkeypatch, key_of("tester", audience=None))
    with pytest.raises(CWSandboxAuthenticationError):
        Sandbox.list().result()


def test_sandboxes_of_another_tenant_are_invisible(monkeypatch, tag, defaults):
    sandbox = Sandbox.run(defaults=defaults).wait()
    key(monkeypatch, key_of("other-tenant", namespace=ELSEWHERE))
    with pytest.raises(SandboxNotFoundError):
        Sandbox.from_id(sandbox.sandbox_id).result()
    with pytest.raises(SandboxNotFoundError):
        Sandbox.delete(sandbox.sandbox_id).result()
    Sandbox.delete(sandbox.sandbox_id, missing_ok=True).result()
    assert Sandbox.list(tags=[tag]).result() == []
    monkeypatch.undo()
    assert sandbox.exec(["echo", "mine"]).result().stdout == "mine\n"
    sandbox.stop().result()


def test_runners():
    (runner,) = list_runners(include_resources=True)
    assert runner.healthy and runner.max_cpu_millicores > 0 and runner.supported_architectures
    assert get_runner(runner.runner_id, organization_id=runner.organization_id).runner_id == runner.runner_id
    assert list_runners(service_visibility="private")


def test_a_runner_can_be_requested(defaults):
    (runner,) = list_runners()
    with Sandbox.run(runner_ids=[runner.runner_id], defaults=defaults) as sandbox:
        assert sandbox.wait().runner_id == runner.runner_id
    with pytest.raises(SandboxError) as caught:
        Sandbox.run(runner_ids=["another"], defaults=defaults)
    assert caught.value.reason == "CWSANDBOX_NO_SUITABLE_RUNNER"
