"""Logs of the main command."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta

from conftest import eventually
from cwsandbox import Sandbox
from cwsandbox.exceptions import SandboxStreamTruncatedError

SCRIPT = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.2; done"


def test_logs_of_an_ended_sandbox(defaults):
    sandbox = Sandbox.run("sh", "-c", "echo out; echo err >&2; printf end", defaults=defaults)
    sandbox.wait_until_complete().result()
    # Where the line of the other stream stands is the container runtime's business.
    assert "".join(sandbox.stream_logs()).replace("err\n", "", 1) == "out\nend"
    assert "".join(sandbox.stream_logs(since_time=datetime.now(UTC) + timedelta(hours=1))) == ""


def test_logs_are_followed_to_the_end(defaults):
    sandbox = Sandbox.run("sh", "-c", SCRIPT, defaults=defaults).wait()
    assert "".join(sandbox.stream_logs(follow=True)) == "".join(f"line {i}\n" for i in range(1, 11))


def test_timestamps_are_written_before_lines(defaults):
    sandbox = Sandbox.run("sh", "-c", SCRIPT + "; sleep 30", defaults=defaults).wait()
    eventually(lambda: "line 10\n" in "".join(sandbox.stream_logs()))
    lines = "".join(sandbox.stream_logs(timestamps=True, tail_lines=3)).splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) ", "", line) for line in lines] == ["line 8", "line 9", "line 10"]
    sandbox.stop().result()


def test_the_default_command_writes_no_log(box):
    assert "".join(box.stream_logs()) == ""


def test_a_follower_gets_the_last_output_of_a_stopped_sandbox(defaults):
    script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.1; done"
    for _ in range(3):
        sandbox, heard = Sandbox.run("sh", "-c", script, defaults=defaults).wait(), []
        reader = threading.Thread(target=lambda: heard.extend(sandbox.stream_logs(follow=True)), daemon=True)
        reader.start()
        eventually(lambda: heard)
        sandbox.stop().result()
        reader.join(15)
        # The SDK never ends a log whose sandbox it sees to have ended first.
        assert not reader.is_alive()
        assert "bye\n" in "".join(heard)

# The numbers: the kubelet rotates a log at 10 MiB, looking once in 10 s.
LINES, SECONDS = 600_000, 30
NUMBERED = f"""
import sys, time
begun = time.monotonic()
for start in range(0, {LINES}, 200):
    sys.stdout.write("".join(f"{{n:07}} {{'x' * 91}}\\n" for n in range(start, start + 200)))
    sys.stdout.flush()
    time.sleep(max(0, begun + start * {SECONDS} / {LINES} - time.monotonic()))
"""


def test_every_line_is_delivered_once_through_rotations_or_an_exception_comes_first(defaults):
    sandbox = Sandbox.run("python3", "-c", NUMBERED, defaults=defaults).wait()
    numbers, missing, begun = [], None, time.monotonic()
    try:
        numbers.extend(int(line[:7]) for line in sandbox.stream_logs(follow=True))
    except SandboxStreamTruncatedError as error:
        missing = error
    print(f"{len(numbers)} lines, {len(numbers) / (time.monotonic() - begun):.0f} per second; {missing}")
    assert numbers == list(range(len(numbers)))
    assert len(numbers) == LINES or missing



def test_a_caller_that_pauses_gets_every_line(defaults):
    sandbox = Sandbox.run("python3", "-c", NUMBERED, defaults=defaults).wait()
    stream = sandbox.stream_logs(follow=True)
    first = next(stream)
    time.sleep(SECONDS)
    assert [int(line[:7]) for line in (first, *stream)] == list(range(LINES))
