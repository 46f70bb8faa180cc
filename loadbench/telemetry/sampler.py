"""The run's side of telemetry: what was read is kept, written down, and told of each window.

Readings come from the sampler, a process beside this one (`loadbench.telemetry.__main__`), and from whoever else adds
some. Nothing here waits for the sampler while a load runs, and one that is not there, or dies, changes nothing but what
is known.
"""

from __future__ import annotations

import ipaddress
import json
import math
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from loadbench.core.errors import BadInput
from loadbench.telemetry.series import ReadingSeries
from loadbench.telemetry.sources import library

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from loadbench.results.readings import ReadingLog
    from loadbench.results.telemetry import Telemetry

# Ten times what a cold start takes on a slow disk.
_STARTS_WITHIN_S = 20.0
# Beyond the interval, what a reading may take: drivers and long lists of processes are slow.
_READS_WITHIN_S = 2.0
_MODULE = "loadbench.telemetry"
# No line is longer.
_MOST_BYTES = 1 << 20
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class MachineSampler:
    """What was read of one run. `about` says what is read, and is empty where nothing is."""

    def __init__(self, log: ReadingLog | None = None, *, interval_ns: int = 1_000_000_000) -> None:
        self.about: Mapping[str, object] = {}
        self._interval_ns = interval_ns
        self._log = log
        self._series = ReadingSeries()
        self._lines: BufferedByteReceiveStream | None = None
        self._sampling = False
        self._sampled_ns = -1
        self._news = anyio.Event()

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """A reading of one moment; each name's readings come in order."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._series.add(at_ns, finite)
        if self._log is not None:
            self._log.add(at_ns, finite)

    def window(self, opens_ns: int, closes_ns: int) -> Telemetry | None:
        """What was read of this window; what lies before it is forgotten."""
        found = self._series.window(opens_ns, closes_ns)
        self._series.forget(opens_ns)
        return found

    def keep_in(self, log: ReadingLog) -> None:
        """Write down what comes from now on in another file."""
        self.flush()
        self._log = log

    def flush(self) -> None:
        """Write down what is still to be written."""
        if self._log is not None:
            self._log.flush()

    async def caught_up(self, at_ns: int) -> None:
        """Wait for the sampler's first reading after this moment, as long as one may take."""
        with anyio.move_on_after(self._interval_ns / 1e9 + _READS_WITHIN_S):
            while self._sampling and self._sampled_ns < at_ns:
                await self._news.wait()

    @asynccontextmanager
    async def sampling(self, *, url: str, pid: int | None = None) -> AsyncIterator[None]:
        """Have this machine sampled while the context lasts, if `url` is on it; `listen` takes what comes."""
        if not is_local(url) and pid is None:
            yield
            return
        async with _child(url, pid, self._interval_ns) as lines:
            with anyio.move_on_after(_STARTS_WITHIN_S):
                self.about = (None if lines is None else await _record(lines)) or {}
            self._lines = lines if self.about else None
            self._sampling = self._lines is not None
            yield

    async def listen(self) -> None:
        """Take what the sampler tells, until it ends; returns at once where there is none."""
        while self._lines is not None and (record := await _record(self._lines)) is not None:
            self.add(record["at_ns"], record["values"])
            self._tell(record["at_ns"])
        self._sampling = False
        self._tell(self._sampled_ns)

    def _tell(self, at_ns: int) -> None:
        self._sampled_ns = at_ns
        news, self._news = self._news, anyio.Event()
        news.set()


@asynccontextmanager
async def _child(url: str, pid: int | None, interval_ns: int) -> AsyncIterator[BufferedByteReceiveStream | None]:
    """The sampler's lines; `None` where the system has no room for a process more."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    which = [f"--pid={pid}"] if pid is not None else [f"--port={port}", *_address(parts.hostname or "")]
    command = [sys.executable, "-m", _MODULE, *which, f"--interval-ns={interval_ns}"]
    try:
        process = await anyio.open_process(
            command, stderr=subprocess.DEVNULL, start_new_session=True, creationflags=_OWN_GROUP
        )
    except OSError:
        yield None
        return
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield BufferedByteReceiveStream(process.stdout)
    finally:
        with suppress(ProcessLookupError):
            process.kill()  # it holds nothing that would have to be put in order
        with anyio.CancelScope(shield=True):
            await process.aclose()


def _address(host: str) -> list[str]:
    """The address that the server must listen on, where the URL has one; a name may stand for several."""
    try:
        return [f"--host={ipaddress.ip_address(host)}"]
    except ValueError:
        return []


async def _record(lines: BufferedByteReceiveStream) -> dict[str, Any] | None:
    """The next line; `None` at their end."""
    try:
        record: dict[str, Any] = json.loads(await lines.receive_until(b"\n", _MOST_BYTES))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, ValueError):
        return None
    return record


def is_local(url: str) -> bool:
    """Whether the host of a URL is this machine: a loopback address, or one of its own interfaces'."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or str(address) in _own_addresses()


def _own_addresses() -> set[str]:
    psutil = library("psutil")
    if psutil is None:
        return set()
    return {one.address.partition("%")[0] for found in psutil.net_if_addrs().values() for one in found}


def check_pid(pid: int | None) -> None:
    """Raises `BadInput` for a process that is not there."""
    psutil = library("psutil")
    if pid is None:
        return
    if psutil is None:
        raise BadInput("--server-pid: psutil, which reads processes, is not installed", hint="pip install psutil")
    if not psutil.pid_exists(pid):
        raise BadInput(f"--server-pid {pid}: there is no such process", hint="leave it out to find it by its port")
