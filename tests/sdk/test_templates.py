"""Sandboxes from a SandboxTemplate."""

import json

import grpc
import pytest
from conftest import SMALL, apply, kubectl
from cwsandbox import Sandbox, SandboxDefaults, SandboxNotFoundError, SandboxValidationError
from rpc import call, refused, request

FROM_TEMPLATE = "SandboxService/CreateSandboxFromTemplate"


@pytest.fixture
def template(tag):
    """A template whose sandboxes print their configuration and exit."""
    name = f"template-{tag}"
    spec = {
        "containerImage": "python:3.11",
        "command": ["sh", "-c", 'echo "$GREETING $(cat note)" "$@"', "sh"],
        "args": ["from the template"],
        "workingDir": "/work",
        "env": [{"name": "GREETING", "value": "hello"}],
        "files": [{"path": "/work/note", "content": "of the note"}],
        "resources": SMALL,
        "tags": [tag],
        "maxLifetimeSeconds": 123,
    }
    manifest = {"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "SandboxTemplate", "metadata": {"name": name}, "spec": spec}
    apply(manifest)
    yield name
    kubectl("delete", "sandboxtemplate", name)


def output(sandbox):
    sandbox.wait_until_complete().result()
    return "".join(sandbox.stream_logs())


def test_a_sandbox_has_all_fields_of_the_template(template, tag):
    sandbox = Sandbox.run_from_template(template)
    assert output(sandbox) == "hello of the note from the template\n"
    record = Sandbox.from_id(sandbox.sandbox_id).result()
    assert record.tags == (tag,)
    assert (record.resource_requests, record.resource_limits) == (SMALL["requests"], SMALL["limits"])
    lifetime = kubectl("get", "sbx", sandbox.sandbox_id, "-o", "jsonpath={.spec.maxLifetimeSeconds}")
    assert lifetime == "123"


def test_the_callers_fields_replace_those_of_the_template(template, tag):
    defaults = SandboxDefaults(tags=(tag, "mine"))
    sandbox = Sandbox.run_from_template(template, max_lifetime_seconds=77, defaults=defaults)
    assert output(sandbox) == "hello of the note from the template\n", "the container is the template's"
    assert set(Sandbox.from_id(sandbox.sandbox_id).result().tags) == {tag, "mine"}
    assert kubectl("get", "sbx", sandbox.sandbox_id, "-o", "jsonpath={.spec.maxLifetimeSeconds}") == "77"
    # An image replaces the whole container.
    other = Sandbox.run_from_template(template, "-c", 'echo "[$GREETING]"', command="sh", container_image="python:3.11", defaults=defaults)
    assert output(other) == "[]\n"


def test_the_response_names_the_template_and_its_revision(template):
    one = request(FROM_TEMPLATE, template_id=template, request_id=f"request-{template}")
    first = call(FROM_TEMPLATE, one)
    assert (first.source_template_id, first.source_template_revision) == (template, 1)
    kubectl("patch", "sandboxtemplate", template, "--type", "merge", "-p", '{"spec": {"args": ["changed"]}}')
    assert call(FROM_TEMPLATE, one).sandbox_id == first.sandbox_id, "repeating a request returns the same sandbox"
    second = Sandbox.run_from_template(template)
    assert output(second) == "hello of the note changed\n"
    assert call("SandboxService/GetSandbox", request("SandboxService/GetSandbox", sandbox_id=second.sandbox_id)).source_template_revision == 2
    assert output(Sandbox.from_id(first.sandbox_id).result()) == "hello of the note from the template\n"
    conflict = refused(FROM_TEMPLATE, request(FROM_TEMPLATE, template_id=template, request_id=one.request_id, overrides={"tags": ["other"]}))
    assert (conflict.code, conflict.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CWSANDBOX_REQUEST_ID_CONFLICT")


def test_a_missing_template():
    with pytest.raises(SandboxNotFoundError):
        Sandbox.run_from_template("no-such-template")


def test_a_template_that_no_sandbox_can_use_is_refused(template):
    network = {"egress": {"mode": "Rules", "rules": [{"cidr": "169.254.169.254/32"}]}}
    kubectl("patch", "sandboxtemplate", template, "--type", "merge", "-p", json.dumps({"spec": {"network": network}}))
    with pytest.raises(SandboxValidationError, match=r"template_id: .* spec.network.egress.rules\[0\].cidr: must contain an address"):
        Sandbox.run_from_template(template)
    with pytest.raises(SandboxValidationError, match=r"overrides.tags\[0\]: must have 1 to 256 characters"):
        Sandbox.run_from_template(template, tags=["x" * 257])
