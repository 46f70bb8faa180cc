"""Readings from Linux files: RAPL, the energy of CPU packages and their memory, and AMD and Intel graphics boards.

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}     AMD processors have the same names
    /sys/class/drm/card0/device/{gpu_busy_percent, mem_info_vram_used}, hwmon/hwmon*/{energy1_input, power1_average, …}

RAPL counters wrap around at their range, after minutes to hours; they are unwrapped here. Its domains `core` and
`uncore` are parts of `package`, and `psys` contains it, so only packages and `dram` are read. `intel-rapl-mmio` has
the same values as `intel-rapl`. The power of an AMD processor's integrated graphics is that of the whole chip, so it is
left out if the package is metered. Most kernels let only root read RAPL; then it is absent.

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
    """The number in a file; `None` if the file is missing, not readable, or has something else."""
    try:
        return float(path.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError):
        return None


def word(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def entries(folder: Path) -> list[Path]:
    """The entries of a folder in the order of their numbers; empty if there is no such folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
    except OSError:
        return []


class _Domain:
    """One RAPL counter, unwrapped."""

    def __init__(self, folder: Path, reading: str) -> None:
        self.reading = reading
        self._folder = folder
        self._range_uj = number(folder / "max_energy_range_uj") or 0.0
        self._last_uj = self._total_uj = 0.0

    def read(self) -> float | None:
        """Joules since `begin`."""
        now_uj = number(self._folder / "energy_uj")
        if now_uj is None:
            return None
        step_uj = now_uj - self._last_uj
        self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = now_uj
        return self._total_uj / 1e6

    def begin(self) -> bool:
        """Start counting; returns whether it can be read."""
        now_uj = number(self._folder / "energy_uj")
        self._last_uj = now_uj or 0.0
        return now_uj is not None


class Rapl:
    """The energy of every CPU package, and of memory where it has its own counter."""

    def __init__(self, domains: Sequence[_Domain]) -> None:
        self._domains = domains
        self.about: Mapping[str, object] = {
            "packages": [domain.reading.removesuffix("_energy_j_total") for domain in domains]
        }

    @classmethod
    def detect(cls, root: Path) -> Self | None:
        """`None` if there is no readable counter."""
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
        energies = {domain.reading: domain.read() for domain in self._domains}
        return {name: joules for name, joules in energies.items() if joules is not None}


class _BoardFile(NamedTuple):
    """One file of a board, and the factor for its number."""

    name: str
    path: Path
    scale: float


class Drm:
    """Boards by their kernel driver; NVIDIA's driver has no such files."""

    def __init__(self, boards: Sequence[tuple[str, Sequence[_BoardFile]]]) -> None:
        self._readings = [reading for _, readings in boards for reading in readings]
        self.about: Mapping[str, object] = {"boards": [{"name": name} for name, _ in boards]}

    @classmethod
    def detect(cls, root: Path, *, first: int = 0, metered: bool = False) -> Self | None:
        """`None` if no board has anything to read; `first` is the number of the first board.

        `metered`: the energy of the CPU package is read elsewhere.
        """
        boards: list[tuple[str, Sequence[_BoardFile]]] = []
        for card in entries(root / "sys/class/drm"):
            if _CARD.fullmatch(card.name):
                readings = _of_card(card / "device", f"gpu{first + len(boards)}", metered=metered)
                if readings:
                    device = card / "device"
                    vendor = {"0x1002": "AMD", "0x8086": "Intel"}.get(word(device / "vendor"), word(device / "vendor"))
                    name = word(device / "product_name") or f"{vendor} {word(device / 'device')}".strip() or "unknown"
                    boards.append((name, readings))
        return cls(boards) if boards else None

    def read(self) -> Mapping[str, float]:
        """The current readings."""
        values = {reading.name: (number(reading.path), reading.scale) for reading in self._readings}
        return {name: value * scale for name, (value, scale) in values.items() if value is not None}


def _of_card(device: Path, gpu: str, *, metered: bool) -> list[_BoardFile]:
    """The readable files of one board; nothing is counted twice."""
    wanted = [
        _BoardFile(f"{gpu}_use", device / "gpu_busy_percent", 0.01),
        _BoardFile(f"{gpu}_memory_bytes", device / "mem_info_vram_used", 1.0),
    ]
    for sensor in entries(device / "hwmon"):
        wanted += [
            _BoardFile(f"{gpu}_energy_j_total", sensor / "energy1_input", 1e-6),
            _BoardFile(f"{gpu}_power_w", sensor / "power1_average", 1e-6),
            _BoardFile(f"{gpu}_power_w", sensor / "power1_input", 1e-6),
            _BoardFile(f"{gpu}_temperature_c", sensor / "temp1_input", 1e-3),
            _BoardFile(f"{gpu}_sm_hz", sensor / "freq1_input", 1.0),
        ]
    first: dict[str, _BoardFile] = {}
    # Only AMD's integrated graphics, which are part of the package, have the northbridge's voltage.
    in_package = any(word(sensor / "in1_label") == "vddnb" for sensor in entries(device / "hwmon"))
    twice = {f"{gpu}_power_w"} if metered and in_package else set()
    for reading in wanted:
        if reading.name not in twice and number(reading.path) is not None:
            first.setdefault(reading.name, reading)
    # A temperature alone is not enough: some display adapters have one.
    return list(first.values()) if first.keys() - {f"{gpu}_temperature_c"} else []
