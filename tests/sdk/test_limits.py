"""Limits of sizes and streams. The limits of rates are tested in tests/gateway, with a gateway that has low ones."""

import asyncio

import grpc
import pytest
from conftest import key_of
from cwsandbox import Sandbox, SandboxError, SandboxResourceExhaustedError, SandboxValidationError
from grpc import StatusCode
from rpc import METHODS, NO_LIMIT, Refusal, bearer, refused, request

MIB = 1 << 20
CREATE, WRITE = "SandboxService/CreateSandbox", "SandboxService/WriteFile"
# Streams of one caller on one replica, as in the chart.
STREAMS = 1024


def test_a_create_request_may_have_100_mebibytes(box):
    """An error that names a field of a large request shows that the gateway has read it."""
    container = {"image": "python:3.11", "files": [{"path": "/large", "content": bytes(90 * MIB)}]}
    refusal = refused(CREATE, request(CREATE, sandbox={"spec": {"containers": [container]}}))
    assert refusal.code == StatusCode.INVALID_ARGUMENT and "files[0]" in refusal.text and str(90 * MIB) in refusal.text, refusal
    container["files"][0]["content"] = bytes(100 * MIB)
    refusal = refused(CREATE, request(CREATE, sandbox={"spec": {"containers": [container]}}))
    assert refusal.code == StatusCode.RESOURCE_EXHAUSTED and str(100 * MIB) in refusal.text, refusal
    assert not refusal.pause, "a retry would not help"


def test_the_sdk_reports_files_that_are_too_large(defaults):
    for mebibytes, error in ((9, SandboxValidationError), (101, SandboxResourceExhaustedError)):
        with pytest.raises(error):
            Sandbox.run(mounted_files=[{"mount_path": "/large", "file_content": bytes(mebibytes * MIB)}], defaults=defaults)


def test_a_file_in_one_message_may_have_32_mebibytes(box):
    refusal = refused(WRITE, request(WRITE, sandbox_id=box.sandbox_id, path="/tmp/large", content=bytes(32 * MIB + 1)))
    facts = {"filepath": "/tmp/large", "size_bytes": str(32 * MIB + 1), "max_size_bytes": str(32 * MIB)}
    assert (refusal.reason, dict(refusal.info.metadata)) == ("CWSANDBOX_FILE_TOO_LARGE", facts)
    refusal = refused(WRITE, request(WRITE, sandbox_id=box.sandbox_id, path="/tmp/large", content=bytes(34 * MIB)))
    assert refusal.code == StatusCode.RESOURCE_EXHAUSTED, refusal
    assert box.exec(["test", "-e", "/tmp/large"]).result().returncode == 1


def test_other_messages_are_limited_to_a_few_mebibytes(box):
    name = "SandboxService/GetSandbox"
    assert refused(name, request(name, sandbox_id="x" * 5 * MIB)).code == StatusCode.RESOURCE_EXHAUSTED
    assert box.get_status() == "running"


def test_concurrent_streams_are_limited(replicas):
    """Above the limit a stream is refused until another has ended. The streams wait for their first message and cost little."""
    headers = bearer(key_of("limited"))

    async def run():
        # A connection carries 256 concurrent calls. Without its own pool, gRPC would reuse one connection for all channels.
        options = [*NO_LIMIT, ("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(replicas[0], options=options) for _ in range(STREAMS // 256 + 1)]
        try:
            await fill(channels)
        finally:
            await asyncio.gather(*(c.close() for c in channels))

    def begin(channel):
        method = METHODS["SandboxService/StreamExec"]
        return channel.stream_stream(f"/{method.containing_service.full_name}/{method.name}")(metadata=headers, timeout=120)

    async def ended(call):
        try:
            await call.read()
        except grpc.RpcError as error:
            return Refusal(error)
        raise AssertionError("the stream was accepted")

    async def fill(channels):
        calls, ends = [], []
        for channel in channels[:-1]:
            some = [begin(channel) for _ in range(256)]
            calls += some
            ends += [asyncio.ensure_future(ended(call)) for call in some]
            # Slowly enough for the limit of the rate.
            done, _ = await asyncio.wait(ends, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            assert not done, [d.result() for d in done]
        over = await ended(begin(channels[-1]))
        assert (over.code, over.reason) == (StatusCode.RESOURCE_EXHAUSTED, "CWSANDBOX_RATE_LIMITED") and "streams" in over.text, over
        assert over.pause > 0
        for call in calls[:2]:
            call.cancel()
        # The gateway accepts another stream once it has noticed the cancelled ones.
        for _ in range(50):
            again = asyncio.ensure_future(ended(begin(channels[-1])))
            done, _ = await asyncio.wait([again], timeout=0.2)
            if not done:
                return
        raise AssertionError("the cancelled streams still count")

    asyncio.run(run())
