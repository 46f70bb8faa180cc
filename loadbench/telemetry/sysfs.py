"""What Linux tells in files: RAPL, the energy of CPU packages and their memory, and AMD's and Intel's graphics boards.

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}     AMD's processors have the same names
    /sys/class/drm/card0/device/{gpu_busy_percent, mem_info_vram_used}, hwmon/hwmon*/{energy1_input, power1_average, …}

RAPL's counters begin anew at their range, after minutes to hours: they are unwound here. Of its domains `core` and
`uncore` are parts of `package`, and `psys` holds it: only packages and `dram` are read. `intel-rapl-mmio` tells the
same as `intel-rapl` by another way. The power that an AMD processor's own graphics tell is the whole chip's, CPU and
all, so it is left out where the package is metered. Most kernels let only root read RAPL; then it is absent.

Sources, in the kernel's `Documentation`: `power/powercap/powercap.rst`, `gpu/amdgpu/thermal.rst`,
`hwmon/sysfs-interface.rst`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_DOMAIN = re.compile(r"intel-rapl(:\d+)+")
_CARD = re.compile(r"card\d+")


def number(path: Path) -> float | None:
    """The number that a file holds; `None` where it is not there, may not be read, or holds something else."""
    try:
        return float(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def word(path: Path) -> str:
    """The text of a file, or none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def entries(folder: Path) -> list[Path]:
    """What is in a folder, in the order of its numbers; nothing where there is none."""
    try:
        return sorted(folder.iterdir(), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
    except OSError:
        return []


class _Domain:
    """One of RAPL's counters, unwound."""

    def __init__(self, folder: Path, reading: str) -> None:
        self.reading = reading
        self._folder = folder
        self._range_uj = number(folder / "max_energy_range_uj") or 0.0
        self._last_uj = self._total_uj = 0.0

    def read(self) -> float | None:
        """Joules since it was first read."""
        now_uj = number(self._folder / "energy_uj")
        if now_uj is None:
            return None
        step_uj = now_uj - self._last_uj
        self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6

    def begin(self) -> bool:
        """Whether it can be read; it counts from here."""
        now_uj = number(self._folder / "energy_uj")
        self._last_uj = now_uj or 0.0
        return now_uj is not None


class Rapl:
    """The energy of every CPU package, and of the memory where it is told apart."""

    def __init__(self, domains: Sequence[_Domain]) -> None:
        self._domains = domains
        self.about: Mapping[str, object] = {
            "packages": [domain.reading.removesuffix("_energy_j_total") for domain in domains]
        }

    @classmethod
    def found(cls, root: Path) -> Self | None:
        """`None` where there is none that may be read."""
        folders = [folder for folder in entries(root / "sys/class/powercap") if _DOMAIN.fullmatch(folder.name)]
        counts = {"package": 0, "dram": 0}
        domains = []
        for folder in folders:
            kind = word(folder / "name").partition("-")[0]
            if kind in counts:
                domain = _Domain(folder, f"{kind}{counts[kind]}_energy_j_total")
                if domain.begin():
                    counts[kind] += 1
                    domains.append(domain)
        return cls(domains) if domains else None

    def read(self) -> Mapping[str, float]:
        """Joules of each domain."""
        told = {domain.reading: domain.read() for domain in self._domains}
        return {name: joules for name, joules in told.items() if joules is not None}


class _Reading(NamedTuple):
    """One file of a board, and what its number has to be multiplied with."""

    name: str
    path: Path
    scale: float


class Drm:
    """Boards by their kernel driver; NVIDIA's own driver has no such files."""

    def __init__(self, boards: Sequence[tuple[str, Sequence[_Reading]]]) -> None:
        self._readings = [reading for _, readings in boards for reading in readings]
        self.about: Mapping[str, object] = {"boards": [{"name": name} for name, _ in boards]}

    @classmethod
    def found(cls, root: Path, *, first: int = 0, metered: bool = False) -> Self | None:
        """`None` where no board has anything to read; `first` is the number of the first.

        `metered` says that the energy of the CPU package is read elsewhere.
        """
        boards: list[tuple[str, Sequence[_Reading]]] = []
        for card in entries(root / "sys/class/drm"):
            if _CARD.fullmatch(card.name):
                readings = _of_card(card / "device", f"gpu{first + len(boards)}", metered=metered)
                if readings:
                    boards.append((_board_name(card / "device"), readings))
        return cls(boards) if boards else None

    def read(self) -> Mapping[str, float]:
        """What each file holds now."""
        told = {reading.name: (number(reading.path), reading.scale) for reading in self._readings}
        return {name: value * scale for name, (value, scale) in told.items() if value is not None}


def _of_card(device: Path, gpu: str, *, metered: bool) -> list[_Reading]:
    """The files of one board that can be read, and count nothing twice."""
    wanted = [
        _Reading(f"{gpu}_use", device / "gpu_busy_percent", 0.01),
        _Reading(f"{gpu}_memory_bytes", device / "mem_info_vram_used", 1.0),
    ]
    for sensor in entries(device / "hwmon"):
        wanted += [
            _Reading(f"{gpu}_energy_j_total", sensor / "energy1_input", 1e-6),
            _Reading(f"{gpu}_power_w", sensor / "power1_average", 1e-6),
            _Reading(f"{gpu}_power_w", sensor / "power1_input", 1e-6),
            _Reading(f"{gpu}_temperature_c", sensor / "temp1_input", 1e-3),
            _Reading(f"{gpu}_sm_hz", sensor / "freq1_input", 1.0),
        ]
    first: dict[str, _Reading] = {}
    twice = {f"{gpu}_power_w"} if metered and _in_package(device) else set()
    for reading in wanted:
        if reading.name not in twice and number(reading.path) is not None:
            first.setdefault(reading.name, reading)
    # A temperature alone is no account of a board: some display adapters have one.
    return list(first.values()) if first.keys() - {f"{gpu}_temperature_c"} else []


def _in_package(device: Path) -> bool:
    """Whether these are a processor's own graphics: of AMD's, those alone tell the northbridge's voltage."""
    return any(word(sensor / "in1_label") == "vddnb" for sensor in entries(device / "hwmon"))


def _board_name(device: Path) -> str:
    vendor = {"0x1002": "AMD", "0x8086": "Intel"}.get(word(device / "vendor"), word(device / "vendor"))
    return word(device / "product_name") or f"{vendor} {word(device / 'device')}".strip() or "unknown"
