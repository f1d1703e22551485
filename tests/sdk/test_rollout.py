"""A rolling restart of the gateway while callers use it."""

import threading

import grpc
import pytest
from conftest import eventually, gateway_pods, restart
from cwsandbox import Sandbox
from grpc import StatusCode
from rpc import Refusal, calling, request

pytestmark = pytest.mark.alone

# Maximum duration of a call while replicas change, in seconds.
PATIENCE = 30


class Caller(threading.Thread):
    """Repeats a call until it is stopped, and keeps the error if one occurs."""

    def __init__(self, what):
        super().__init__(daemon=True)
        self.what, self.stop, self.done, self.error = what, threading.Event(), 0, None

    def run(self):
        try:
            while not self.stop.is_set():
                self.what(self.done)
                self.done += 1
                self.stop.wait(0.05)
        except BaseException as error:  # noqa: BLE001 - the test reports it
            self.error = error


class Reader(threading.Thread):
    """Reads a stream to its end and keeps the error."""

    def __init__(self, method, **fields):
        super().__init__(daemon=True)
        self.method, self.message, self.answers, self.refusal = method, request(method, **fields), 0, None

    def run(self):
        try:
            with calling(self.method, self.message, timeout=None) as answers:
                for _ in answers:
                    self.answers += 1
        except grpc.RpcError as error:
            self.refusal = Refusal(error)


def test_callers_do_not_notice_a_rolling_restart(tag, defaults):
    before = gateway_pods()
    script = "i=0; until [ -e /tmp/enough ]; do echo $i; i=$((i+1)); sleep 0.1; done"
    writer = Sandbox.run("sh", "-c", script, defaults=defaults).wait()
    worker = Sandbox.run(defaults=defaults).wait()
    worker.write_file("/tmp/kept", b"kept").result()

    received = []
    follower = threading.Thread(target=lambda: received.extend(writer.stream_logs(follow=True)), daemon=True)
    streams = []
    # Several streams of each kind, so that both replicas serve some.
    for _ in range(6):
        streams.append(Reader("SandboxService/StreamLogs", sandbox_id=writer.sandbox_id, follow=True))
        streams.append(Reader("SandboxService/StreamExec", init={"sandbox_id": worker.sandbox_id, "command": ["sleep", "600"]}))

    def exec_(n):
        assert worker.exec(["sh", "-c", f"sleep 1; echo {n}"], timeout_seconds=PATIENCE).result().stdout == f"{n}\n"

    def files(n):
        worker.write_file(f"/tmp/{n}", str(n).encode(), timeout_seconds=PATIENCE).result()
        assert worker.read_file(f"/tmp/{n}", timeout_seconds=PATIENCE).result() == str(n).encode()

    def lookup(_):
        found = Sandbox.from_id(worker.sandbox_id).result()
        assert found.read_file("/tmp/kept").result() == b"kept"
        assert worker.sandbox_id in {s.sandbox_id for s in Sandbox.list(tags=[tag]).result()}

    def life(_):
        with Sandbox.run(defaults=defaults) as sandbox:
            assert sandbox.exec(["echo", "new"]).result().stdout == "new\n"

    callers = [Caller(what) for what in (exec_, files, lookup, life)]
    for thread in [follower, *streams, *callers]:
        thread.start()
    eventually(lambda: all(s.answers for s in streams) and all(c.done or c.error for c in callers))

    restart("gateway")
    assert len(gateway_pods()) == len(before) and not set(gateway_pods()) & set(before)

    counts = [c.done for c in callers]
    eventually(lambda: all(c.error or c.done > n for c, n in zip(callers, counts, strict=True)))
    for caller in callers:
        caller.stop.set()
    for caller in callers:
        caller.join(PATIENCE)
        assert caller.error is None, f"{caller.what.__name__} at call {caller.done}: {caller.error!r}"
    for stream in streams:
        stream.join(PATIENCE)
        refusal = stream.refusal
        assert refusal and refusal.code == StatusCode.UNAVAILABLE and refusal.pause > 0, f"{stream.method}: {refusal}"

    assert worker.exec(["sh", "-c", "cat /tmp/kept; pgrep -fx 'sleep 600' | wc -l"]).result().stdout == "kept0\n"
    writer.write_file("/tmp/enough", b"").result()
    follower.join(PATIENCE)
    assert len(received) > 100 and "".join(received) == "".join(f"{i}\n" for i in range(len(received))), "the SDK continues on the new replicas"
    writer.wait_until_complete().result()
    assert {s.sandbox_id for s in Sandbox.list(tags=[tag]).result()} == {worker.sandbox_id}
