"""Readings from Linux files: RAPL, the energy of CPU packages and their memory; AMD and Intel boards; Intel's NPU.

    /sys/class/powercap/intel-rapl:0/{name, energy_uj, max_energy_range_uj}     AMD processors have the same names
    /sys/class/drm/card0/device/{gpu_busy_percent, mem_info_vram_used}, hwmon/hwmon*/{energy1_input, power1_average, …}
    …/card0/device/gpu_metrics                                                  amdgpu: which limits hold the clocks
    …/card0/gt/gt0/{rps_act_freq_mhz, throttle_reason_*}                        i915
    …/card0/device/tile0/gt0/freq0/{act_freq, throttle/reason_*}                xe
    /sys/class/accel/accel0/device/{npu_busy_time_us, …}                        ivpu

RAPL counters wrap around at their range, after minutes to hours; they are unwrapped here. Its domains `core` and
`uncore` are parts of `package`, and `psys` contains it, so only packages and `dram` are read. `intel-rapl-mmio` has
the same values as `intel-rapl`. The power of an AMD processor's integrated graphics is that of the whole chip, so it is
left out if the package is metered. Most kernels let only root read RAPL; then it is absent.

Intel's drivers have no utilisation of the whole board in files; that of the server's processes is in `drm_clients.py`.
Their idle counters are of a power state, not of work, and are not read. A throttle reading is 1 while power or heat
limits the clocks, as NVIDIA's.

Sources, in the kernel's `Documentation`: `power/powercap/powercap.rst`, `gpu/amdgpu/thermal.rst`,
`hwmon/sysfs-interface.rst`, `ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon`, `sysfs-driver-ivpu`; in its sources
`amd/include/kgd_pp_interface.h` (gpu_metrics), `amd/pm/swsmu/inc/amdgpu_smu.h` (its bits),
`i915/gt/intel_gt_sysfs_pm.c`, `xe/xe_gt_throttle.c`.
"""

from __future__ import annotations

import re
import struct
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Reading = Callable[[], float | None]

_DOMAIN = re.compile(r"intel-rapl(:\d+)+")
_CARD = re.compile(r"card\d+")
_MAKERS = {"0x1002": "AMD", "0x8086": "Intel", "0x10de": "NVIDIA"}
# Where the reasons for throttled clocks, which do not depend on the board, are in AMD's table of metrics, by its
# version: of boards 1.3, of processors with graphics 2.2 to 2.4. Their bits: limits of power and of current; of heat.
_THROTTLED_AT = {(1, 3): 112, (2, 2): 120, (2, 3): 120, (2, 4): 120}
_POWER_BITS = 0x0000_0000_00FF_00FF
_HEAT_BITS = 0x0000_FFFF_0000_0000
# A board whose firmware fills nothing in has all bits set.
_NOT_FILLED_IN = (1 << 64) - 1
# Intel's reasons by the ends of their names; the rest are limits of power and current.
_HEAT_REASON = re.compile(r"reason_(.*therm.*|prochot|ratl)$")
_POWER_REASON = re.compile(r"reason_((psys_)?(pl\d|crit)|vr_tdc|iccmax|fastvmode)$")


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


def linked(path: Path) -> str:
    """The last part of what a link leads to; empty if there is no such link."""
    try:
        return path.readlink().name
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


class Drm:
    """Boards by their kernel driver; NVIDIA's driver has no such files."""

    def __init__(self, boards: Sequence[tuple[Path, Mapping[str, Reading]]], first: int) -> None:
        self._readings = {name: reading for _, readings in boards for name, reading in readings.items()}
        # Name and driver of each, by PCI address.
        self.gpus = {
            linked(card / "device"): (f"gpu{index}", linked(card / "device/driver"))
            for index, (card, _) in enumerate(boards, first)
        }
        self.about: Mapping[str, object] = {"boards": [_about_card(card / "device") for card, _ in boards]}

    @classmethod
    def detect(cls, root: Path, *, first: int = 0, metered: bool = False) -> Self | None:
        """`None` if no board has anything to read; `first` is the number of the first board.

        `metered`: the energy of the CPU package is read elsewhere.
        """
        boards: list[tuple[Path, Mapping[str, Reading]]] = []
        for card in entries(root / "sys/class/drm"):
            if _CARD.fullmatch(card.name):  # the others are its connectors
                readings = _of_card(card, f"gpu{first + len(boards)}", metered=metered)
                boards += [(card, readings)] if readings else []
        return cls(boards, first) if boards else None

    def read(self) -> Mapping[str, float]:
        """The current readings."""
        values = {name: reading() for name, reading in self._readings.items()}
        return {name: value for name, value in values.items() if value is not None}


def _about_card(device: Path) -> Mapping[str, object]:
    """The name of a board, and as far as they are known its driver, memory and power limit."""
    maker = _MAKERS.get(word(device / "vendor"), word(device / "vendor"))
    limits = [number(sensor / limit) for sensor in entries(device / "hwmon") for limit in ("power1_cap", "power1_max")]
    about = {
        "name": word(device / "product_name") or f"{maker} {word(device / 'device')}".strip() or "unknown",
        "driver": linked(device / "driver"),
        "memory_bytes": number(device / "mem_info_vram_total"),
        "power_limit_w": next((limit / 1e6 for limit in limits if limit), None),  # 0 is none
    }
    return {name: value for name, value in about.items() if value}


def _of_card(card: Path, gpu: str, *, metered: bool) -> Mapping[str, Reading]:
    """The readings of one board that it has now; nothing is counted twice."""
    device = card / "device"
    files = [
        ("use", device / "gpu_busy_percent", 0.01),
        ("memory_bytes", device / "mem_info_vram_used", 1.0),
        ("shared_memory_bytes", device / "mem_info_gtt_used", 1.0),
    ]
    # Intel has a further sensor for each of several parts of a board.
    for sensor in sorted(entries(device / "hwmon"), key=lambda sensor: "_gt" in word(sensor / "name")):
        files += [
            ("energy_j_total", sensor / "energy1_input", 1e-6),
            ("energy_j_total", sensor / "energy2_input", 1e-6),  # xe: of the chip, where that of the board is missing
            ("power_w", sensor / "power1_average", 1e-6),
            ("power_w", sensor / "power1_input", 1e-6),
            ("temperature_c", sensor / "temp1_input", 1e-3),
            ("temperature_c", sensor / "temp2_input", 1e-3),  # xe: of the chip
            ("sm_hz", sensor / "freq1_input", 1.0),
            ("memory_hz", sensor / "freq2_input", 1.0),
        ]
    files += [
        ("sm_hz", card / "gt/gt0/rps_act_freq_mhz", 1e6),
        ("sm_hz", card / "gt_act_freq_mhz", 1e6),
        ("sm_hz", device / "tile0/gt0/freq0/act_freq", 1e6),
    ]
    wanted: list[tuple[str, Reading]] = [(name, partial(scaled, path, scale)) for name, path, scale in files]
    metrics = device / "gpu_metrics"
    wanted += [
        ("throttled_power", partial(_throttled_amd, metrics, _POWER_BITS)),
        ("throttled_heat", partial(_throttled_amd, metrics, _HEAT_BITS)),
    ]
    parts = [*(card / "gt").glob("gt*"), *device.glob("tile*/gt*/freq0/throttle")]
    reasons = [path for part in parts for path in entries(part)]
    for name, kind in (("throttled_power", _POWER_REASON), ("throttled_heat", _HEAT_REASON)):
        wanted.append((name, partial(_any_set, [path for path in reasons if kind.search(path.name)])))

    # Only AMD's integrated graphics, which are part of the package, have the northbridge's voltage.
    in_package = any(word(sensor / "in1_label") == "vddnb" for sensor in entries(device / "hwmon"))
    found: dict[str, Reading] = {}
    for name, reading in wanted:
        if not (name == "power_w" and metered and in_package) and reading() is not None:
            found.setdefault(f"{gpu}_{name}", reading)
    # A temperature alone is not enough: some display adapters have one.
    return found if found.keys() - {f"{gpu}_temperature_c"} else {}


def scaled(path: Path, scale: float) -> float | None:
    """The number in a file, in base units."""
    value = number(path)
    return None if value is None else value * scale


def _any_set(flags: Sequence[Path]) -> float | None:
    """1 if any of these files says so; `None` if none can be read."""
    values = [value for path in flags if (value := number(path)) is not None]
    return float(any(values)) if values else None


def _throttled_amd(metrics: Path, bits: int) -> float | None:
    """1 if a board's table of metrics has one of these reasons; `None` for a table that does not say."""
    with suppress(OSError, struct.error):
        table = metrics.read_bytes()
        version = struct.unpack_from("<2xBB", table)
        (reasons,) = struct.unpack_from("<Q", table, _THROTTLED_AT.get(version, len(table)))
        return None if reasons == _NOT_FILLED_IN else float(bool(reasons & bits))
    return None


class Npu:
    """Intel's neural processors, by their kernel driver; that of AMD has no such files.

    `npu_busy_time_us` counts the time in which jobs were submitted; its share of the time since the last reading is the
    utilisation, so the first reading has none.
    """

    def __init__(self, devices: Sequence[Path], now_ns: Callable[[], int]) -> None:
        self._devices = devices
        self._now_ns = now_ns
        self._last: dict[Path, tuple[int, float]] = {}
        self.about: Mapping[str, object] = {
            "npus": [{"name": "Intel NPU", "driver": linked(device / "driver")} for device in devices]
        }

    @classmethod
    def detect(cls, root: Path, now_ns: Callable[[], int] = time.perf_counter_ns) -> Self | None:
        """`None` if there is none with a counter."""
        devices = [accel / "device" for accel in entries(root / "sys/class/accel")]
        counted = [device for device in devices if number(device / "npu_busy_time_us") is not None]
        return cls(counted, now_ns) if counted else None

    def read(self) -> Mapping[str, float]:
        """Utilisation, memory and clock of each."""
        values: dict[str, float | None] = {}
        for index, device in enumerate(self._devices):
            at_ns, busy_us = self._now_ns(), number(device / "npu_busy_time_us")
            before_ns, before_us = self._last.get(device, (at_ns, 0.0))
            if busy_us is not None:
                if at_ns > before_ns and busy_us >= before_us:
                    values[f"npu{index}_use"] = min(1.0, (busy_us - before_us) * 1e3 / (at_ns - before_ns))
                self._last[device] = at_ns, busy_us
            values[f"npu{index}_memory_bytes"] = number(device / "npu_memory_utilization")
            values[f"npu{index}_hz"] = scaled(device / "npu_current_frequency_mhz", 1e6)
        return {name: value for name, value in values.items() if value is not None}
