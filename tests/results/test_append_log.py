"""A log that another process can read while it is written, and that a kill cannot spoil."""

from __future__ import annotations

import errno
import os
import sys
import time

import pytest

from loadbench.core.errors import BadInput
from loadbench.results.append_log import AppendLog, is_being_written
from loadbench.results.requests import RequestLog
from tests.cli.running import LIMIT_S


def await_content(path, content: bytes) -> None:
    """Until the file has it; nobody flushes."""
    ends = time.monotonic() + LIMIT_S
    while path.read_bytes() != content:
        assert time.monotonic() < ends, "never written"
        time.sleep(0.05)


def test_lines_are_written_without_a_flush(tmp_path):
    """Nothing else need happen: neither more lines nor the end of a level."""
    path = tmp_path / "log"
    with AppendLog(path) as log:
        log.add(b"one\n")
        await_content(path, b"one\n")
        log.add(b"two\n")
        await_content(path, b"one\ntwo\n")


@pytest.mark.parametrize("torn", [b"", b"x", b"y" * 200_000])
@pytest.mark.parametrize("whole", [b"", b"one\n", b"z" * 70_000 + b"\n"])
def test_half_a_line_is_cut_off(tmp_path, whole, torn):
    """What a kill left of a line, however long, is gone when the log is continued; whole lines stay."""
    path = tmp_path / "log"
    path.write_bytes(whole + torn)
    with AppendLog(path) as log:
        log.add(b"next\n")
    assert path.read_bytes() == whole + b"next\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_one_process_writes_a_log(tmp_path):
    """Who wants to continue a run that is still going on is told so; afterwards it is free."""
    path = tmp_path / "log"
    assert not is_being_written(path)
    with AppendLog(path) as log:
        log.add(b"one\n")
        assert is_being_written(path)
        with pytest.raises(BadInput, match="another loadbench is writing"):
            AppendLog(path)
    assert not is_being_written(path)
    assert path.read_bytes() == b"one\n"


def test_what_cannot_be_written_waits(tmp_path, monkeypatch):
    """A write that fails half-way loses nothing and repeats nothing: the rest follows when there is room again."""
    path, real, room = tmp_path / "log", os.write, [4, 0]

    def write(file: int, data) -> int:
        if not room:
            return real(file, data)
        most = room.pop(0)
        if not most:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, bytes(data)[:most])

    with AppendLog(path) as log:
        log.add(b"one\ntwo\n")
        monkeypatch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            log.flush()
        assert log.failed is not None
        log.add(b"three\n")
        log.flush()
        assert log.failed is None
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("linked", ["requests.jsonl", "requests-interrupted.jsonl"])
def test_a_link_is_not_written_through(linked, tmp_path):
    """A folder from elsewhere may have one that leads to a file of the user's."""
    mine, folder = tmp_path / "mine", tmp_path / "run"
    folder.mkdir()
    mine.write_bytes(b"half a line")
    (folder / "requests.jsonl").write_bytes(b'{"level": 0}\n')
    (folder / linked).unlink(missing_ok=True)
    (folder / linked).symlink_to(mine)
    with pytest.raises(OSError, match="symbolic"), RequestLog(folder / "requests.jsonl", origin_ns=0) as log:
        log.set_aside(0)
    assert mine.read_bytes() == b"half a line"
