"""Commands in a running sandbox."""

import time

import pytest
from cwsandbox import SandboxExecutionError, SandboxTimeoutError


def test_stdout_stderr_and_exit_code(box):
    result = box.exec(["sh", "-c", "echo out; echo err >&2; exit 3"]).result()
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_check_raises_on_failure(box):
    with pytest.raises(SandboxExecutionError):
        box.exec(["false"], check=True).result()


def test_the_working_directory(box):
    assert box.exec(["pwd"], cwd="/tmp").result().stdout == "/tmp\n"


def test_a_missing_program(box):
    try:
        assert box.exec(["no-such-program"]).result().returncode == 127
    except SandboxExecutionError as error:
        assert "no-such-program" in str(error)


def test_a_signal_gives_128_plus_its_number(box):
    assert box.exec(["sh", "-c", "kill -KILL $$"]).result().returncode == 137


def test_lines_arrive_as_they_are_written(box):
    process = box.exec(["sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do echo line$i; sleep 0.2; done"])
    seen = [(line, time.monotonic()) for line in process.stdout]
    assert [line for line, _ in seen] == [f"line{i}\n" for i in range(10)]
    assert seen[-1][1] - seen[0][1] > 1.0
    assert process.result().returncode == 0


def test_stderr_is_separate_and_poll_returns_the_exit_code(box):
    process = box.exec(["sh", "-c", "read x; echo out; echo err >&2"], stdin=True)
    assert process.poll() is None
    process.stdin.writeline("go").result()
    process.stdin.close().result()
    assert (list(process.stdout), list(process.stderr)) == (["out\n"], ["err\n"])
    process.result()
    assert process.poll() == 0


def test_a_timeout_raises_and_the_command_is_killed(box):
    with pytest.raises(SandboxTimeoutError):
        box.exec(["sh", "-c", "sleep 7357 & sleep 7357"], timeout_seconds=1).result()
    count = ["sh", "-c", "pgrep -fx 'sleep 7357' | wc -l"]
    end = time.monotonic() + 10
    while box.exec(count).result().stdout.strip() != "0":
        assert time.monotonic() < end, "the command still runs"


@pytest.mark.parametrize("command", [["cat"], ["sh", "-c", "cat"], ["python", "-c", "import sys; sys.stdout.write(sys.stdin.read())"]])
def test_a_command_reads_stdin_to_its_end(box, command):
    process = box.exec(command, stdin=True)
    text = "".join(f"{i:07}\n" for i in range(40_000))  # more than one frame
    process.stdin.write(text.encode()).result()
    process.stdin.close().result()
    assert process.result().stdout == text


def test_sort_waits_for_the_end_of_input(box):
    process = box.exec(["sort"], stdin=True)
    for word in ("c", "a", "b"):
        process.stdin.writeline(word).result()
    process.stdin.close().result()
    assert process.result().stdout == "a\nb\nc\n"


def test_a_shell_reads_commands_from_stdin(box):
    process = box.exec(["sh"], stdin=True)
    for line in ("x=41", "echo $((x + 1))", "exit 6"):
        process.stdin.writeline(line).result()
    result = process.result()
    assert (result.stdout, result.returncode) == ("42\n", 6)


def test_large_output_is_complete_and_in_order(box):
    result = box.exec(["seq", "1", "2000000"], timeout_seconds=120).result()
    assert result.stdout_bytes == b"".join(b"%d\n" % i for i in range(1, 2_000_001))


def test_binary_output(box):
    result = box.exec(["python", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)))"]).result()
    assert result.stdout_bytes == bytes(range(256))


def test_characters_are_not_split(box):
    process = box.exec(["python", "-c", "print('é€😀' * 200_000)"], timeout_seconds=60)
    assert "".join(process.stdout) == "é€😀" * 200_000 + "\n"


def test_a_background_process_does_not_block_the_call_and_keeps_running(box):
    began = time.monotonic()
    assert (
        box.exec(["sh", "-c", "(while :; do echo noise; sleep 0.1; done) & echo $! > /tmp/bg; echo started"]).result().stdout.count("started\n") == 1
    )
    assert time.monotonic() - began < 30
    time.sleep(1)
    assert box.exec(["sh", "-c", "kill -0 $(cat /tmp/bg) && kill $(cat /tmp/bg)"]).result().returncode == 0


def test_many_commands_at_once(box):
    processes = [box.exec(["sh", "-c", f"sleep 1; echo {i}"]) for i in range(50)]
    assert [p.result().stdout for p in processes] == [f"{i}\n" for i in range(50)]


def test_a_terminal_has_a_size_and_an_exit_code(box):
    session = box.shell(["sh"], width=101, height=33)
    session.stdin.write(b"stty size; tty\n").result()
    seen = b""
    for chunk in session.output:
        seen += chunk
        if b"/dev/pts/" in seen and b"33 101" in seen:
            break
    session.resize(120, 44)
    session.stdin.write(b"sleep 0.5; stty size; exit 5\n").result()
    for chunk in session.output:
        seen += chunk
    assert b"44 120" in seen
    assert session.result().returncode == 5
