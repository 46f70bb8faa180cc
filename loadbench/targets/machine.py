"""Checks of this machine: processor, clock, open files, disk; and memory and GPU, if the server runs here too."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loadbench.client.descriptors import descriptor_limit
from loadbench.client.local_ports import WIDEN_PORTS, local_ports
from loadbench.core.children import child_environment, find_program
from loadbench.targets.check_result import Check
from loadbench.telemetry.devices import Device, maker_of, present_devices
from loadbench.telemetry.power import SLOW_GOVERNORS, power_state
from loadbench.telemetry.sources import about_all, library, read_all, sources
from loadbench.telemetry.sysfs import entries, word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Fewer are soon used up: each user is a connection.
_FEW_DESCRIPTORS = 1024
_GIB = 2**30
# A run writes some kB per request; a model takes some GB.
_LITTLE_DISK = _GIB
# Below this share of free memory a system starts to swap, and then swapping is what is measured.
_LITTLE_MEMORY = 0.05
# A download writes all the time; one that has not for this long has stalled or was aborted.
_STALLED_S = 120
_UNDER_WAY = ("*.download.progress", "*.download.lock", "download.tmp", "*.partial", "*.incomplete")
# Long enough for a share of the CPU time, which systems count in hundredths of a second.
_LOOK_S = 0.3
# Nothing is measured yet, so all of it is use by others.
_BUSY = 0.25
_ELSEWHERE = "the server is on another machine"


def descriptors() -> Check:
    """The limit on connections."""
    limit = descriptor_limit()
    if limit is None:
        return Check("open files", "skip", "this system has no limit")
    soft, hard = limit
    message = f"{soft:,} now, {f'{hard:,}' if hard >= 0 else 'unlimited'} at most"
    if 0 <= hard < _FEW_DESCRIPTORS:
        return Check("open files", "warn", message, f"raise the limit: ulimit -n {_FEW_DESCRIPTORS}")
    return Check("open files", "ok", message)


def ports() -> Check:
    """The limit on connections from one local address."""
    count = local_ports()
    if count is None:
        return Check("local ports", "skip", "this system does not say how many it has")
    message = f"{count:,}: as many connections from one address of this machine to one server"
    if count < _FEW_DESCRIPTORS:
        return Check("local ports", "warn", message, f"{WIDEN_PORTS}, or use --source-address")
    return Check("local ports", "ok", message)


def clock() -> Check:
    """The clock of all time stamps."""
    info = time.get_clock_info("perf_counter")
    message = f"{info.implementation}, resolution {info.resolution * 1e9:.0f} ns"
    if not info.monotonic or info.resolution > 1e-6:
        return Check("clock", "warn", message, "time stamps are no finer than this")
    return Check("clock", "ok", message)


def disk(folder: Path, *, needed: int = 0) -> Check:
    """Free space where models are cached, or results are written; `needed` is that for models to download, in bytes."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check("disk", "skip", f"{folder}: {error.strerror or error}")
    message = f"{free / _GIB:.1f} GiB free at {folder}"
    if free < needed:
        lacking = f"{message}, but {needed / _GIB:.1f} GiB are to be downloaded"
        return Check("disk", "fail", lacking, "free some space, or choose smaller models")
    if free < _LITTLE_DISK:
        return Check("disk", "warn", message, "free some space: a run that cannot be written is lost")
    return Check("disk", "ok", message)


def downloads(cache: Path, *, now_s: float | None = None) -> list[Check]:
    """Downloads in a model cache that are running or stalled."""
    now_s = time.time() if now_s is None else now_s
    checks = []
    for folder in sorted({path.parent for pattern in _UNDER_WAY for path in cache.rglob(pattern)}):
        idle_s = now_s - max((path.stat().st_mtime for path in folder.rglob("*") if path.is_file()), default=now_s)
        name = f"download {folder.relative_to(cache)}"
        if idle_s > _STALLED_S:
            advice = "start it again (loadbench models --download MODEL); if it stalls again, delete its folder first"
            checks.append(Check(name, "warn", f"stalled: nothing written for {idle_s / 60:.0f} min", advice))
        else:
            checks.append(Check(name, "warn", "running", "wait until it has finished: it uses disk, network and CPU"))
    return checks


def processor(psutil: Any | None = None, *, root: Path = Path("/")) -> list[Check]:
    """The cores and their load, the frequency governor or power plan, and whether the machine runs on battery."""
    psutil = psutil or library("psutil")
    if psutil is None:
        return [Check("cpu", "skip", "psutil is not installed")]
    use = psutil.cpu_percent(interval=_LOOK_S) / 100
    load = ""
    with suppress(AttributeError, OSError):
        load = f", load average {psutil.getloadavg()[0]:.1f}"
    message = f"{psutil.cpu_count()} cores, {100 * use:.0f} % in use{load}"
    idle = "end other programs before you measure: they make the server and the load generator wait"
    checks = [Check("cpu", "warn", message, idle) if use > _BUSY else Check("cpu", "ok", message)]

    folders = [path / "cpufreq" for path in entries(root / "sys/devices/system/cpu") if path.name[3:].isdigit()]
    governors = sorted({name for folder in folders if (name := word(folder / "scaling_governor"))})
    drivers = {word(folder / "scaling_driver") for folder in folders} - {""}
    plan = ", ".join(governors)
    if sys.platform == "win32":
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(  # noqa: S603 - a command of the system
                [find_program("powercfg") or "", "/getactivescheme"],
                env=child_environment(),
                capture_output=True,
                encoding="oem",
                errors="replace",
                timeout=5,
                check=True,
            )
            plan = asked.stdout.strip()
    # Those of Intel and AMD raise the frequency under load under every governor.
    slow = SLOW_GOVERNORS & set(governors) and not any("pstate" in driver for driver in drivers)
    if slow:
        advice = "use the performance governor while you measure: cpupower frequency-set -g performance"
        checks.append(Check("governor", "warn", plan, advice))
    else:
        checks.append(Check("governor", "ok", plan) if plan else Check("governor", "skip", "this system shows none"))

    power = power_state(root, psutil)
    if power.on_battery:
        message = "on battery" + ("" if power.charge is None else f", {100 * power.charge:.0f} %")
        checks.append(Check("power", "warn", message, "plug it in: most machines are slower on battery"))
    elif power.on_battery is None:
        checks.append(Check("power", "skip", "no battery"))
    else:
        checks.append(Check("power", "ok", "plugged in"))
    # The governor has its own check.
    saving = [mode for mode in power.saving if not mode.startswith("frequency governor")]
    if saving:
        advice = "choose the fastest power mode while you measure: a run under another one is not comparable"
        checks.append(Check("power saving", "warn", ", ".join(saving), advice))
    return checks


class Machine:
    """The server's process, the memory and the GPUs of this machine; for a remote server nothing is read."""

    def __init__(self, url: str, *, local: bool, pid: int | None = None) -> None:
        self.local = local
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._sources = sources(port=port, host=None, pid=pid, root=Path("/")) if local else []
        self._psutil = library("psutil")

    def read(self) -> Mapping[str, float]:
        """The current readings, by telemetry's names."""
        return read_all(self._sources)

    @property
    def gpus(self) -> list[str]:
        """The names of the GPUs."""
        return [name for kind, name in self._read() if kind == "boards"]

    def _read(self) -> list[tuple[str, str]]:
        """(kind, name) of the boards and the NPUs of which something can be read."""
        about = about_all(self._sources)
        listed = [(kind, about.get(kind)) for kind in ("boards", "npus")]
        return [(kind, str(one.get("name"))) for kind, all_ in listed if isinstance(all_, list) for one in all_]

    def _unread(self, devices: Sequence[Device]) -> list[Device]:
        """The devices of this machine of which nothing can be read: of each kind as many as are missing, those first
        whose maker and name are not among those that are read."""
        unread = []
        for kind, about in (("GPU", "boards"), ("NPU", "npus")):
            here = [device for device in devices if device.kind == kind]
            names = " ".join(name for one, name in self._read() if one == about)
            missing = len(here) - sum(one == about for one, _ in self._read())
            here.sort(key=lambda device: (device.name in names, bool(device.maker) and device.maker in names))
            unread += here[: max(0, missing)]
        return unread

    def devices(self) -> list[Device]:
        """The boards that are in this machine, by the names that their libraries have; none if the server is elsewhere.
        A container may hide its bus: what is read is there."""
        if not self.local:
            return []
        named, names = [], self.gpus
        for device in present_devices(Path("/")):
            matches = device.kind == "GPU" and device.maker
            name = next((name for name in names if matches and name.startswith(device.maker)), None)
            if name is not None:
                names.remove(name)
            named.append(device if name is None else device._replace(name=name))
        return [*named, *(Device("GPU", maker_of(name), name) for name in names)]

    def libraries(self) -> list[str]:
        """The names of the libraries that the server's process has loaded; empty if they are hidden."""
        about = about_all(self._sources).get("process")
        pid = about.get("pid") if isinstance(about, dict) else None
        if pid is None or self._psutil is None:
            return []
        paths: list[str] = []
        if sys.platform == "linux":  # psutil also asks what each of them takes, which is slow
            paths = [line.split(maxsplit=5)[-1] for line in word(Path(f"/proc/{pid}/maps")).splitlines() if "/" in line]
        else:
            with suppress(AttributeError, OSError, self._psutil.Error):  # macOS shows none
                paths = [entry.path for entry in self._psutil.Process(pid).memory_maps()]
        return sorted({re.split(r"[/\\]", path)[-1] for path in paths})

    @property
    def cores(self) -> int:
        """All cores of the machine."""
        return (self._psutil.cpu_count() if self._psutil else None) or 1

    def memory(self, *, needed: int = 0) -> Check:
        """The available memory; `needed` is the size on disk of the models to load, in bytes, a lower bound."""
        if not self.local:
            return Check("memory", "skip", _ELSEWHERE)
        if self._psutil is None:
            return Check("memory", "skip", "psutil is not installed")
        memory = self._psutil.virtual_memory()
        message = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB available"
        rss = self.read().get("process_rss_bytes")
        message += f"; the server uses {rss / _GIB:.2f} GiB" if rss else ""
        if memory.available < needed:
            advice = "unload other models, close other programs, or use a smaller variant"
            return Check("memory", "warn", f"{message}, but the models need {needed / _GIB:.1f} GiB", advice)
        if memory.available < _LITTLE_MEMORY * memory.total:
            return Check("memory", "warn", message, "close other programs: a system that swaps is as slow as its disk")
        return Check("memory", "ok", message)

    def gpu(self) -> Check:
        """The boards that this machine reports."""
        if not self.local:
            return Check("gpu", "skip", _ELSEWHERE)
        found = [f"{name} (NPU)" if kind == "npus" else name for kind, name in self._read()]
        unread = self._unread(self.devices())
        for device in unread:
            install = ": pip install 'loadbench[gpu]'" if device.maker == "NVIDIA" and not library("pynvml") else ""
            found.append(f"{device.name}: no counter for this device{install}")
        if found:
            return Check("gpu", "skip" if len(unread) == len(found) else "ok", ", ".join(found))
        missing = "" if library("pynvml") else "; for NVIDIA boards: pip install 'loadbench[gpu]'"
        return Check("gpu", "skip", f"none found{missing}")
