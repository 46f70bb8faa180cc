"""The run's side of telemetry: keeps the readings, writes them to a file, and summarizes them for each window.

Readings come from the sampler, a process of its own (`loadbench.telemetry.__main__`), and from other callers of `add`.
Nothing here waits for the sampler during a load; if it is missing or dies, only its readings are missing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from loadbench.core.children import child_environment, python_command
from loadbench.core.errors import BadInput
from loadbench.telemetry.series import ReadingSeries
from loadbench.telemetry.sources import library

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from loadbench.results.readings import ReadingLog
    from loadbench.results.telemetry import Telemetry

# Ten times a cold start on a slow disk.
_STARTS_WITHIN_S = 20.0
# The time of a reading beyond the interval: drivers and long lists of processes are slow.
_READS_WITHIN_S = 2.0
# Long enough for the system's ticks of 10 ms to show what is in use, and short beside the start of a worker.
_LOOK_S = 0.25
_MODULE = "loadbench.telemetry"
# No line is longer.
_MOST_BYTES = 1 << 20
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class MachineSampler:
    """Samples this machine during one run. `about` says what is read; it is empty if nothing is."""

    def __init__(self, log: ReadingLog | None = None, *, interval_ns: int = 1_000_000_000) -> None:
        self.about: Mapping[str, object] = {}
        self._interval_ns = interval_ns
        self._log = log
        self._series = ReadingSeries()
        self._lines: BufferedByteReceiveStream | None = None
        self._sampling = False
        self._sampled_ns = -1
        self._sampled = anyio.Event()

    def add(self, at_ns: int, values: Mapping[str, float]) -> None:
        """Add the readings of one moment; the readings of each name come in order."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._series.add(at_ns, finite)
        if self._log is not None:
            self._log.add_reading(at_ns, finite)

    def window(self, opens_ns: int, closes_ns: int) -> Telemetry | None:
        """The telemetry of this window; earlier readings are dropped."""
        telemetry = self._series.window(opens_ns, closes_ns)
        self._series.forget(opens_ns)
        return telemetry

    def keep_in(self, log: ReadingLog | None) -> None:
        """Write the readings from now on to this file, or to none."""
        if self._log is not None:
            self._log.close()
        self._log = log

    def flush(self) -> None:
        """Write the buffered readings."""
        if self._log is not None:
            self._log.flush()

    async def caught_up(self, at_ns: int) -> None:
        """Wait for the sampler's first reading after this moment, for as long as a reading may take."""
        with anyio.move_on_after(self._interval_ns / 1e9 + _READS_WITHIN_S):
            while self._sampling and self._sampled_ns < at_ns:
                await self._sampled.wait()

    @asynccontextmanager
    async def sampling(self, *, url: str, pid: int | None = None) -> AsyncIterator[None]:
        """Sample this machine while the context lasts, if `url` is on it; `listen` receives the readings."""
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
        """Receive readings until the sampler ends; returns at once without one."""
        while self._lines is not None and (record := await _record(self._lines)) is not None:
            self.add(record["at_ns"], record["values"])
            self._notify(record["at_ns"])
        self._sampling = False
        self._notify(self._sampled_ns)

    def _notify(self, at_ns: int) -> None:
        self._sampled_ns = at_ns
        sampled, self._sampled = self._sampled, anyio.Event()
        sampled.set()


@asynccontextmanager
async def _child(url: str, pid: int | None, interval_ns: int) -> AsyncIterator[BufferedByteReceiveStream | None]:
    """The lines of the sampler process; `None` if the system cannot start one more process."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    server = [f"--pid={pid}"] if pid is not None else [f"--port={port}"]
    with suppress(ValueError):  # a name instead of an address may stand for several
        server += [] if pid is not None else [f"--host={ipaddress.ip_address(parts.hostname or '')}"]
    command = python_command(_MODULE, *server, f"--interval-ns={interval_ns}")
    try:
        process = await anyio.open_process(
            command,
            env=child_environment(),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            creationflags=_OWN_GROUP,
        )
    except OSError:
        yield None
        return
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield BufferedByteReceiveStream(process.stdout)
    finally:
        with suppress(ProcessLookupError):
            process.kill()  # it has nothing to clean up
        with anyio.CancelScope(shield=True):
            await process.aclose()


async def _record(lines: BufferedByteReceiveStream) -> dict[str, Any] | None:
    """The next line; `None` at the end."""
    try:
        record: dict[str, Any] = json.loads(await lines.receive_until(b"\n", _MOST_BYTES))
    except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, ValueError):
        return None
    return record


def is_local(url: str) -> bool:
    """Whether the host of a URL is this machine: a loopback address, or that of one of its interfaces."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    psutil = library("psutil")
    own: set[str] = set()
    with contextlib.suppress(OSError):  # a sandbox shows no interfaces
        interfaces = {} if psutil is None else psutil.net_if_addrs()
        own = {entry.address.partition("%")[0] for entries in interfaces.values() for entry in entries}
    return address.is_loopback or str(address) in own


async def cores_in_use() -> float:
    """How many of the cores that this process may use are in use now; 0 if the system does not say."""
    psutil = library("psutil")
    if psutil is None:
        return 0.0
    shares: list[float] = []
    with suppress(OSError, RuntimeError):  # a sandbox shows none
        psutil.cpu_percent(percpu=True)  # the first call has no interval to report on
        await anyio.sleep(_LOOK_S)
        shares = psutil.cpu_percent(percpu=True)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(shares))
    return sum(share for core, share in enumerate(shares) if core in usable) / 100


def check_pid(pid: int | None) -> None:
    """Raises `BadInput` for a process that does not exist."""
    psutil = library("psutil")
    if pid is None:
        return
    if psutil is None:
        raise BadInput("--server-pid: psutil is not installed", hint="pip install psutil")
    if not psutil.pid_exists(pid):
        raise BadInput(f"--server-pid {pid}: there is no such process", hint="leave it out to find it by its port")
