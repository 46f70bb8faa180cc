"""A server in a child process, so that it shares no event loop and no core with the client: parent's and child's side.

The child ends when its standard input ends. However the parent ends, the system closes that pipe, so no server is left
behind. The child has its own session (on Windows its own process group), so Ctrl-C in the terminal reaches only the
parent, which drains its requests before it ends the server.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from loadbench.client.descriptors import ensure_descriptors
from loadbench.core.children import child_environment, python_command
from loadbench.core.errors import BadInput, LoadbenchError
from loadbench.plan.sim_profile import DEFAULT_PROFILE

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

# Ten times a cold start on a slow disk.
_STARTS_WITHIN_S = 20.0
# For each of the three ways to end it: end of input, terminate, kill.
_ENDS_WITHIN_S = 3.0
_READY = "READY "
# More than one core serves.
_MOST_CONNECTIONS = 20_000
# Windows has no sessions, and other systems do not have this flag; each ignores what it does not know.
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class ServerProcess:
    """One of our server modules in a child process, which runs while the context lasts.

    Entering raises `LoadbenchError` with the child's last line of stderr if it does not start.
    """

    _child: subprocess.Popen[bytes]
    _errors: IO[bytes]

    def __init__(self, module: str, options: Sequence[str], *, name: str) -> None:
        self._command = python_command(module, *options)
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
            env=child_environment(),
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
        """The URL in the child's first line. A thread reads it, because not every system has timeouts for pipes."""
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
            lines = self._errors.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it ended without a message")
            raise LoadbenchError(f"{self._name} did not start: {last}")
        return lines[0].removeprefix(_READY).strip()

    def _end(self) -> None:
        """Close its input, then terminate, then kill; each has its time."""
        child = self._child
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        for end in (child.terminate, child.kill):
            try:
                child.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                end()
        child.wait()
        self._errors.close()


class SimProcess(ServerProcess):
    """The simulated server in a child process; `speed` divides all its times."""

    def __init__(
        self, profile: str = DEFAULT_PROFILE, *, seed: int = 0, models: Sequence[str] = (), speed: float = 1.0
    ) -> None:
        model_options = [f"--model={name}" for name in models]
        options = [f"--profile={profile}", f"--seed={seed}", f"--speed={speed!r}", "--port=0", *model_options]
        super().__init__("loadbench.sim", options, name="the simulated server")


class TruthProcess(ServerProcess):
    """The truth server, `loadbench.sim.truth`, in a child process; it writes the times of its responses to `record`."""

    def __init__(self, record: Path | None = None) -> None:
        options = ["--port=0"] if record is None else ["--port=0", f"--record={record}"]
        super().__init__("loadbench.sim.truth", options, name="the truth server")


# The child's side.


def from_outside(call: Callable[[], object]) -> Callable[..., None]:
    """Wrap `call` for a signal handler or a thread: it runs in the current event loop, unless that has closed."""
    loop = asyncio.get_running_loop()

    def later(*_: object) -> None:
        with suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(call)

    return later


def listening_url(sock: socket.socket) -> str:
    """The URL of a server that listens on this socket, with no path."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def say_ready(url: str) -> None:
    """Print the line that the parent waits for; from now on there may be as many connections as the system allows."""
    with suppress(BadInput):
        ensure_descriptors(_MOST_CONNECTIONS, required=False)
    sys.stdout.write(f"{_READY}{url}\n")
    sys.stdout.flush()
