"""Every replica of the gateway serves every call. The tests call two replicas at their own addresses."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import grpc
from conftest import ELSEWHERE, SMALL, eventually, key_of
from cwsandbox import Sandbox
from grpc import StatusCode
from proxy import Proxy
from rpc import Refusal, bearer, call, calling, refused, request

CREATE, GET, LIST, DELETE, LOGS = (f"SandboxService/{m}" for m in ("CreateSandbox", "GetSandbox", "ListSandboxes", "DeleteSandbox", "StreamLogs"))


def create_request(tag, request_id="", text="same"):
    """A request for a small sandbox. With a mounted file, creating it takes more than one step."""
    container = {"image": "python:3.11", "command": "sleep", "args": ["infinity"], "resource_requirements": SMALL}
    container["files"] = [{"path": "/note", "content": text.encode()}]
    return request(CREATE, sandbox={"spec": {"containers": [container], "tags": [tag], "max_lifetime_seconds": 120}}, request_id=request_id)


def sandbox_ids(tag):
    return [s.sandbox_id for s in call(LIST, request(LIST, tags=[tag], show_terminated=True)).sandboxes]


def test_a_new_sandbox_is_visible_on_every_replica_at_once(replicas, tag):
    for here, there in (replicas, replicas[::-1]) * 2:
        sandbox = call(CREATE, create_request(tag), to=here)
        for replica in (there, here):
            assert call(GET, request(GET, sandbox_id=sandbox.sandbox_id), to=replica).spec.tags == [tag]
        answer = call(DELETE, request(DELETE, sandbox_id=sandbox.sandbox_id), to=there)
        assert answer.sandbox.sandbox_id == sandbox.sandbox_id
    eventually(lambda: len(sandbox_ids(tag)) == 4)


def test_the_same_request_to_two_replicas_creates_one_sandbox(replicas, tag):
    one = create_request(tag, request_id=str(uuid.uuid4()))
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda to: call(CREATE, one, to=to).sandbox_id, replicas * 4))
    assert len(set(ids)) == 1
    sandbox = Sandbox.from_id(ids[0]).result().wait()
    assert sandbox.read_file("/note").result() == b"same"
    for replica in replicas:
        assert call(CREATE, one, to=replica).sandbox_id == ids[0], "also while it runs"
        conflict = refused(CREATE, create_request(tag, request_id=one.request_id, text="other"), to=replica)
        assert (conflict.code, conflict.reason) == (StatusCode.ALREADY_EXISTS, "CWSANDBOX_REQUEST_ID_CONFLICT")
    assert sandbox_ids(tag) == [ids[0]]


def test_one_of_two_bodies_with_the_same_request_id_wins(replicas, tag):
    request_id = str(uuid.uuid4())

    def attempt(which):
        text, to = which
        try:
            return text, call(CREATE, create_request(tag, request_id=request_id, text=text), to=to).sandbox_id
        except grpc.RpcError as error:
            return text, Refusal(error).reason

    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(attempt, [("this", replicas[0]), ("that", replicas[1])] * 4))
    (winner,) = {text for text, answer in results if answer != "CWSANDBOX_REQUEST_ID_CONFLICT"}
    assert len(results) == 2, f"each body has one result: {results}"
    (sandbox_id,) = eventually(lambda: sandbox_ids(tag))
    assert (winner, sandbox_id) in results
    assert Sandbox.from_id(sandbox_id).result().wait().read_file("/note").result() == winner.encode()


def test_request_ids_of_different_callers_are_independent(replicas, tag):
    one = create_request(tag, request_id=str(uuid.uuid4()))
    elsewhere = bearer(key_of("other-tenant", namespace=ELSEWHERE))
    theirs = call(CREATE, one, credentials=elsewhere, to=replicas[0]).sandbox_id
    mine = call(CREATE, one, to=replicas[1]).sandbox_id
    assert mine != theirs
    call(DELETE, request(DELETE, sandbox_id=theirs), credentials=elsewhere)


# Lines with characters of one to four bytes, in ten parts; the last line has no end. With an argument, the script waits for a file before
# each part but the first.
SCRIPT = """
import os, sys, time
for i in range(8_000):
    print(i, "é€😀" * (i % 7))
    if i % 800 == 799:
        sys.stdout.flush()
        while sys.argv[1:] and not os.path.exists(f"/tmp/{i}"):
            time.sleep(0.02)
        time.sleep(0.2)
print("end", end="")
"""
OUTPUT = ("".join(f"{i} {'é€😀' * (i % 7)}\n" for i in range(8_000)) + "end").encode()


def start_writer(defaults, *waits):
    return Sandbox.run("python", "-X", "utf8", "-c", SCRIPT, *waits, defaults=defaults).wait()


def test_logs_continue_on_another_replica_at_the_same_byte(replicas, defaults):
    """Reads the log in pieces from alternating replicas. It discards some received bytes, as if they had been lost in transit."""
    writer = start_writer(defaults)
    got, session, rounds = b"", "", cycle(replicas)
    for size in (1, 1_000, 19_999, 3, 40_000, 80_001, 7, None):
        resume = {"resume_log_session_id": session, "resume_log_offset": len(got)} if session else {}
        message = request(LOGS, sandbox_id=writer.sandbox_id, follow=True, **resume)
        piece, ended = b"", True
        with calling(LOGS, message, to=next(rounds)) as entries:
            for entry in entries:
                assert not entry.HasField("error"), entry.error
                session, piece = entry.log_session_id, piece + entry.data
                assert entry.next_log_offset == len(got) + len(piece)
                if size is not None and len(piece) >= size:
                    ended = False
                    break
            entries.cancel()
        assert ended == (size is None), "the log is too short for the test"
        got += piece[:size]
        assert OUTPUT.startswith(got)
    assert got == OUTPUT


def test_the_sdk_continues_to_read_logs_after_a_dropped_connection(replicas, defaults):
    writer = start_writer(defaults, "waits")
    proxy, rounds = Proxy(replicas[0]), cycle(replicas[::-1])
    behind = Sandbox.from_id(writer.sandbox_id, base_url=f"http://{proxy.address}").result()
    lines, cuts = [], 0
    try:
        for line in behind.stream_logs(follow=True):
            lines.append(line)
            if len(lines) % 800 == 0:
                cuts += proxy.switch(next(rounds))
                writer.write_file(f"/tmp/{len(lines) - 1}", b"").result()
    finally:
        proxy.close()
    assert cuts == 10, "the SDK reconnected each time"
    assert "".join(lines).encode() == OUTPUT
