"""A server in a process of its own, so that it does not share a loop or a core with what measures it: both sides of it.

The child is told to end by the end of its standard input: whatever becomes of the parent, the system closes that pipe,
and no server is left behind. It has a session (on Windows a process group) of its own: Ctrl-C in the terminal reaches
the parent alone, which drains its requests before it lets the server go.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from loadbench.core.errors import LoadbenchError
from loadbench.sim.profile import DEFAULT_PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

# Ten times what a cold start takes on a slow disk.
_STARTS_WITHIN_S = 20.0
# For each of the three ways to end it: asked, told, killed.
_ENDS_WITHIN_S = 3.0
_READY = "READY "
# Windows has no sessions, and no such flag is known elsewhere; each system ignores what it has not.
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class ServerProcess:
    """One of our server modules in a child process, from entering the context to leaving it.

    Entering raises `LoadbenchError`, with what the child said, where it does not start.
    """

    _child: subprocess.Popen[bytes]
    _errors: IO[bytes]

    def __init__(self, module: str, options: Sequence[str], *, name: str) -> None:
        self._command = [sys.executable, "-m", module, *options]
        self._name = name
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it serves, as in `http://127.0.0.1:4711`; with no path."""
        if self._url is None:
            raise RuntimeError(f"{self._name} is not running: use it inside its context")
        return self._url

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        self._child = subprocess.Popen(  # noqa: S603 - our own module, our own options
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
            creationflags=_OWN_GROUP,
        )
        try:
            self._url = self._await_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._url = None
        self._end()

    def _await_ready(self) -> str:
        """The URL in the child's first line. A thread reads it: pipes have no time limit on every system."""
        lines: list[str] = []
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - it is a pipe
        reader = threading.Thread(target=lambda: lines.append(stdout.readline().decode()), daemon=True)
        reader.start()
        reader.join(_STARTS_WITHIN_S)
        if reader.is_alive():
            self._child.kill()
            reader.join()
            raise LoadbenchError(f"{self._name} did not start within {_STARTS_WITHIN_S:g} s")
        if not lines[0].startswith(_READY):
            self._child.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "it ended without a word")
            raise LoadbenchError(f"{self._name} did not start: {last}")
        return lines[0].removeprefix(_READY).strip()

    def _end(self) -> None:
        """Ask, then tell, then kill; each in its time."""
        child = self._child
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        for harder in (child.terminate, child.kill):
            if not self._has_ended():
                harder()
        child.wait()
        self._errors.close()

    def _has_ended(self) -> bool:
        try:
            self._child.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            return False
        return True


class SimProcess(ServerProcess):
    """The simulated server in a child process; `speed` divides all its times."""

    def __init__(
        self, profile: str = DEFAULT_PROFILE, *, seed: int = 0, models: Sequence[str] = (), speed: float = 1.0
    ) -> None:
        named = [f"--model={name}" for name in models]
        options = [f"--profile={profile}", f"--seed={seed}", f"--speed={speed!r}", "--port=0", *named]
        super().__init__("loadbench.sim", options, name="the simulated server")


class TruthProcess(ServerProcess):
    """The truth server, `loadbench.sim.truth`, in a child process."""

    def __init__(self) -> None:
        super().__init__("loadbench.sim.truth", ["--port=0"], name="the truth server")


# The child's side.


def end_with_parent(end: Callable[[], object]) -> None:
    """Have `end` called, in a signal handler or another thread, on SIGINT, SIGTERM and the end of standard input."""
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is Windows' way to reach a process group
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: end())
    threading.Thread(target=_await_end_of_stdin, args=(end,), daemon=True).start()


def _await_end_of_stdin(end: Callable[[], object]) -> None:
    """Read the file itself: a thread that waits in `sys.stdin` holds a lock that the interpreter's end wants."""
    while os.read(0, 4096):
        pass
    end()


def from_outside(call: Callable[[], object]) -> Callable[..., None]:
    """`call` for a signal handler or a thread: in the event loop that runs now, and never once that has closed."""
    loop = asyncio.get_running_loop()

    def later(*_: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: that is the end too
            loop.call_soon_threadsafe(call)

    return later


def say_ready(url: str) -> None:
    """The line that the parent waits for."""
    sys.stdout.write(f"{_READY}{url}\n")
    sys.stdout.flush()
