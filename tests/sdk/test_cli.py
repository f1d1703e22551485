"""The SDK's command line."""

import json
import os
import subprocess
import sys

from conftest import eventually
from cwsandbox import Sandbox


def cli(*args, check=True, **more):
    done = subprocess.run([sys.executable, "-m", "cwsandbox", *args], capture_output=True, text=True, timeout=60, **more)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_ls_get_exec_files_logs(box, tmp_path):
    ident = box.sandbox_id
    assert ident in cli("ls", "--tag", "shared").stdout
    assert any(s["sandbox_id"] == ident for s in json.loads(cli("ls", "-o", "json").stdout))
    assert ident in cli("get", ident).stdout
    assert cli("exec", ident, "echo", "hello").stdout == "hello\n"
    assert cli("exec", ident, "sh", "-c", "exit 7", check=False).returncode == 7
    local = tmp_path / "local"
    local.write_bytes(b"from the command line")
    cli("files", "write", ident, "/tmp/cli", str(local))
    assert cli("files", "read", ident, "/tmp/cli").stdout == "from the command line"
    assert cli("logs", ident).stdout == ""


def test_stop_logs_and_delete(defaults):
    sandbox = Sandbox.run("sh", "-c", "for i in 1 2 3; do echo $i; done; exec sleep infinity", defaults=defaults).wait()
    eventually(lambda: cli("logs", sandbox.sandbox_id).stdout == "1\n2\n3\n")
    assert cli("logs", sandbox.sandbox_id, "--tail", "1").stdout == "3\n"
    cli("stop", sandbox.sandbox_id)
    cli("delete", sandbox.sandbox_id, "--missing-ok")
    assert cli("get", "no-such-sandbox", check=False).returncode != 0


def test_an_interactive_shell(box):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "cwsandbox", "sh", box.sandbox_id, "--cmd", "sh"]
    shell = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    # Input is lost until the terminal is in raw mode, so wait for the prompt.
    while not os.read(ours, 65536).strip().endswith((b"#", b"$")):
        pass
    os.write(ours, b"echo in-$((40+2)); exit 4\n")
    assert shell.wait(timeout=60) == 4
    assert b"in-42" in os.read(ours, 65536)
    os.close(ours)
