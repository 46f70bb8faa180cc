"""A file of lines that another process can read half a second after they were added, whatever ends this one.

A thread writes the lines and has the system put them on disk, so that no disk, however slow, holds up the event loop.
While a log is open its file is locked: nobody else can continue the same run. What cannot be written waits and is tried
again. A kill may leave half a line at the end, which is cut off when the file is opened again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Self

from loadbench.core.errors import BadInput

try:
    import fcntl
except ImportError:  # not a POSIX system: nothing is locked
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

# Twice a second: what a kill loses is less than a second, and a disk that is slow to sync keeps up.
_EVERY_S = 0.5
_STEP_BYTES = 1 << 16
# A link in a folder that came from elsewhere leads to a file that is not the run's.
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class AppendLog:
    """Appends lines to the file, which is made if there is none; raises `OSError` if it cannot be opened, and
    `BadInput` if another process has it open. `failed` is why lines wait, if they could not be written.
    """

    def __init__(self, path: Path) -> None:
        self.failed: OSError | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o666)
        if not _lock(self._file):
            os.close(self._file)
            raise BadInput(f"{path}: another loadbench is writing this run", hint="wait until it ends, or stop it")
        size = os.lseek(self._file, 0, os.SEEK_END)
        whole, part = size, b""
        while whole and b"\n" not in part:
            # Lines may be longer than a step.
            whole = max(0, whole - _STEP_BYTES)
            os.lseek(self._file, whole, os.SEEK_SET)
            part = os.read(self._file, _STEP_BYTES)
        whole += part.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(self._file, whole)
        self._added = bytearray()
        self._adding = threading.Lock()  # held for a copy only
        self._rest = bytearray()  # of what could not be written
        self._writing, self._synced = threading.Lock(), True
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def move_from(self, start: int, path: Path) -> None:
        """Move what the file has from this byte on to the end of another file."""
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
            self._added += line
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_writing, name="log", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Write every line that was added; raises `OSError` if that fails."""
        with self._writing:
            with self._adding:
                added, self._added = self._added, bytearray()
            waiting, done = self._rest + added if self._rest else added, 0
            try:
                os.lseek(self._file, 0, os.SEEK_END)
                while done < len(waiting):
                    done += os.write(self._file, memoryview(waiting)[done:])
                    self._synced = False
                self.failed = None
            except OSError as error:
                self.failed = error
                raise
            finally:
                self._rest = waiting[done:]

    def _keep_writing(self) -> None:
        while not self._closing.wait(_EVERY_S):
            self._write_and_sync()

    def _write_and_sync(self) -> None:
        with contextlib.suppress(OSError):
            if self._added or self._rest:
                self.flush()
            if not self._synced:
                self._synced = True
                os.fsync(self._file)

    def close(self) -> None:
        """Write what is left, and close the file; an error shows in `failed`."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._write_and_sync()
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An error while closing would hide how the run ended.
        self.close()


def is_being_written(path: Path) -> bool:
    """Whether a process has this log open; false where nothing is locked."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _lock(file)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    """Whether the file is this process's now, or could not be locked at all; closing it unlocks it."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True
