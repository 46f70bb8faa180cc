"""On a node: an actor that starts one worker process, and passes commands and reports on to and from the main process.

The process is the one that a machine alone would start. So what is measured there is not disturbed by Ray's threads,
and it ends with the actor, whose end closes its input.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from loadbench import __version__
from loadbench.core.children import child_environment
from loadbench.engine.worker_link import HEAD_BYTES, MOST_FRAME_BYTES, OWN_GROUP, WorkerFiles, body_bytes

# A reply of so many frames is large enough, and few enough to be read at one go.
_MOST_FRAMES = 64
_LEAVES_WITHIN_S = 2.0


class Node(NamedTuple):
    """What an actor says of where it is."""

    node: str  # Ray's id of the node
    host: str
    machine: str  # the same for all processes that share one monotonic clock; empty where nobody knows
    python: str
    loadbench: str
    has_token: bool  # whether Ray requests a token on this node
    pid: int  # of the worker
    pids_of: str  # the same for all processes among which that number is the worker's


class Relay:
    """The actor. Its methods are called in groups, each of one thread, so that commands stay in order and none waits
    for a report."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="loadbench-", ignore_cleanup_errors=True)
        self._files = WorkerFiles(Path(self._folder.name), 0)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._files.command,
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            creationflags=OWN_GROUP,
        )
        if sys.platform != "win32":
            with suppress(OSError):  # who may not leaves it to how Ray was started (RAY_worker_niceness)
                os.setpriority(os.PRIO_PROCESS, self._process.pid, 0)
        self._reports: list[bytes] = []
        self._has_ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None  # noqa: S101 - it is a pipe
        while len(head := stream.read(HEAD_BYTES)) == HEAD_BYTES and body_bytes(head) <= MOST_FRAME_BYTES:
            body = stream.read(body_bytes(head))
            with self._news:
                self._reports.append(body)
                self._news.notify()
        stream.close()
        with self._news:
            self._has_ended = True
            self._news.notify()

    def about(self) -> Node:
        """Where this is."""
        import ray  # noqa: PLC0415 - in an actor it is there

        node = ray.get_runtime_context().get_node_id()
        return Node(
            node=node,
            host=platform.node(),
            machine=machine(),
            python=platform.python_version(),
            loadbench=__version__,
            has_token=_has_token(),
            pid=self._process.pid,
            pids_of=pid_namespace(),
        )

    def begin(self, left: int) -> None:
        """A level begins: `loadbench.engine.worker_link.WorkerLink`, as are the next ones."""
        self._files.begin(left)

    def send(self, frame: bytes) -> None:
        """Write a command into the worker's pipe."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, ValueError):
            self._process.stdin.write(frame)
            self._process.stdin.flush()

    def give(self, name: str, data: bytes) -> None:
        """Write a file where the worker finds it."""
        (Path(self._folder.name) / name).write_bytes(data)

    def reports(self, within_s: float) -> list[bytes] | None:
        """The reports that have come: none if none comes within this time, `None` after the last of all."""
        with self._news:
            if not self._reports and not self._has_ended:
                self._news.wait(within_s)
            found = self._reports[:_MOST_FRAMES]
            if not found and self._has_ended:
                return None
            self._reports = self._reports[len(found) :]
        return found

    def sent(self) -> int:
        """How many requests the worker has sent in this level."""
        return self._files.sent

    def now_ns(self) -> int:
        """The worker's clock."""
        return time.perf_counter_ns()

    def kill(self) -> None:
        """Kill the worker."""
        self._process.kill()

    def close(self) -> None:
        """Have the worker leave, and remove its files."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, ValueError):
            self._process.stdin.close()
        try:
            self._process.wait(_LEAVES_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_LEAVES_WITHIN_S)
        self._files.close()
        self._folder.cleanup()


def pid_namespace() -> str:
    """Which processes are numbered together: on Linux a container may have numbers of its own. Elsewhere one name."""
    with suppress(OSError, NotImplementedError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def machine() -> str:
    """What all processes that share one monotonic clock have in common; empty if nobody knows.

    On Linux these are the processes of one boot in one time namespace: a container may have a clock of its own.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            clocks = Path("/proc/self/ns/time")  # which older kernels do not have
            return f"{boot} {clocks.readlink()}" if clocks.exists() else boot
    return ""


def _has_token() -> bool:
    """Whether this node's Ray has token authentication; by its environment where Ray does not say."""
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled  # noqa: PLC0415

        return bool(is_token_auth_enabled())
    except ImportError:
        return os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
