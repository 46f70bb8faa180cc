"""The machine: CPU, memory, clock frequency, temperature, and how often it was held down by heat."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from loadbench.telemetry.sysfs import entries, number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Sensors of the processor itself, as Linux names them: Intel's, AMD's, and those of Arm boards.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
# By Intel's processors only; each core of a package tells of the whole of it.
_THROTTLED = "sys/devices/system/cpu/cpu{}/thermal_throttle/package_throttle_count"


class Host:
    """What `psutil` tells of the machine, and how often the processor was throttled."""

    def __init__(self, psutil: Any, root: Path) -> None:
        self._psutil = psutil
        self._throttled = [path for path in _throttle_counts(root) if number(path) is not None]
        psutil.cpu_percent()  # the first answer is of no time at all
        self.about: Mapping[str, object] = {
            "host": {"cores": psutil.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
        }

    @classmethod
    def found(cls, psutil: Any | None, root: Path) -> Self | None:
        """`None` without the library."""
        return None if psutil is None else cls(psutil, root)

    def read(self) -> Mapping[str, float]:
        """The share of all cores' time since the last reading, and the present state of the rest."""
        memory = self._psutil.virtual_memory()
        values = {
            "host_cpu_share": self._psutil.cpu_percent() / 100,
            "host_memory_used_bytes": float(memory.total - memory.available),
        }
        # Many systems have neither, and some fail in their own ways.
        with suppress(AttributeError, NotImplementedError, OSError, RuntimeError):
            frequency = self._psutil.cpu_freq()
            if frequency is not None and frequency.current:
                values["host_frequency_hz"] = frequency.current * 1e6
        with suppress(AttributeError, NotImplementedError, OSError, RuntimeError):
            values.update(_temperature(self._psutil.sensors_temperatures()))
        counts = [count for path in self._throttled if (count := number(path)) is not None]
        if counts and len(counts) == len(self._throttled):
            values["host_throttled_total"] = sum(counts)
        return values


def _throttle_counts(root: Path) -> list[Path]:
    """One file for each package."""
    cpus = [path.name[3:] for path in entries(root / "sys/devices/system/cpu") if path.name[3:].isdigit()]
    first: dict[float | None, Path] = {}
    for cpu in cpus:
        package = number(root / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id")
        first.setdefault(package, root / _THROTTLED.format(cpu))
    return list(first.values())


def _temperature(sensors: Mapping[str, Any]) -> dict[str, float]:
    """The hottest of the processor's sensors."""
    of_cpu = [one.current for name in _CPU_SENSORS for one in sensors.get(name, ()) if one.current is not None]
    return {"host_temperature_c": max(of_cpu)} if of_cpu else {}
