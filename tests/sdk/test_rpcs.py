"""Every call of every service, as one sees it who may not make it. The calls are the descriptors', so that none is forgotten: a new one
must be put into one of the lists here, or prove itself."""

import pytest
from conftest import ELSEWHERE, NAMESPACE, SMALL, apply, key_of, kubectl
from cwsandbox import Sandbox
from grpc import StatusCode
from rpc import METHODS, bearer, call, refused, request

# Answered by name with UNIMPLEMENTED, whatever they are about.
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
# About nothing that is there already: the tests at the end are theirs.
OF_NOTHING = {
    "SandboxService/CreateSandbox",
    "SandboxService/ListSandboxes",
    "VolumeService/CreateVolume",
    "VolumeService/ListVolumes",
    "DiscoveryService/ListAvailableRunners",
    "DiscoveryService/GetAvailableRunner",
}
ABOUT_SOMETHING = METHODS.keys() - OF_NOTHING
ENDING = {name for name in METHODS if name.split("/")[1].startswith("Delete")}
CLAIM = "claim-of-the-tenant"
# For the names of things that are nobody's.
NOTHING = "nothing-at-all"


@pytest.fixture(scope="session")
def nobody():
    """An account of the tests' namespace without any right."""
    apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"}})
    return bearer(key_of("nobody"))


@pytest.fixture(scope="session")
def stranger():
    """One who may do everything, but in another namespace."""
    return bearer(key_of("stranger", namespace=ELSEWHERE))


@pytest.fixture(scope="session")
def keeper():
    return bearer(key_of("keeper"))


@pytest.fixture(scope="session")
def things(box):
    """What the tenant has, by the names of the fields that name it."""
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
    """A request with every field set that `values` know by its name, however deep; and how many were."""
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


# How it is asked for, besides by whom and of what.
THE_REST = {"path": "/tmp/of-the-tenant", "content": b"written", "command": ["touch", "/tmp/executed"], "paths": ["spec.description"]}


def about(name, things):
    message, count = filled(name, things)
    assert count or name in NOT_SERVED, f"nothing in {name} names anything: what is it about?"
    fill(message, THE_REST)
    return message


def untouched(box):
    """What a stranger's call must not have changed."""
    seen = box.exec(["sh", "-c", "cat /tmp/of-the-tenant; ls /tmp/executed 2>&1"]).result().stdout
    record = kubectl("get", "sbx", box.sandbox_id, "-o", "jsonpath={.spec.desiredState}/{.status.state}")
    return seen.startswith("mine") and "No such file" in seen and record.split("/")[0] != "Stopped" and record.endswith("/RUNNING")


@pytest.fixture(scope="session")
def wrong():
    """Headers by what is wrong with them."""
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
def test_without_credentials_or_with_wrong_ones(name, wrong):
    told = {what: refused(name, request(name), credentials=headers) for what, headers in wrong.items()}
    unknown = (StatusCode.UNAUTHENTICATED, "CWSANDBOX_UNAUTHENTICATED")
    assert {what: (t.code, t.reason) for what, t in told.items()} == dict.fromkeys(wrong, unknown)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_without_rights(name, nobody, things):
    told = refused(name, filled(name, things | THE_REST)[0], credentials=nobody)
    assert told.code == (StatusCode.UNIMPLEMENTED if name in NOT_SERVED else StatusCode.PERMISSION_DENIED), told


@pytest.mark.parametrize("name", sorted(ABOUT_SOMETHING))
def test_what_is_anothers_is_as_what_is_not_there(name, stranger, things, box):
    told = refused(name, about(name, things), credentials=stranger)
    assert told.code == (StatusCode.UNIMPLEMENTED if name in NOT_SERVED else StatusCode.NOT_FOUND), told
    nothing = refused(name, about(name, dict.fromkeys(things, NOTHING)), credentials=stranger)
    text = told.text
    for thing in things.values():
        text = text.replace(thing, NOTHING)
    assert (told.code, told.reason, text) == (nothing.code, nothing.reason, nothing.text)
    assert untouched(box)


@pytest.mark.parametrize("name", sorted(ABOUT_SOMETHING - NOT_SERVED - ENDING))
def test_the_same_request_is_served_to_its_tenant(name, keeper, things, box):
    """Else the test above would prove nothing."""
    try:
        answer = call(name, about(name, things), credentials=keeper)
        if "FromTemplate" in name:
            Sandbox.delete(answer.sandbox_id).result()
    finally:
        box.write_file("/tmp/of-the-tenant", b"mine").result()
        box.exec(["rm", "-f", "/tmp/executed"], check=True).result()


@pytest.mark.parametrize("name", [name for name in sorted(METHODS) if "allow_missing" in METHODS[name].input_type.fields_by_name])
def test_deleting_what_may_be_missing_says_nothing_of_anothers(name, stranger, things, box):
    def asked(things):
        message = about(name, things)
        message.allow_missing = True
        return message

    if name in NOT_SERVED:
        assert refused(name, asked(things), credentials=stranger).code == StatusCode.UNIMPLEMENTED
        return
    answer = call(name, asked(things), credentials=stranger)
    assert not answer.ListFields(), "no sandbox in it is how the SDK knows that there is none"
    assert answer == call(name, asked(dict.fromkeys(things, NOTHING)), credentials=stranger)
    assert untouched(box)
    assert kubectl("get", "pvc", CLAIM, "-o", "jsonpath={.metadata.labels}").count("volume-of-the-tenant") == 1


def test_lists_do_not_show_what_is_anothers(stranger, things, box):
    def ids(credentials=None, **filters):
        return {s.sandbox_id for s in call("SandboxService/ListSandboxes", request("SandboxService/ListSandboxes", **filters), credentials).sandboxes}

    for filters in ({}, {"tags": ["shared"]}, {"state": 2}, {"show_terminated": True}, {"volume_ids": ["volume-of-the-tenant"]}, {"page_size": 1}):
        assert box.sandbox_id not in ids(stranger, **filters), filters
    assert box.sandbox_id in ids(tags=["shared"])
    name = "VolumeService/ListVolumes"
    assert "volume-of-the-tenant" not in {v.volume_id for v in call(name, request(name), stranger).volumes}
    assert "volume-of-the-tenant" in {v.volume_id for v in call(name, request(name)).volumes}


def test_nothing_is_made_of_what_is_anothers(stranger, things):
    def create(**spec):
        container = {"image": "python:3.11", "secret_stores": spec.pop("secret_stores", [])}
        message = request("SandboxService/CreateSandbox", sandbox={"spec": {"containers": [container], **spec}})
        return refused("SandboxService/CreateSandbox", message, stranger)

    told = create(volumes=[{"name": "v", "volume_id": things["volume_id"]}])
    assert (told.code, told.reason) == (StatusCode.NOT_FOUND, "CWSANDBOX_VOLUME_NOT_FOUND")
    labels = {"sandbox-operator.dev/secret-store": "true"}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-of-the-tenant", "labels": labels}, "stringData": {"k": "v"}})
    told = create(secret_stores=[{"store_name": "store-of-the-tenant", "secrets": [{"path": "k", "env_var": "K"}]}])
    assert (told.code, told.reason) == (StatusCode.FAILED_PRECONDITION, "CWSANDBOX_SECRET_STORE_NOT_PROVISIONED")

    def register(**pvc):
        volume = {"volume_id": "stolen", "spec": {"pvc": {"claim_name": CLAIM, **pvc}}}
        return refused("VolumeService/CreateVolume", request("VolumeService/CreateVolume", volume=volume), stranger)

    assert register(namespace=NAMESPACE).code == StatusCode.INVALID_ARGUMENT
    assert register().reason == "CWSANDBOX_VOLUME_BACKEND_NOT_FOUND"
