"""Files of a running sandbox."""

import os

import pytest
from cwsandbox import SandboxFileError


def test_a_written_file_can_be_read(box):
    box.write_file("/tmp/a/b/c.txt", b"parents are created").result()
    assert box.read_file("/tmp/a/b/c.txt").result() == b"parents are created"


def test_relative_paths_start_in_the_working_directory(box):
    box.write_file("hello.txt", b"hello").result()
    assert box.read_file("hello.txt").result() == b"hello"
    assert box.exec(["cat", "hello.txt"]).result().stdout == "hello"


def test_a_replaced_file_keeps_its_mode(box):
    box.exec(["sh", "-c", "echo old > /tmp/mode; chmod 750 /tmp/mode"], check=True).result()
    box.write_file("/tmp/mode", b"new").result()
    assert box.exec(["sh", "-c", "stat -c %a /tmp/mode; cat /tmp/mode"]).result().stdout == "750\nnew"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing/here", "CWSANDBOX_FILE_NOT_FOUND"),
        ("/tmp", "CWSANDBOX_FILE_IS_DIRECTORY"),
    ],
)
def test_an_error_names_the_file(box, path, reason):
    with pytest.raises(SandboxFileError) as caught:
        box.read_file(path).result()
    assert (caught.value.filepath, caught.value.reason) == (path, reason)


def test_a_directory_cannot_be_written(box):
    with pytest.raises(SandboxFileError) as caught:
        box.write_file("/tmp", b"x").result()
    assert caught.value.reason == "CWSANDBOX_FILE_IS_DIRECTORY"


def test_reading_a_special_file_fails_without_hanging(box):
    box.exec(["sh", "-c", "test -p /tmp/fifo || mkfifo /tmp/fifo"], check=True).result()
    for path in ("/tmp/fifo", "/dev/zero"):
        with pytest.raises(SandboxFileError):
            box.read_file(path, timeout_seconds=30).result()


@pytest.mark.parametrize("mebibytes", [0, 1, 31])
def test_sizes_in_one_call(box, mebibytes):
    content = os.urandom(mebibytes << 20)
    box.write_file("/tmp/blob", content).result()
    assert box.read_file("/tmp/blob").result() == content


def test_a_file_that_is_too_large_for_one_call(box):
    content = os.urandom(40 << 20)
    box.write_file("/tmp/big", content).result()
    assert box.read_file("/tmp/big").result() == content


def test_streams(box):
    parts = [os.urandom(1 << 20) for _ in range(8)]
    box.write_file_streaming("/tmp/stream", iter(parts)).result()
    assert b"".join(box.read_file_streaming("/tmp/stream")) == b"".join(parts)
