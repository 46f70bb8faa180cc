"""Where readings come from, and how they are put together: each source is optional, and absent without noise.

A source is made by a function that returns `None` where there is nothing to read. What it reads are plain numbers in
base units (bytes, seconds, watts, joules, hertz, shares from 0 to 1) by name; a name that ends in `_total` counts up.
A reading that fails is left out, that once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from loadbench.telemetry.host import Host
from loadbench.telemetry.nvidia import Nvidia
from loadbench.telemetry.process import MeasuredProcess, tunnelled
from loadbench.telemetry.sysfs import Drm, Rapl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Source(Protocol):
    """Something that can be read."""

    @property
    def about(self) -> Mapping[str, object]:
        """What it is, for the record of the run's environment."""
        ...

    def read(self) -> Mapping[str, float]:
        """The present values."""
        ...


def library(name: str) -> Any | None:
    """A module that need not be installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def sources(*, port: int | None, host: str | None, pid: int | None, root: Path) -> list[Source]:
    """All that there are on this machine; none where only the mouth of a tunnel is. `root` is where `/sys` begins."""
    psutil = library("psutil")
    if psutil is not None and port is not None and pid is None and tunnelled(psutil, port, host):
        return []
    nvidia = Nvidia.found(library("pynvml"))
    packages = Rapl.found(root)
    cards = Drm.found(root, first=nvidia.boards if nvidia is not None else 0, metered=packages is not None)
    found: Sequence[Source | None] = (
        packages,
        nvidia,
        cards,
        MeasuredProcess.found(psutil, port=port, host=host, pid=pid),
        Host.found(psutil, root),
    )
    return [source for source in found if source is not None]


def read_all(found: Sequence[Source]) -> dict[str, float]:
    """One reading of every source."""
    values: dict[str, float] = {}
    for source in found:
        values.update(source.read())
    return values


def about_all(found: Sequence[Source]) -> dict[str, object]:
    """What is there, and what is not, which is null."""
    about: dict[str, object] = {"process": None, "host": None, "boards": None, "packages": None}
    for source in found:
        for name, value in source.about.items():
            already = about.get(name)
            about[name] = [*already, *value] if isinstance(already, list) and isinstance(value, list) else value
    return about
