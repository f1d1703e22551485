"""What is too much. The rates of calls need a gateway with low limits: the tests of the gateway in Rust have one."""

import asyncio

import grpc
import pytest
from conftest import key_of
from cwsandbox import Sandbox, SandboxError, SandboxResourceExhaustedError, SandboxValidationError
from grpc import StatusCode
from rpc import METHODS, NO_LIMIT, Refusal, bearer, refused, request

MIB = 1 << 20
CREATE, WRITE = "SandboxService/CreateSandbox", "SandboxService/WriteFile"
# What one caller may have of one replica, by the chart.
STREAMS = 1024


def test_the_largest_message_is_of_100_mebibytes(box):
    """That large ones are read is told by what is found wrong in them."""
    container = {"image": "python:3.11", "files": [{"path": "/large", "content": bytes(90 * MIB)}]}
    told = refused(CREATE, request(CREATE, sandbox={"spec": {"containers": [container]}}))
    assert told.code == StatusCode.INVALID_ARGUMENT and "files[0]" in told.text and str(90 * MIB) in told.text, told
    container["files"][0]["content"] = bytes(100 * MIB)
    told = refused(CREATE, request(CREATE, sandbox={"spec": {"containers": [container]}}))
    assert told.code == StatusCode.RESOURCE_EXHAUSTED and str(100 * MIB) in told.text, told
    assert not told.pause, "it would not be smaller later"


def test_the_sdk_is_told_of_files_that_are_too_large(defaults):
    for mebibytes, error in ((9, SandboxValidationError), (101, SandboxResourceExhaustedError)):
        with pytest.raises(error):
            Sandbox.run(mounted_files=[{"mount_path": "/large", "file_content": bytes(mebibytes * MIB)}], defaults=defaults)


def test_a_file_in_one_piece_is_of_32_mebibytes(box):
    told = refused(WRITE, request(WRITE, sandbox_id=box.sandbox_id, path="/tmp/large", content=bytes(32 * MIB + 1)))
    facts = {"filepath": "/tmp/large", "size_bytes": str(32 * MIB + 1), "max_size_bytes": str(32 * MIB)}
    assert (told.reason, dict(told.info.metadata)) == ("CWSANDBOX_FILE_TOO_LARGE", facts)
    told = refused(WRITE, request(WRITE, sandbox_id=box.sandbox_id, path="/tmp/large", content=bytes(34 * MIB)))
    assert told.code == StatusCode.RESOURCE_EXHAUSTED, told
    assert box.exec(["test", "-e", "/tmp/large"]).result().returncode == 1


def test_other_messages_are_small(box):
    name = "SandboxService/GetSandbox"
    assert refused(name, request(name, sandbox_id="x" * 5 * MIB)).code == StatusCode.RESOURCE_EXHAUSTED
    assert box.get_status() == "running"


def test_streams_at_once(replicas):
    """One that counts is refused until another has ended. They wait for their first message, so that they cost next to nothing."""
    headers = bearer(key_of("greedy"))

    async def run():
        # A connection takes 256 calls at once. Without its own pool it would be the same one each time.
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
        raise AssertionError("answered")

    async def fill(channels):
        calls, ends = [], []
        for channel in channels[:-1]:
            some = [begin(channel) for _ in range(256)]
            calls += some
            ends += [asyncio.ensure_future(ended(call)) for call in some]
            # Not so many at once that their rate is refused.
            done, _ = await asyncio.wait(ends, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            assert not done, [d.result() for d in done]
        over = await ended(begin(channels[-1]))
        assert (over.code, over.reason) == (StatusCode.RESOURCE_EXHAUSTED, "CWSANDBOX_RATE_LIMITED") and "streams" in over.text, over
        assert over.pause > 0
        for call in calls[:2]:
            call.cancel()
        # There is room for it when the gateway has heard of that.
        for _ in range(50):
            again = asyncio.ensure_future(ended(begin(channels[-1])))
            done, _ = await asyncio.wait([again], timeout=0.2)
            if not done:
                return
        raise AssertionError("no place was given back")

    asyncio.run(run())
