"""Every RPC with missing credentials, missing rights, and the credentials of another tenant. The RPCs come from the descriptors: a new one must
be added to one of the lists below or pass all tests."""

import pytest
from conftest import ELSEWHERE, NAMESPACE, SMALL, apply, key_of, kubectl
from cwsandbox import Sandbox
from grpc import StatusCode
from rpc import METHODS, bearer, call, refused, request

# The gateway returns UNIMPLEMENTED for these, whatever the request contains.
NOT_SERVED = {
    name
    for name in METHODS
    if name.split("/")[0] in ("SettingsService", "SandboxTemplateService")
    or name.split("/")[1]
    in (
        "CreateSandboxFromFile",
        "GetSandboxBuildLogs",
        "PurgeSandboxes",
        "ConnectSandbox",
        "CreateFileSystemSnapshot",
        "GetFileSystemSnapshot",
        "ListFileSystemSnapshots",
        "DeleteFileSystemSnapshot",
    )
}
# These do not refer to an existing object. The tests at the end of the file cover them.
WITHOUT_OBJECT = {
    "SandboxService/CreateSandbox",
    "SandboxService/ListSandboxes",
    "VolumeService/CreateVolume",
    "VolumeService/ListVolumes",
    "DiscoveryService/ListAvailableRunners",
    "DiscoveryService/GetAvailableRunner",
}
WITH_OBJECT = METHODS.keys() - WITHOUT_OBJECT
ENDING = {name for name in METHODS if name.split("/")[1].startswith("Delete")}
CLAIM = "claim-of-the-tenant"
# A name that no object has.
NOTHING = "no-such-object"


@pytest.fixture(scope="session")
def no_rights():
    """A ServiceAccount of the tests' namespace without any rights."""
    apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "no-rights"}})
    return bearer(key_of("no-rights"))


@pytest.fixture(scope="session")
def other_tenant():
    """A ServiceAccount with all rights in another namespace."""
    return bearer(key_of("other-tenant", namespace=ELSEWHERE))


@pytest.fixture(scope="session")
def editor():
    return bearer(key_of("editor"))


@pytest.fixture(scope="session")
def objects(box):
    """The tenant's objects, by the request fields that refer to them."""
    apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": CLAIM, "labels": {"sandbox-operator.dev/volume-id": "volume-of-the-tenant"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        }
    )
    spec = {"containerImage": "python:3.11", "tags": ["shared"], "maxLifetimeSeconds": 60, "resources": SMALL}
    template = {
        "apiVersion": "sandbox-operator.dev/v1alpha1",
        "kind": "SandboxTemplate",
        "metadata": {"name": "template-of-the-tenant"},
        "spec": spec,
    }
    apply(template)
    box.write_file("/tmp/of-the-tenant", b"mine").result()
    return {
        "sandbox_id": box.sandbox_id,
        "source_sandbox_id": box.sandbox_id,
        "volume_id": "volume-of-the-tenant",
        "template_id": "template-of-the-tenant",
        "sandbox_template_id": "template-of-the-tenant",
        "file_system_snapshot_id": "snapshot-of-the-tenant",
    }


def filled(name, values):
    """A request in which all fields named in `values` are set, at any depth, and the number of these fields."""
    message = request(name)
    return message, fill(message, values)


def fill(message, values, depth=3):
    count = 0
    for field in message.DESCRIPTOR.fields:
        if field.name in values:
            if field.is_repeated:
                getattr(message, field.name).extend(values[field.name])
            else:
                setattr(message, field.name, values[field.name])
            count += 1
        elif field.message_type and not field.is_repeated and depth:
            inner = type(message)()
            found = fill(getattr(inner, field.name), values, depth - 1)
            if found:
                message.MergeFrom(inner)
            count += found
    return count


# Other fields that the requests need.
OTHER_FIELDS = {"path": "/tmp/of-the-tenant", "content": b"written", "command": ["touch", "/tmp/executed"], "paths": ["spec.description"]}


def request_about(name, objects):
    message, count = filled(name, objects)
    assert count or name in NOT_SERVED, f"no field of {name} refers to an object: add it to WITHOUT_OBJECT or to the fixture"
    fill(message, OTHER_FIELDS)
    return message


def is_unchanged(box):
    """Whether the sandbox is as it was: another tenant's call must not change it."""
    seen = box.exec(["sh", "-c", "cat /tmp/of-the-tenant; ls /tmp/executed 2>&1"]).result().stdout
    record = kubectl("get", "sbx", box.sandbox_id, "-o", "jsonpath={.spec.desiredState}/{.status.state}")
    return seen.startswith("mine") and "No such file" in seen and record.split("/")[0] != "Stopped" and record.endswith("/RUNNING")


@pytest.fixture(scope="session")
def wrong_credentials():
    """Invalid credentials, by the reason why they are invalid."""
    return {
        "none": [],
        "empty": [("authorization", "")],
        "no token": bearer("wrong"),
        "forged": bearer(key_of("tester")[:-8] + "AAAAAAAA"),
        "for the API server": bearer(key_of("tester", audience=None)),
        "for another audience": bearer(key_of("tester", audience="somebody.else")),
        "another form": [("x-wandb-api-key", "0" * 40)],
    }


@pytest.mark.parametrize("name", sorted(METHODS))
def test_missing_or_wrong_credentials_are_rejected(name, wrong_credentials):
    refusals = {what: refused(name, request(name), credentials=headers) for what, headers in wrong_credentials.items()}
    unknown = (StatusCode.UNAUTHENTICATED, "CWSANDBOX_UNAUTHENTICATED")
    assert {what: (t.code, t.reason) for what, t in refusals.items()} == dict.fromkeys(wrong_credentials, unknown)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_missing_rights_are_rejected(name, no_rights, objects):
    refusal = refused(name, filled(name, objects | OTHER_FIELDS)[0], credentials=no_rights)
    assert refusal.code == (StatusCode.UNIMPLEMENTED if name in NOT_SERVED else StatusCode.PERMISSION_DENIED), refusal


@pytest.mark.parametrize("name", sorted(WITH_OBJECT))
def test_objects_of_another_tenant_look_like_missing_ones(name, other_tenant, objects, box):
    refusal = refused(name, request_about(name, objects), credentials=other_tenant)
    assert refusal.code == (StatusCode.UNIMPLEMENTED if name in NOT_SERVED else StatusCode.NOT_FOUND), refusal
    nothing = refused(name, request_about(name, dict.fromkeys(objects, NOTHING)), credentials=other_tenant)
    text = refusal.text
    for object_name in objects.values():
        text = text.replace(object_name, NOTHING)
    assert (refusal.code, refusal.reason, text) == (nothing.code, nothing.reason, nothing.text)
    assert is_unchanged(box)


@pytest.mark.parametrize("name", sorted(WITH_OBJECT - NOT_SERVED - ENDING))
def test_the_same_request_succeeds_for_the_tenant(name, editor, objects, box):
    """Without this the test above would prove nothing."""
    try:
        answer = call(name, request_about(name, objects), credentials=editor)
        if "FromTemplate" in name:
            Sandbox.delete(answer.sandbox_id).result()
    finally:
        box.write_file("/tmp/of-the-tenant", b"mine").result()
        box.exec(["rm", "-f", "/tmp/executed"], check=True).result()


@pytest.mark.parametrize("name", [name for name in sorted(METHODS) if "allow_missing" in METHODS[name].input_type.fields_by_name])
def test_allow_missing_does_not_reveal_objects_of_another_tenant(name, other_tenant, objects, box):
    def delete_request(objects):
        message = request_about(name, objects)
        message.allow_missing = True
        return message

    if name in NOT_SERVED:
        assert refused(name, delete_request(objects), credentials=other_tenant).code == StatusCode.UNIMPLEMENTED
        return
    answer = call(name, delete_request(objects), credentials=other_tenant)
    assert not answer.ListFields(), "the SDK takes an empty response for a missing sandbox"
    assert answer == call(name, delete_request(dict.fromkeys(objects, NOTHING)), credentials=other_tenant)
    assert is_unchanged(box)
    assert kubectl("get", "pvc", CLAIM, "-o", "jsonpath={.metadata.labels}").count("volume-of-the-tenant") == 1


def test_lists_do_not_contain_objects_of_another_tenant(other_tenant, objects, box):
    def ids(credentials=None, **filters):
        return {s.sandbox_id for s in call("SandboxService/ListSandboxes", request("SandboxService/ListSandboxes", **filters), credentials).sandboxes}

    for filters in ({}, {"tags": ["shared"]}, {"state": 2}, {"show_terminated": True}, {"volume_ids": ["volume-of-the-tenant"]}, {"page_size": 1}):
        assert box.sandbox_id not in ids(other_tenant, **filters), filters
    assert box.sandbox_id in ids(tags=["shared"])
    name = "VolumeService/ListVolumes"
    assert "volume-of-the-tenant" not in {v.volume_id for v in call(name, request(name), other_tenant).volumes}
    assert "volume-of-the-tenant" in {v.volume_id for v in call(name, request(name)).volumes}


def test_new_objects_cannot_use_objects_of_another_tenant(other_tenant, objects):
    def create(**spec):
        container = {"image": "python:3.11", "secret_stores": spec.pop("secret_stores", [])}
        message = request("SandboxService/CreateSandbox", sandbox={"spec": {"containers": [container], **spec}})
        return refused("SandboxService/CreateSandbox", message, other_tenant)

    refusal = create(volumes=[{"name": "v", "volume_id": objects["volume_id"]}])
    assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "CWSANDBOX_VOLUME_NOT_FOUND")
    labels = {"sandbox-operator.dev/secret-store": "true"}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-of-the-tenant", "labels": labels}, "stringData": {"k": "v"}})
    refusal = create(secret_stores=[{"store_name": "store-of-the-tenant", "secrets": [{"path": "k", "env_var": "K"}]}])
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "CWSANDBOX_SECRET_STORE_NOT_PROVISIONED")

    def register(**pvc):
        volume = {"volume_id": "another", "spec": {"pvc": {"claim_name": CLAIM, **pvc}}}
        return refused("VolumeService/CreateVolume", request("VolumeService/CreateVolume", volume=volume), other_tenant)

    assert register(namespace=NAMESPACE).code == StatusCode.INVALID_ARGUMENT
    assert register().reason == "CWSANDBOX_VOLUME_BACKEND_NOT_FOUND"
