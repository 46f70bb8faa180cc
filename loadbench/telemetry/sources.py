"""The sources of readings, each of them optional.

A source is made by a function that returns `None` if there is nothing to read. Its readings are numbers in base units
(bytes, seconds, watts, joules, hertz, shares from 0 to 1) by name; a name that ends in `_total` is a counter. A reading
that fails is left out that time.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

from loadbench.telemetry.drm_clients import DrmClients
from loadbench.telemetry.host import Host
from loadbench.telemetry.macos import AppleBoards
from loadbench.telemetry.nvidia import Nvidia
from loadbench.telemetry.power import Battery
from loadbench.telemetry.process import MeasuredProcess, owners, tunnels
from loadbench.telemetry.sysfs import Drm, Npu, Rapl
from loadbench.telemetry.windows import WindowsBoards, windows_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ReadingSource(Protocol):
    """A source of readings."""

    @property
    def about(self) -> Mapping[str, object]:
        """What is read, for the record of the run's environment."""
        ...

    def read(self) -> Mapping[str, float]:
        """The current values."""
        ...


def library(name: str) -> Any | None:
    """An optional module; `None` if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def sources(*, port: int | None, host: str | None, pid: int | None, root: Path) -> list[ReadingSource]:
    """All sources of this machine; none if the server is behind a tunnel. `root` is the folder that contains `sys`."""
    psutil = library("psutil")
    pids = owners(psutil, port, host) if psutil is not None and port is not None and pid is None else None
    if pids and tunnels(psutil, pids):
        return []
    process = MeasuredProcess.detect(psutil, port=port, host=host, pid=pid, pids=pids)
    of_server = None if process is None else process.pids
    nvidia = Nvidia.detect(library("pynvml"), of_server)
    first, packages = 0 if nvidia is None else nvidia.boards, Rapl.detect(root)
    # Energy first, because the time of a reading is taken before it.
    found: list[ReadingSource | None] = [packages, nvidia]
    if sys.platform == "win32":
        found.append(WindowsBoards.detect(windows_library("pdh"), library("winreg"), of_server, first=first))
    elif sys.platform == "darwin":
        found.append(AppleBoards.detect())
    else:
        cards = Drm.detect(root, first=first, metered=packages is not None)
        clients = None if cards is None or of_server is None else DrmClients(root, cards.gpus, of_server)
        found += [cards, clients, Npu.detect(root)]
    found += [process, Host.detect(psutil, root), Battery.detect(root)]
    return [source for source in found if source is not None]


def read_all(readable: Sequence[ReadingSource]) -> dict[str, float]:
    """One reading of every source."""
    values: dict[str, float] = {}
    for source in readable:
        values.update(source.read())
    return values


def about_all(readable: Sequence[ReadingSource]) -> dict[str, object]:
    """What is read from all sources; null for what is not there."""
    about: dict[str, object] = {"process": None, "host": None, "boards": None, "npus": None, "packages": None}
    for source in readable:
        for name, value in source.about.items():
            already = about.get(name)
            about[name] = [*already, *value] if isinstance(already, list) and isinstance(value, list) else value
    return about
