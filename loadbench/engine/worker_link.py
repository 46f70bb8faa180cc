"""How the main process reaches one worker, wherever that runs: commands go in, reports come out, as frames in order.

Two kinds of links exist: a process of this machine with pipes (`local_links`), and one on a node of a Ray cluster
(`loadbench.cluster`), where an actor starts the same process and passes its frames on. What is in the frames, and what
a pool of workers does with them, is the same for both (`loadbench.engine.workers`).

Frames are pickled records, each behind its length. Both ends of a pipe are this program, started by itself, and the
pipe is theirs alone; nothing from a file, a server or a user is ever unpickled. Where the other end is on a cluster,
whoever may use that cluster is trusted as Ray trusts them.
"""

from __future__ import annotations

import asyncio
import mmap
import pickle
import struct
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio

from loadbench.core.children import child_environment, python_command
from loadbench.core.errors import LoadbenchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

_LENGTH = struct.Struct(">I")
HEAD_BYTES = _LENGTH.size
# A tenth of a second has some thousands of requests, with their texts perhaps. More is none: its head is garbage.
MOST_FRAME_BYTES = 512 << 20
# In a file that a worker and whoever started it have mapped: the requests that the worker has sent in this level; in
# the one next to it, those that are still to be measured.
SENT = struct.Struct("=Q")
LEFT = "left"
# From the end of its commands a worker has this long to leave.
_LEAVES_WITHIN_S = 3.0
# Windows has no sessions, and other systems do not have this flag; each ignores what it does not know.
OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


def pack(record: object) -> bytes:
    """A record as a frame."""
    body = pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def body_bytes(head: bytes) -> int:
    """How many bytes follow this head."""
    return int(_LENGTH.unpack(head)[0])


def unpack(body: bytes) -> object:
    """The record in a frame's body."""
    record: object = pickle.loads(body)  # noqa: S301 - our own process at the other end
    return record


class ClockOffset(NamedTuple):
    """By how much the clock of a worker's machine is ahead of the run's, and how wrong that may be; in ns."""

    ahead_ns: int = 0
    error_ns: int = 0


SAME_CLOCK = ClockOffset()


class WorkerLink(Protocol):
    """One worker."""

    name: str  # for people: which one, and where
    is_here: bool  # on this machine
    pid: int | None  # of its process on this machine; `None` elsewhere, and where it has another number here
    # Whether all workers take the requests of a level by number from one count. If not, each is given some of them.
    shares_count: bool

    def begin(self, left: int) -> None:
        """A level begins: its requests are counted from 0, and this many are left to be measured."""
        ...

    def send(self, frame: bytes) -> None:
        """Send a command; one to a dead worker goes nowhere."""
        ...

    async def receive(self) -> bytes | None:
        """The body of the next report; `None` once the worker is gone, or what came is no frame."""
        ...

    async def sent(self) -> int | None:
        """How many requests it has sent in this level, whether it lives or not; `None` where nobody knows."""
        ...

    async def clock_offset(self) -> ClockOffset:
        """What its clock shows now, against the run's."""
        ...

    async def give(self, path: Path) -> None:
        """Put a copy of this file where the worker reads files from."""
        ...

    def kill(self) -> None:
        """End it at once; what it had sent can still be asked for, where it could be before."""
        ...


class WorkerFiles:
    """The two counts that one worker has mapped, in a folder where it finds its other files too."""

    def __init__(self, folder: Path, number: int) -> None:
        self.path = folder / f"sent-{number}"
        self._sent, self._left = self._mapped(self.path), self._mapped(folder / LEFT)

    @staticmethod
    def _mapped(path: Path) -> mmap.mmap:
        if not path.exists():
            path.write_bytes(bytes(SENT.size))
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), SENT.size)

    @property
    def command(self) -> list[str]:
        """What starts the worker."""
        return python_command("loadbench.engine.worker", str(self.path))

    def begin(self, left: int) -> None:
        """A level begins."""
        SENT.pack_into(self._sent, 0, 0)
        SENT.pack_into(self._left, 0, left)

    @property
    def sent(self) -> int:
        """Requests that were sent in this level."""
        return int(SENT.unpack_from(self._sent)[0])

    def close(self) -> None:
        """Give the files back."""
        self._sent.close()
        self._left.close()


class LocalLink:
    """A worker process of this machine, which has the run's clock."""

    shares_count = True
    is_here = True

    def __init__(self, name: str, process: asyncio.subprocess.Process, files: WorkerFiles) -> None:
        self.name = name
        self.process = process
        self.pid: int | None = process.pid
        self.files = files
        self.begin = files.begin

    def send(self, frame: bytes) -> None:
        """Write the command into the worker's pipe."""
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, RuntimeError):
            self.process.stdin.write(frame)

    async def receive(self) -> bytes | None:
        """Read the next report from the worker's pipe."""
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        with suppress(asyncio.IncompleteReadError, OSError):
            size = body_bytes(await self.process.stdout.readexactly(HEAD_BYTES))
            if size <= MOST_FRAME_BYTES:
                return await self.process.stdout.readexactly(size)
        return None

    async def sent(self) -> int | None:
        """By the count that both have mapped."""
        return self.files.sent

    async def clock_offset(self) -> ClockOffset:
        """The monotonic clock is one for all processes of a machine."""
        return SAME_CLOCK

    async def give(self, path: Path) -> None:
        """It reads the file where it is."""

    def kill(self) -> None:
        """Kill the process."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def aclose(self) -> None:
        """Close its input, which ends it; kill it if it does not end."""
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, RuntimeError):
            self.process.stdin.close()
        for _ in range(2):
            with anyio.move_on_after(_LEAVES_WITHIN_S):
                await self.process.wait()
                break
            self.kill()
        self.files.close()


@asynccontextmanager
async def local_links(workers: int, folder: Path) -> AsyncIterator[Sequence[LocalLink]]:
    """This many worker processes, whose files are in this folder, while the context lasts; they may still be starting.

    Raises `LoadbenchError` where one cannot be started.
    """
    links: list[LocalLink] = []
    try:
        for number in range(workers):
            try:
                files = WorkerFiles(folder, number)
                process = await asyncio.create_subprocess_exec(
                    *files.command,
                    env=child_environment(),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=1 << 20,
                    # What the terminal sends is for the main process, also while a worker is being imported.
                    start_new_session=True,
                    creationflags=OWN_GROUP,
                )
            except OSError as error:
                raise LoadbenchError(f"cannot start a worker process: {error}", hint="try --workers 1") from None
            links.append(LocalLink(f"worker {number + 1}", process, files))
        yield links
    finally:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as ends:
                for link in links:
                    ends.start_soon(link.aclose)
