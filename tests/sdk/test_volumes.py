"""Registered volumes, which are PersistentVolumeClaims of the tenant."""

import pytest
from conftest import NAMESPACE, apply, eventually, key_of, kubectl
from cwsandbox import (
    AuthHeaders,
    CWSandboxAuthenticationError,
    PvcVolumeSource,
    RegisteredVolumeOptions,
    Sandbox,
    SandboxError,
    Volume,
    VolumeBackendNotFoundError,
    VolumeInUseError,
    VolumeNotFoundError,
    VolumeState,
    list_runners,
)


@pytest.fixture(scope="module")
def editor():
    """A ServiceAccount that may register volumes. The right to use sandboxes is not enough for that."""
    return AuthHeaders(headers={"Authorization": f"Bearer {key_of('editor')}"}, strategy="api_key")


@pytest.fixture
def claim(tag):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"claim-{tag}"}, "spec": spec})
    yield f"claim-{tag}"
    kubectl("delete", "pvc", f"claim-{tag}", "--wait=false")


def source(claim, **more):
    (runner,) = list_runners()
    return PvcVolumeSource(runner_id=runner.runner_id, namespace=NAMESPACE, claim_name=claim, **more)


def test_a_volume_keeps_files_between_sandboxes(claim, tag, editor, defaults):
    ident = f"volume-{tag}"
    volume = Volume.create(ident, pvc=source(claim), description="data", auth=editor).result()
    volume.wait_until_ready().result()
    mounted = [RegisteredVolumeOptions(name="data", volume_id=ident, mount_path="/data")]
    with Sandbox.run(volumes=mounted, defaults=defaults) as writer:
        writer.write_file("/data/folder/kept", b"kept").result()
        assert writer.attached_volume_ids == (ident,)
        seen = Volume.get(ident).result()
        assert (seen.state, seen.description, seen.pvc.claim_name, seen.attached_sandbox_count) == (VolumeState.READY, "data", claim, 1)
        with pytest.raises(VolumeInUseError):
            volume.delete().result()
    read = [RegisteredVolumeOptions(name="d", volume_id=ident, mount_path="/d", sub_path="folder", read_only=True)]
    with Sandbox.run(volumes=read, defaults=defaults) as reader:
        assert reader.read_file("/d/kept").result() == b"kept"
        assert reader.exec(["touch", "/d/more"]).result().returncode != 0

    assert ident in {v.volume_id for v in Volume.list().result()}
    assert volume.update(description="changed").result().description == "changed"
    eventually(lambda: Volume.get(ident).result().attached_sandbox_count == 0)
    volume.delete().result()
    with pytest.raises(VolumeNotFoundError):
        Volume.get(ident).result()
    volume.delete(allow_missing=True).result()
    assert kubectl("get", "pvc", claim, "-o", "jsonpath={.status.phase}") == "Bound", "the claim stays"


def test_a_mount_is_limited_to_the_registered_part(claim, tag, editor, defaults):
    ident = f"volume-{tag}"
    Volume.create(ident, pvc=source(claim, sub_path="part"), read_only=True, auth=editor).result()
    mounted = [RegisteredVolumeOptions(name="data", volume_id=ident, mount_path="/data")]
    with Sandbox.run(volumes=mounted, defaults=defaults) as sandbox:
        assert sandbox.exec(["touch", "/data/x"]).result().returncode != 0
        mounts = kubectl(
            "get", "pods", "-l", f"sandbox-operator.dev/sandbox={sandbox.sandbox_id}", "-o", "jsonpath={..volumeMounts[?(@.mountPath=='/data')]}"
        )
        assert '"subPath":"part"' in mounts


def test_missing_rights_and_missing_objects(claim, tag, editor, defaults):
    with pytest.raises(CWSandboxAuthenticationError):
        Volume.create(f"volume-{tag}", pvc=source(claim)).result()
    with pytest.raises(VolumeBackendNotFoundError):
        Volume.create(f"volume-{tag}", pvc=source("no-such-claim"), auth=editor).result()
    with pytest.raises(SandboxError) as caught:
        Sandbox.run(volumes=[RegisteredVolumeOptions(name="data", volume_id="no-such-volume", mount_path="/data")], defaults=defaults)
    assert caught.value.reason == "CWSANDBOX_VOLUME_NOT_FOUND"
