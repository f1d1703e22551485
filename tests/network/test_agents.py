"""Tokens of agents in real sandboxes. The connection comes through the API server, since no pod may reach the port."""

import base64
import json
import subprocess
import time
from contextlib import contextmanager

import grpc
import pytest
from conftest import AGENT, RELEASE, get

# An Ed25519 private key in PKCS#8: the header, then the key's 32 bytes. OpenSSL does not read the longer form with the public key.
HEADER = bytes.fromhex("302e020100300506032b657004220420")
KEY_OFFSET = len(HEADER)


def text(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(key, pod_uid, expires, path):
    """As src/token.rs signs it."""
    claims = text(json.dumps({"pod": pod_uid, "expires": int(expires)}).encode())
    (path / "key.der").write_bytes(HEADER + key)
    (path / "claims").write_text(claims)
    sign = ["openssl", "pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey", path / "key.der", "-in", path / "claims"]
    return f"{claims}.{text(subprocess.run(sign, capture_output=True, check=True).stdout)}"


@contextmanager
def forwarded(pod):
    """A local address that leads to the pod's agent."""
    command = ["kubectl", "port-forward", "-n", pod.namespace, f"pod/{pod.name}", f":{AGENT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[2]
        finally:
            process.terminate()


def read_file(address, authorization):
    """The status of a call that reads /etc/hostname."""
    path = b"/etc/hostname"
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream("/sandbox_operator.agent.v1.Agent/ReadFile")
        metadata = [("authorization", authorization)] if authorization is not None else []
        try:
            list(call(b"\x0a" + bytes([len(path)]) + path, metadata=metadata, timeout=20))
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.fixture(scope="module")
def victim(world):
    return world["same-session"]


def test_an_agent_accepts_only_a_valid_token_of_its_own_pod(world, victim, tmp_path):
    metadata = get("pod", "-n", victim.namespace, victim.name)["metadata"]
    foreign = get("pod", "-n", victim.namespace, world["default"].name)["metadata"]["uid"]
    annotations = metadata["annotations"]
    keys = get("secret", "-n", RELEASE, f"{RELEASE}-agent-keys")["data"]
    (key_id,) = [value for value in annotations.values() if value in keys]
    key = base64.b64decode(keys[key_id])[KEY_OFFSET : KEY_OFFSET + 32]
    now, uid = time.time(), metadata["uid"]
    valid = token(key, uid, now + 50, tmp_path)
    attempts = {
        "none": None,
        "empty": "Bearer ",
        "malformed": "Bearer a.b",
        "without a signature": "Bearer " + valid.split(".")[0] + ".",
        "forged": "Bearer " + token(b"k" * 32, uid, now + 50, tmp_path),
        "expired": "Bearer " + token(key, uid, now - 60, tmp_path),
        "of the future": "Bearer " + token(key, uid, now + 3600, tmp_path),
        "of another pod": "Bearer " + token(key, foreign, now + 50, tmp_path),
    }
    with forwarded(victim) as address:
        answers = {what: read_file(address, authorization) for what, authorization in attempts.items()}
        assert answers == dict.fromkeys(attempts, grpc.StatusCode.UNAUTHENTICATED)
        assert read_file(address, f"Bearer {valid}") == grpc.StatusCode.OK
