"""A log that another process can read while it is written, and that a kill cannot spoil."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time

import pytest

from loadbench.core.errors import BadInput
from loadbench.results import append_log
from loadbench.results import folder as folder_module
from loadbench.results.append_log import AppendLog, is_being_written
from loadbench.results.folder import RESERVED_BYTES, RunFolder
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
    with AppendLog(RunFolder(tmp_path), "log") as log:
        log.open()
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
    with AppendLog(RunFolder(tmp_path), "log") as log:
        log.add(b"next\n")
    assert path.read_bytes() == whole + b"next\n"


def test_one_process_writes_a_log(tmp_path):
    """Who wants to continue a run that is still going on is told so; afterwards it is free."""
    path = tmp_path / "log"
    assert not is_being_written(path)
    with AppendLog(RunFolder(tmp_path), "log") as log:
        log.open()
        log.add(b"one\n")
        assert is_being_written(path)
        with pytest.raises(BadInput, match="another loadbench is writing"):
            AppendLog(RunFolder(tmp_path), "log").open()
    assert not is_being_written(path)
    assert path.read_bytes() == b"one\n"


def no_room(monkeypatch, *room: int) -> None:
    """Of the next writes so many bytes are taken, and where it is none, the disk is full."""
    real, left = os.write, list(room)

    def write(file: int, data) -> int:
        if not left:
            return real(file, data)
        if not (most := left.pop(0)):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, bytes(data)[:most])

    monkeypatch.setattr(os, "write", write)


def test_what_can_be_written_nowhere_waits(tmp_path, monkeypatch):
    """A write that fails half-way leaves whole lines, loses nothing and repeats nothing: the rest follows later."""
    monkeypatch.setattr(folder_module, "other_places", list)
    folder, path = RunFolder(tmp_path), tmp_path / "log"
    with AppendLog(folder, "log") as log:
        log.add(b"one\ntwo\n")
        no_room(monkeypatch, 6, 0)
        log.flush()
        assert (log.waiting, path.read_bytes()) == (1, b"one\n")
        assert folder.place.saved.endswith("log: 1 lines are missing: No space left on device")
        log.add(b"three\n")
        log.flush()
        assert (log.waiting, folder.place.unwritten) == (0, {})
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
    with pytest.raises(OSError, match="symbolic"), RequestLog(RunFolder(folder), origin_ns=0) as log:
        log.set_aside(0)
    assert mine.read_bytes() == b"half a line"


def test_log_goes_on_where_the_run_goes_on(tmp_path, monkeypatch):
    """The new place has every line once, those from before too."""
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(folder_module, "other_places", lambda: [str(other)])
    (tmp_path / "run").mkdir()
    folder = RunFolder(tmp_path / "run")
    with AppendLog(folder, "log") as log:
        log.add(b"one\n")
        log.flush()
        no_room(monkeypatch, 3, 0)
        log.add(b"two\n")
        log.flush()
        log.add(b"three\n")
    assert folder.path.is_relative_to(other)
    assert (folder.path / "log").read_bytes() == b"one\ntwo\nthree\n"
    assert (tmp_path / "run" / "log").read_bytes() == b"one\n"
    assert (log.waiting, folder.place.unwritten) == (0, {})


def test_log_leaves_room_for_the_result(tmp_path, monkeypatch):
    """It stops before the disk is full, so that run.json, which is small, still has room."""
    monkeypatch.setattr(folder_module, "other_places", list)
    free = [10 * RESERVED_BYTES, RESERVED_BYTES + 1, RESERVED_BYTES - 1]
    monkeypatch.setattr(append_log, "free_bytes", lambda _: free.pop(0))
    folder = RunFolder(tmp_path)
    log = AppendLog(folder, "log")
    log.open()
    for line in (b"one\n", b"two\n"):
        log._rest = bytearray(line)
        log.flush()
    assert (tmp_path / "log").read_bytes() == b"one\n"
    assert "No space left" in folder.place.unwritten["log"]
    monkeypatch.undo()
    log.close()


def test_memory_for_what_waits_is_bounded(tmp_path, monkeypatch):
    """With no place to write, lines beyond the bound are lost, and counted for good."""
    monkeypatch.setattr(folder_module, "other_places", list)
    monkeypatch.setattr(append_log, "_MOST_WAITING_BYTES", 100)
    folder = RunFolder(tmp_path)
    with AppendLog(folder, "log") as log:
        no_room(monkeypatch, *[0] * 1000)
        for _ in range(100):
            log.add(b"123456789\n")
        log.flush()
        assert (log.waiting, len(log._rest)) == (100, 110)
        monkeypatch.undo()
    assert (tmp_path / "log").read_bytes() == b"123456789\n" * 11
    assert log.waiting == 89
    assert "89 lines are missing" in folder.place.saved or "100 lines are missing" in folder.place.saved


def test_disk_that_hangs_holds_nobody_up(tmp_path, monkeypatch):
    """Lines are added without a wait while a write hangs, and a flush ends within its time."""
    monkeypatch.setattr(append_log, "HANGS_S", 0.2)
    hangs, goes_on, real = threading.Event(), threading.Event(), os.write

    def write(file: int, data) -> int:
        hangs.set()
        goes_on.wait(LIMIT_S)
        return real(file, data)

    folder = RunFolder(tmp_path)
    with AppendLog(folder, "log") as log, monkeypatch.context() as slow:
        slow.setattr(os, "write", write)
        log.add(b"one\n")
        assert hangs.wait(LIMIT_S)
        log.add(b"two\n")
        log.flush()
        assert folder.place.unwritten == {"log": "the disk does not respond"}
        goes_on.set()
        await_content(tmp_path / "log", b"one\ntwo\n")
        # The disk may be slow for others, and the end waits until it has the lines.
        monkeypatch.setattr(append_log, "HANGS_S", LIMIT_S)
    assert folder.place.unwritten == {}


def test_lines_are_set_aside_where_the_run_is(tmp_path, monkeypatch):
    """A continued run that has to move first leaves its old folder as it was."""
    monkeypatch.setattr(folder_module, "other_places", lambda: [tmp_path])
    old = tmp_path / "run"
    old.mkdir()
    lines = [b'{"level": 0, "end_ns": 1}\n', b'{"level": 1, "end_ns": 2}\n']
    (old / "requests.jsonl").write_bytes(b"".join(lines))
    folder = RunFolder(old)
    with RequestLog(folder, origin_ns=0) as log:
        log.flush()
        assert folder.place.move(OSError(errno.ENOSPC, "No space left on device"))
        log.set_aside(len(lines[0]))
    assert folder.path != old
    assert (folder.path / "requests.jsonl").read_bytes() == lines[0]
    assert (folder.path / "requests-interrupted.jsonl").read_bytes() == lines[1]
    assert (old / "requests.jsonl").read_bytes() == b"".join(lines)
