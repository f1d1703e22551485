"""Node pools as runners. The module changes the installation and restores it afterwards."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import GATEWAY, gateway_pods, kubectl
from cwsandbox import Sandbox, SandboxError, get_runner, list_runners

pytestmark = pytest.mark.alone

CHART = Path(__file__).parents[2] / "charts" / "sandbox-operator"
LABEL = "sdk-tests/pool"
REAL = {"id": "real", "nodeLabels": {LABEL: "real"}}
# kwok's nodes: pods on them become Running, but nothing runs.
FAKE = {
    "id": "fake",
    "groupId": "simulated",
    "tags": ["kwok"],
    "nodeLabels": {"type": "kwok"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
}


def install(runners):
    value = f"gateway.config.runners={json.dumps(runners)}"
    upgrade = ["helm", "upgrade", "sandbox-operator", str(CHART), *GATEWAY, "--reuse-values", "--set-json", value, "--wait", "--timeout", "120s"]
    before = [f"pod/{name}" for name in gateway_pods()]
    subprocess.run(upgrade, check=True, capture_output=True)
    kubectl(*GATEWAY, "rollout", "status", "deployment", "sandbox-operator-gateway", "--timeout", "120s")
    # Pods that are shutting down still answer with the old configuration.
    kubectl(*GATEWAY, "wait", "--for=delete", *before, "--timeout", "60s")


@pytest.fixture(scope="module", autouse=True)
def pools():
    node = kubectl("get", "nodes", "-l", "!type", "-o", "jsonpath={.items[0].metadata.name}")
    kubectl("label", "node", node, f"{LABEL}=real", "--overwrite")
    install([REAL, FAKE])
    yield
    install([])
    kubectl("label", "node", node, f"{LABEL}-")


def resources_of(runner):
    return get_runner(runner.runner_id, organization_id=runner.organization_id).resources


def test_each_pool_is_a_runner():
    real, fake = sorted(list_runners(), key=lambda r: r.runner_id, reverse=True)
    assert (real.runner_id, fake.runner_id, fake.runner_group_id, fake.tags) == ("real", "fake", "simulated", ("kwok",))
    assert real.healthy and fake.healthy and fake.max_cpu_millicores > real.max_cpu_millicores
    assert [r.runner_id for r in list_runners(runner_group_id="simulated")] == ["fake"]
    assert resources_of(fake).available_cpu_millicores > 0


def test_a_sandbox_runs_on_the_requested_runner(tag, defaults):
    with Sandbox.run(runner_ids=["real"], defaults=defaults) as sandbox:
        assert sandbox.wait().exec(["echo", "here"]).result().stdout == "here\n"
        assert (sandbox.runner_id, sandbox.runner_group_id or "") == ("real", "")
    sandbox = Sandbox.run(runner_ids=["elsewhere", "fake"], defaults=defaults).wait()
    assert (sandbox.runner_id, sandbox.runner_group_id) == ("fake", "simulated")
    assert [s.sandbox_id for s in Sandbox.list(tags=[tag], runner_ids=["fake"]).result()] == [sandbox.sandbox_id]
    assert Sandbox.list(tags=[tag], runner_ids=["real"]).result() == []
    (fake,) = list_runners(runner_group_id="simulated")
    assert resources_of(fake).running_sandboxes >= 1
    any_ = Sandbox.run(defaults=defaults).wait()
    assert any_.runner_id in {"real", "fake"}, "only on nodes of a runner"
    # On a fake node nothing can stop a sandbox gracefully.
    kubectl("delete", "sbx", sandbox.sandbox_id, any_.sandbox_id)


def test_a_missing_runner_is_refused_and_the_error_names_the_others(tag):
    with pytest.raises(SandboxError, match="real") as caught:
        Sandbox.run(runner_ids=["elsewhere"], tags=[tag])
    assert caught.value.reason == "CWSANDBOX_NO_SUITABLE_RUNNER"
