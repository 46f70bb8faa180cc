"""A file of lines that another process can read half a second after they were added, whatever ends this one.

A thread writes the lines and has the system put them on disk, so that no disk, however slow, holds up the event loop.
While a log is open its file is locked: nobody else can continue the same run. What cannot be written waits and is tried
again. A kill may leave half a line at the end, which is cut off when the file is opened again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from typing import TYPE_CHECKING, Self

from loadbench.core.errors import BadInput
from loadbench.results.folder import HANGS_S, RESERVED_BYTES, free_bytes, open_plain

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from loadbench.results.folder import RunFolder

# Twice a second: what a kill loses is less than a second, and a disk that is slow to sync keeps up.
_EVERY_S = 0.5
_STEP_BYTES = 1 << 16
# What could not be written is tried again less often, and at most this much of it is kept in memory.
_AGAIN_S = 5.0
_MOST_WAITING_BYTES = 64 * 1024 * 1024
# Behind the end of every log of that size: the last byte that Windows' C library can lock.
_LOCKED_BYTE = (1 << 31) - 2
# A link in a folder that came from elsewhere leads to a file that is not the run's.
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class AppendLog:
    """Appends lines to a file of a run, which is made with the first of them, or by `open`.

    What cannot be written here is written in the place to which the run moves then. What can be written nowhere waits,
    and is tried again; beyond a bound it is lost. `waiting` counts both.
    """

    def __init__(self, folder: RunFolder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file: int | None = None
        self._at: Path | None = None  # where it is open
        self._reserved = 0
        self._added = bytearray()
        self._adding = threading.Lock()  # held for a copy only
        self._rest = bytearray()  # whole lines that could not be written
        self._lost = 0
        self._synced = True
        self._thread: threading.Thread | None = None
        self._asked, self._done, self._closing = 0, 0, False
        self._changed = threading.Condition()  # of these three

    @property
    def path(self) -> Path:
        """The file, where it is now."""
        return self._folder.path / self._name

    @property
    def waiting(self) -> int:
        """Lines that were added and are not in the file."""
        with self._adding:
            return self._lost + self._rest.count(b"\n") + self._added.count(b"\n")

    def open(self) -> None:
        """Open the file, and cut off half a line at its end.

        Raises `OSError` if that fails, and `BadInput` if another process has it open.
        """
        self._folder.make()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
        if not lock(file):
            os.close(file)
            raise BadInput(f"{self.path}: another loadbench is writing this run", hint="wait until it ends, or stop it")
        self._file, self._at = file, self.path
        # On a small disk half of it is for this file.
        self._reserved = min(RESERVED_BYTES, (free_bytes(self._folder.path) or 0) // 2)
        size = os.lseek(file, 0, os.SEEK_END)
        whole, part = size, b""
        while whole and b"\n" not in part:
            # Lines may be longer than a step.
            whole = max(0, whole - _STEP_BYTES)
            os.lseek(file, whole, os.SEEK_SET)
            part = os.read(file, _STEP_BYTES)
        whole += part.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(file, whole)

    def _open_here(self) -> None:
        """Open the file where the run is now, if that is not done."""
        if self._file is not None and self._at != self.path:
            os.close(self._file)
            self._file = None
        if self._file is None:
            self.open()

    def move_from(self, start: int, path: Path) -> None:
        """Move what the file has from this byte on to the end of another file."""
        self._open_here()
        assert self._file is not None  # noqa: S101 - it is open
        if start >= os.lseek(self._file, 0, os.SEEK_END):
            return
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _FLAGS, 0o666), "wb") as other:
            os.lseek(self._file, start, os.SEEK_SET)
            while part := os.read(self._file, _STEP_BYTES):
                other.write(part)
            other.flush()
            os.fsync(other.fileno())
        os.ftruncate(self._file, start)

    def add(self, line: bytes) -> None:
        """Append one line; it is written soon."""
        with self._adding:
            if len(self._added) + len(self._rest) > _MOST_WAITING_BYTES:
                self._lost += 1
                return
            self._added += line
        if self._thread is None:
            thread = threading.Thread(target=self._keep_writing, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads are allowed: `flush` writes the lines
                thread.start()
                self._thread = thread

    def flush(self) -> None:
        """Write every line that was added, as far as that is possible. The thread does it, if there is one."""
        if self._thread is None or not self._thread.is_alive():
            self._flush()
            return
        with self._changed:
            # A disk that has not responded since the last time is not waited for again.
            waits_s = 0 if self._done < self._asked else HANGS_S
            self._asked = wanted = self._asked + 1
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._done >= wanted, waits_s)
        if not ended:
            self._folder.give_up(self._name, "the disk does not respond")

    def _flush(self) -> None:
        with self._adding:
            added, self._added = self._added, bytearray()
            self._rest = self._rest + added if self._rest else added
        while self._rest:
            with self._folder.place.lock:  # while the run moves, nothing may be added behind its back
                reason = self._write()
            if reason is not None and not self._folder.place.move(reason):
                self._folder.give_up(self._name, f"{self.waiting} lines are missing: {reason.strerror or reason}")
                return
        if not self._lost:
            self._folder.kept(self._name)

    def _write(self) -> OSError | None:
        """Write what waits; returns why some of it, which is whole lines, is left."""
        begins = done = 0
        try:
            self._open_here()
            assert self._file is not None  # noqa: S101 - it is open
            free = free_bytes(self._folder.path)
            if free is not None and free < self._reserved:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            begins = os.lseek(self._file, 0, os.SEEK_END)
            while done < len(self._rest):
                done += os.write(self._file, memoryview(self._rest)[done:])
                self._synced = False
        except BadInput as error:
            return OSError(errno.EFBIG, error.message)  # another place is no remedy
        except OSError as error:
            whole = self._rest.rfind(b"\n", 0, done) + 1
            if whole < done and self._file is not None:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, begins + whole)
            self._rest = self._rest[whole:]
            return error
        self._rest = bytearray()
        return None

    def _keep_writing(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                due = lambda: self._closing or self._asked > self._done  # noqa: E731 - read under the lock
                self._changed.wait_for(due, _AGAIN_S if self._rest else _EVERY_S)
                closing, asked = self._closing, self._asked
            if self._added or self._rest:
                self._flush()
            elif not self._lost:  # also after a disk that did not respond in time
                self._folder.kept(self._name)
            with self._changed:
                self._done = asked
                self._changed.notify_all()
            self._sync()
        self._close()

    def _sync(self) -> None:
        file = self._file
        if not self._synced and file is not None:
            self._synced = True
            with contextlib.suppress(OSError):
                os.fsync(file)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Write what is left, and close the file."""
        thread, self._thread = self._thread, None
        if thread is None:
            self._flush()
            self._sync()
            self._close()
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        thread.join(HANGS_S)
        if thread.is_alive():
            self._folder.give_up(self._name, "the disk does not respond")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_being_written(path: Path) -> bool:
    """Whether a process has this log open; false where the file system has no locks."""
    try:
        with open_plain(path) as file:
            return not lock(file.fileno())
    except OSError:
        return False


def is_run_being_written(folder: Path) -> bool:
    """Whether a process measures the run in this folder, or continues it; false where the system has no locks."""
    if any(is_being_written(log) for log in folder.rglob("requests.jsonl")):
        return True
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems open no folders
        return False
    try:
        return not lock(held)
    finally:
        os.close(held)


def lock(file: int) -> bool:
    """Whether the file is this process's now, or could not be locked at all; closing it unlocks it."""
    try:
        if sys.platform == "win32":
            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass  # a file system without locks
    return True


def unlock(file: int) -> None:
    """Leave the file, which was locked by this process and stays open, to others."""
    with contextlib.suppress(OSError):  # a file system without locks
        if sys.platform == "win32":
            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            fcntl.flock(file, fcntl.LOCK_UN)
