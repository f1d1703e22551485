"""Logs of the main command."""

import re
import threading
from datetime import UTC, datetime, timedelta

from conftest import eventually
from cwsandbox import Sandbox

SCRIPT = "for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; sleep 0.2; done"


def test_logs_of_what_has_ended(defaults):
    sandbox = Sandbox.run("sh", "-c", "echo out; echo err >&2; printf end", defaults=defaults)
    sandbox.wait_until_complete().result()
    # Where the line of the other stream stands is the container runtime's business.
    assert "".join(sandbox.stream_logs()).replace("err\n", "", 1) == "out\nend"
    assert "".join(sandbox.stream_logs(since_time=datetime.now(UTC) + timedelta(hours=1))) == ""


def test_logs_are_followed_to_the_end(defaults):
    sandbox = Sandbox.run("sh", "-c", SCRIPT, defaults=defaults).wait()
    assert "".join(sandbox.stream_logs(follow=True)) == "".join(f"line {i}\n" for i in range(1, 11))


def test_times_are_written_before_lines(defaults):
    sandbox = Sandbox.run("sh", "-c", SCRIPT + "; sleep 30", defaults=defaults).wait()
    eventually(lambda: "line 10\n" in "".join(sandbox.stream_logs()))
    lines = "".join(sandbox.stream_logs(timestamps=True, tail_lines=3)).splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d) ", "", line) for line in lines] == ["line 8", "line 9", "line 10"]
    sandbox.stop().result()


def test_the_default_command_says_nothing(box):
    assert "".join(box.stream_logs()) == ""


def test_who_follows_sees_the_last_words_of_a_sandbox_that_is_stopped(defaults):
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
