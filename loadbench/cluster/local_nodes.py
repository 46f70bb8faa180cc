"""Nodes of a cluster on this machine, for as long as a run takes: each is `ray start --block` under a guard.

The guard (`loadbench.core.guard`) ends a node with all that it has started, however loadbench ends. The nodes have a
token of their own, since some of Ray's ports listen on every address of the machine; it is in their environment, and in
no file.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import anyio

from loadbench.core.children import child_environment, python_command
from loadbench.core.errors import ClusterUnavailable
from loadbench.core.guard import Order
from loadbench.results.append_log import lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Frames of reports are small. Ray wants some 80 MB at least.
_STORE_BYTES = 80_000_000
# A node takes some five seconds on an idle machine.
_STARTS_WITHIN_S = 120.0
_LOOKS_EVERY_S = 0.1
# Ray's processes end at once, or wait for a head that is gone.
_GRACE_S = 2.0
_LONGEST_LINE = 300
# The paths of Unix sockets have a hundred characters at most, of which Ray needs most; macOS has long temporary ones.
_FOLDERS = None if sys.platform == "win32" else "/tmp"  # noqa: S108 - a new folder of this user alone
_PREFIX, _HELD = "lb-ray-", "held"
# What Ray writes where it starts a head: the address of the cluster.
_ADDRESS_FILE = "ray_current_cluster"


@asynccontextmanager
async def local_nodes(count: int, *, store_bytes: int = _STORE_BYTES) -> AsyncIterator[str]:
    """The address of a cluster of this many nodes, each of one core, while the context lasts; each has so much shared
    memory for what is sent between processes.

    Raises `ClusterUnavailable` where it does not start.
    """
    # Ray reads these once, as it is imported.
    os.environ["RAY_AUTH_MODE"] = "token"
    token = os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
    environment = {
        **child_environment("RAY_"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's own is 15, by which other programs would make requests late
    }
    environment.pop("RAY_ADDRESS", None)
    guards: list[asyncio.subprocess.Process] = []
    _remove_old_folders()
    with TemporaryDirectory(prefix=_PREFIX, dir=_FOLDERS, ignore_cleanup_errors=True) as name, _held(Path(name)):
        folder = Path(name)

        async def start(*options: str) -> None:
            log = folder / f"node-{len(guards) + 1}.log"
            guard = await asyncio.create_subprocess_exec(
                *python_command("loadbench.core.guard"),
                env=child_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            guards.append(guard)
            command = [
                *python_command("ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--num-gpus=0"),
                *(f"--object-store-memory={store_bytes}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"),
                *options,
            ]
            order = Order(command=command, environment=environment, log=str(log), grace_s=_GRACE_S, hidden=[token])
            assert guard.stdin is not None  # noqa: S101 - it is a pipe
            guard.stdin.write(json.dumps(order).encode() + b"\n")

        file = folder / "r" / _ADDRESS_FILE

        async def running(log: Path, guard: asyncio.subprocess.Process) -> None:
            """Wait until the node says that it runs, and the cluster has an address."""
            with anyio.move_on_after(_STARTS_WITHIN_S):
                while guard.returncode is None:
                    if "Ray runtime started" in _text_of(log) and _text_of(file):
                        return
                    await anyio.sleep(_LOOKS_EVERY_S)
            last = next((line for line in reversed(_text_of(log).split("\n")) if line.strip()), "it wrote nothing")
            problem = f"a node of Ray did not start: {last.strip()[:_LONGEST_LINE]}"
            raise ClusterUnavailable(f"--cluster local:{count}: {problem}", hint="see that Ray itself works here")

        try:
            head = f"--temp-dir={folder / 'r'}"  # Ray lets everybody into it
            await start(
                "--head",
                f"--port={_free_port()}",
                "--include-dashboard=false",
                f"--ray-client-server-port={_free_port()}",
                head,
            )
            await running(folder / "node-1.log", guards[0])
            address = _text_of(file).strip()
            # One after another: together they take so much of a small machine that Ray gives some up.
            for number in range(2, count + 1):
                await start(f"--address={address}")
                await running(folder / f"node-{number}.log", guards[-1])
            yield address
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as ends:
                    for guard in reversed(guards):
                        ends.start_soon(_end, guard)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder is in use while the context lasts, however this process ends."""
    with (folder / _HELD).open("wb") as file:
        lock(file.fileno())
        yield


def _remove_old_folders() -> None:
    """Remove what runs left behind that were killed."""
    for folder in Path(gettempdir() if _FOLDERS is None else _FOLDERS).glob(f"{_PREFIX}*"):
        with suppress(OSError), (folder / _HELD).open("r+b") as file:  # it may be somebody else's
            is_new = time.time() - folder.stat().st_mtime < _STARTS_WITHIN_S
            if not is_new and lock(file.fileno()):
                shutil.rmtree(folder, ignore_errors=True)


async def _end(guard: asyncio.subprocess.Process) -> None:
    """Close the guard's input: it ends the node and all below it, and then itself."""
    assert guard.stdin is not None  # noqa: S101 - it is a pipe
    with suppress(OSError, RuntimeError):
        guard.stdin.close()
    with anyio.move_on_after(2 * _GRACE_S):
        await guard.wait()
        return
    with suppress(ProcessLookupError):
        guard.kill()


def _text_of(file: Path) -> str:
    """What a node has written so far."""
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def _free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
