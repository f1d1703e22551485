"""Who may do what."""

import os
import subprocess

import pytest
from conftest import NAMESPACE
from cwsandbox import CWSandboxAuthenticationError, Sandbox, SandboxNotFoundError, get_runner, list_runners

HERE = os.path.dirname(__file__)


def key(monkeypatch, value):
    monkeypatch.setenv("CWSANDBOX_API_KEY", value)


@pytest.mark.parametrize("value", ["", "wrong", "a.b.c"])
def test_a_wrong_key(monkeypatch, value):
    key(monkeypatch, value)
    with pytest.raises(CWSandboxAuthenticationError):
        Sandbox.list().result()


def test_a_token_for_the_api_server_is_refused(monkeypatch):
    token = subprocess.check_output(["kubectl", "create", "token", "tester", "-n", NAMESPACE], text=True).strip()
    key(monkeypatch, token)
    with pytest.raises(CWSandboxAuthenticationError):
        Sandbox.list().result()


def test_another_tenant_does_not_see_it(monkeypatch, tag):
    sandbox = Sandbox.run(tags=[tag]).wait()
    other = f"{NAMESPACE}-other"
    subprocess.run(["kubectl", "create", "namespace", other], capture_output=True, check=False)
    subprocess.check_call([f"{HERE}/tenant.sh", other, "stranger"])
    mine = os.environ["CWSANDBOX_API_KEY"]
    token = ["kubectl", "create", "token", "stranger", "-n", other, "--audience", "sandbox-operator.dev"]
    key(monkeypatch, subprocess.check_output(token, text=True).strip())
    with pytest.raises(SandboxNotFoundError):
        Sandbox.from_id(sandbox.sandbox_id).result()
    with pytest.raises(SandboxNotFoundError):
        Sandbox.delete(sandbox.sandbox_id).result()
    assert Sandbox.list(tags=[tag]).result() == []
    key(monkeypatch, mine)
    sandbox.stop().result()


def test_an_account_without_rights(monkeypatch):
    subprocess.run(["kubectl", "create", "serviceaccount", "nobody", "-n", NAMESPACE], capture_output=True, check=False)
    token = ["kubectl", "create", "token", "nobody", "-n", NAMESPACE, "--audience", "sandbox-operator.dev"]
    key(monkeypatch, subprocess.check_output(token, text=True).strip())
    with pytest.raises(CWSandboxAuthenticationError):
        Sandbox.list().result()


def test_runners():
    (runner,) = list_runners(include_resources=True)
    assert runner.healthy and runner.max_cpu_millicores > 0 and runner.supported_architectures
    assert get_runner(runner.runner_id, organization_id=runner.organization_id).runner_id == runner.runner_id
    assert list_runners(service_visibility="private")
