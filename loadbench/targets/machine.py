"""What a checkup sees of this machine: clock, open files, disk, and where the server is here too, memory and GPU."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from loadbench.client.descriptors import descriptor_limit
from loadbench.targets.check_result import Check
from loadbench.telemetry.sources import about_all, library, read_all, sources

if TYPE_CHECKING:
    from collections.abc import Mapping

# Fewer than this are soon gone: each user is a connection.
_FEW_DESCRIPTORS = 1024
_GB = 1e9
# A run writes some kB a request; a model some GB.
_LITTLE_DISK = 1 * _GB
# Below this share of its memory a system begins to swap, and every figure is of that.
_LITTLE_MEMORY = 0.05
# A download writes all the time; one that has not for so long has stalled or was given up.
_STALLED_S = 120
_UNDER_WAY = ("*.download.progress", "*.download.lock", "download.tmp", "*.partial", "*.incomplete")
_ELSEWHERE = "the server is on another machine"


def descriptors() -> Check:
    """How many connections there can be."""
    limit = descriptor_limit()
    if limit is None:
        return Check("open files", "skip", "this system has no such limit")
    soft, hard = limit
    message = f"{soft} now, {hard if hard >= 0 else 'any number'} at most"
    if 0 <= hard < _FEW_DESCRIPTORS:
        return Check("open files", "warn", message, f"raise the limit: ulimit -n {_FEW_DESCRIPTORS}")
    return Check("open files", "ok", message)


def clock() -> Check:
    """The clock of all marks, in its own words."""
    info = time.get_clock_info("perf_counter")
    message = f"{info.implementation}, resolution {info.resolution * 1e9:.0f} ns"
    if not info.monotonic or info.resolution > 1e-6:
        return Check("clock", "warn", message, "stamps are no finer than this")
    return Check("clock", "ok", message)


def disk(folder: Path, *, needed: int = 0) -> Check:
    """Room where models are cached, or where the results go; `needed` is what models to come take, in bytes."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "skip", f"{folder}: {error.strerror or error}")
    message = f"{free / _GB:.1f} GB free at {folder}"
    if free < needed:
        lacking = f"{message}, {needed / _GB:.1f} GB to be downloaded"
        return Check("disk", "fail", lacking, "make room, or choose smaller models")
    if free < _LITTLE_DISK:
        return Check("disk", "warn", message, "make room: a run that cannot be written is lost")
    return Check("disk", "ok", message)


def downloads(cache: Path, *, now_s: float | None = None) -> list[Check]:
    """Downloads that are under way in a model cache, or seem so."""
    now_s = time.time() if now_s is None else now_s
    found = []
    for folder in sorted({path.parent for pattern in _UNDER_WAY for path in cache.rglob(pattern)}):
        idle_s = now_s - max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=now_s)
        name = f"download {folder.relative_to(cache)}"
        if idle_s > _STALLED_S:
            advice = "start it anew (loadbench models --download MODEL); if it stalls again, remove its folder first"
            found.append(Check(name, "warn", f"stalled: nothing was written for {idle_s / 60:.0f} min", advice))
        else:
            found.append(Check(name, "warn", "under way", "wait for its end: it takes disk, network and CPU"))
    return found


class Machine:
    """What can be read here of the server's process, the memory and the GPUs; of a server elsewhere, nothing."""

    def __init__(self, url: str, *, local: bool, pid: int | None = None) -> None:
        self.local = local
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._sources = sources(port=port, host=None, pid=pid, root=Path("/")) if local else []
        self._psutil = library("psutil")

    def read(self) -> Mapping[str, float]:
        """The present readings, by telemetry's names."""
        return read_all(self._sources)

    @property
    def gpus(self) -> list[str]:
        """Their names."""
        boards = about_all(self._sources).get("boards")
        return [str(board.get("name")) for board in boards] if isinstance(boards, list) else []

    @property
    def cores(self) -> int:
        """All that there are, whoever may use them."""
        return (self._psutil.cpu_count() if self._psutil else None) or 1

    def memory(self, *, needed: int = 0) -> Check:
        """What is left of it; `needed` is what models to be loaded take on disk, in bytes, and so at least here."""
        if not self.local:
            return Check("memory", "skip", _ELSEWHERE)
        if self._psutil is None:
            return Check("memory", "skip", "psutil, which reads it, is not installed")
        found = self._psutil.virtual_memory()
        message = f"{found.available / _GB:.1f} of {found.total / _GB:.1f} GB available"
        rss = self.read().get("process_rss_bytes")
        message += f"; its process holds {rss / _GB:.2f} GB" if rss else ""
        if found.available < needed:
            advice = "unload other models, end other programs, or take a smaller variant"
            return Check("memory", "warn", f"{message}, the models need {needed / _GB:.1f} GB", advice)
        if found.available < _LITTLE_MEMORY * found.total:
            return Check("memory", "warn", message, "end other programs: a system that swaps measures its disk")
        return Check("memory", "ok", message)

    def gpu(self) -> Check:
        """The boards that this machine shows."""
        if not self.local:
            return Check("gpu", "skip", _ELSEWHERE)
        if self.gpus:
            return Check("gpu", "ok", ", ".join(self.gpus))
        missing = "" if library("pynvml") else "; NVIDIA's are seen with pip install 'loadbench[gpu]'"
        return Check("gpu", "skip", f"none seen{missing}")
