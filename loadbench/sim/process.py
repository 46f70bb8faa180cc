"""The simulated server in a process of its own, so that it does not share a loop or a core with what measures it.

The child is told to end by the end of its standard input: whatever becomes of the parent, the system closes that pipe,
and no server is left behind. It has a session (on Windows a process group) of its own: Ctrl-C in the terminal reaches
the parent alone, which drains its requests before it lets the server go.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from loadbench.core.errors import LoadbenchError
from loadbench.sim.profile import DEFAULT_PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# Ten times what a cold start takes on a slow disk.
_STARTS_WITHIN_S = 20.0
# For each of the three ways to end it: asked, told, killed.
_ENDS_WITHIN_S = 3.0
_READY = "READY "
# Windows has no sessions, and no such flag is known elsewhere; each system ignores what it has not.
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class SimProcess:
    """A server in a child process, from entering the context to leaving it; `speed` divides all its times.

    Entering raises `LoadbenchError`, with what the child said, where it does not start.
    """

    _child: subprocess.Popen[bytes]
    _errors: IO[bytes]

    def __init__(
        self, profile: str = DEFAULT_PROFILE, *, seed: int = 0, models: Sequence[str] = (), speed: float = 1.0
    ) -> None:
        named = [f"--model={name}" for name in models]
        options = [f"--profile={profile}", f"--seed={seed}", f"--speed={speed!r}", "--port=0", *named]
        self._command = [sys.executable, "-m", "loadbench.sim", *options]
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where it serves, as in `http://127.0.0.1:4711`; with no path."""
        if self._url is None:
            raise RuntimeError("the simulated server is not running: use it inside its context")
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
            raise LoadbenchError(f"the simulated server did not start within {_STARTS_WITHIN_S:g} s")
        if not lines[0].startswith(_READY):
            self._child.wait()
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(said) if line.strip()), "it ended without a word")
            raise LoadbenchError(f"the simulated server did not start: {last}")
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
