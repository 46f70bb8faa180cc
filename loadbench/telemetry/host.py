"""The machine: CPU, memory, clock frequency, temperature, and how often heat throttled it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from loadbench.telemetry.sysfs import entries, number

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Sensors of the processor, by their Linux names: Intel, AMD, and Arm boards.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
# Intel processors only; each core of a package has the count of the whole package.
_THROTTLED = "sys/devices/system/cpu/cpu{}/thermal_throttle/package_throttle_count"


class Host:
    """The machine by `psutil`, and how often the processor was throttled."""

    def __init__(self, psutil: Any, root: Path) -> None:
        self._psutil = psutil
        # One throttle count for each package.
        first: dict[float | None, Path] = {}
        for cpu in [path.name[3:] for path in entries(root / "sys/devices/system/cpu") if path.name[3:].isdigit()]:
            package = number(root / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id")
            first.setdefault(package, root / _THROTTLED.format(cpu))
        self._throttled = [path for path in first.values() if number(path) is not None]
        psutil.cpu_percent()  # the first call has no interval to report on
        self.about: Mapping[str, object] = {
            "host": {"cores": psutil.cpu_count(), "memory_bytes": psutil.virtual_memory().total}
        }

    @classmethod
    def detect(cls, psutil: Any | None, root: Path) -> Self | None:
        """`None` without `psutil`."""
        return None if psutil is None else cls(psutil, root)

    def read(self) -> Mapping[str, float]:
        """The share of all cores' time since the last reading, and the current values of the rest."""
        memory = self._psutil.virtual_memory()
        values = {
            "host_cpu_share": self._psutil.cpu_percent() / 100,
            "host_memory_used_bytes": float(memory.total - memory.available),
        }
        # Many systems have neither, and some raise errors.
        with suppress(AttributeError, NotImplementedError, OSError, RuntimeError):
            frequency = self._psutil.cpu_freq()
            if frequency is not None and frequency.current:
                values["host_frequency_hz"] = frequency.current * 1e6
        with suppress(AttributeError, NotImplementedError, OSError, RuntimeError):
            sensors = self._psutil.sensors_temperatures()
            of_cpu = [one.current for name in _CPU_SENSORS for one in sensors.get(name, ()) if one.current is not None]
            values |= {"host_temperature_c": max(of_cpu)} if of_cpu else {}  # the hottest one
        counts = [count for path in self._throttled if (count := number(path)) is not None]
        if counts and len(counts) == len(self._throttled):
            values["host_throttled_total"] = sum(counts)
        return values
