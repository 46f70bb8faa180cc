"""NVIDIA boards, through NVML as wrapped by `nvidia-ml-py` (the module `pynvml`, of the extra `gpu`).

A reading that a board or its driver does not have at first is not tried again: older boards have no energy counter, and
some laptops no power reading. The energy counter is in mJ since the driver was loaded, on Volta and later (NVML API
reference, `nvmlDeviceGetTotalEnergyConsumption`). A throttle reading is 1 while power or heat limits the clocks, so
that its mean is the share of time. Memory in use is without what the driver reserves for itself, as `nvidia-smi` has
it. The server's share of a board is that of its processes, in memory and in use of the multiprocessors.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    Query = Callable[[Any], float]

# Bits of `nvmlDeviceGetCurrentClocksEventReasons`, nvml.h: software power cap, power brake; thermal, by software and
# by hardware. The general hardware slowdown (0x08) is set together with one of both.
_POWER = 0x04 | 0x80
_HEAT = 0x20 | 0x40
# The driver samples processes every 200 ms; twice that, so that a late one is no gap.
_SAMPLED_EVERY_US = 400_000


class Nvidia:
    """All boards that NVML lists; `pids` has the server's processes now, where they are known."""

    def __init__(self, nvml: Any, handles: Sequence[Any], pids: Callable[[], Set[int]] | None = None) -> None:
        self._nvml = nvml
        self._handles = handles
        self._pids = pids
        self._shares = [(0, 0.0)] * len(handles)  # of each board: the time of its last sample in µs, the server's use
        self._queries = {
            f"gpu{number}_{name}": (query, handle)
            for number, handle in enumerate(handles)
            for name, query in _queries(nvml).items()
            if self._value(query, handle) is not None
        }
        self.boards = len(handles)
        self.about: Mapping[str, object] = {
            "boards": [
                {
                    "name": self._text(nvml.nvmlDeviceGetName, handle),
                    "driver": self._text(nvml.nvmlSystemGetDriverVersion),
                    "memory_bytes": self._value(lambda board: nvml.nvmlDeviceGetMemoryInfo(board).total, handle),
                    "power_limit_w": self._value(
                        lambda board: nvml.nvmlDeviceGetEnforcedPowerLimit(board) / 1e3, handle
                    ),
                }
                for handle in handles
            ]
        }

    @classmethod
    def detect(cls, nvml: Any | None, pids: Callable[[], Set[int]] | None = None) -> Self | None:
        """`None` without the library, a driver or a board."""
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return None
        return cls(nvml, handles, pids) if handles else None

    def _text(self, query: Callable[..., Any], *arguments: Any) -> str | None:
        """A text; older versions of the library return bytes."""
        try:
            text = query(*arguments)
        except self._nvml.NVMLError:
            return None
        return text.decode(errors="replace") if isinstance(text, bytes) else str(text)

    def _value(self, query: Query, handle: Any) -> float | None:
        try:
            return float(query(handle))
        except self._nvml.NVMLError:
            return None

    def read(self) -> Mapping[str, float]:
        """Utilisation, memory, power, energy, clocks and throttling of each board, and the server's share of it."""
        queried = {name: self._value(query, handle) for name, (query, handle) in self._queries.items()}
        values = {name: value for name, value in queried.items() if value is not None}
        if self._pids is not None:
            pids = self._pids()
            for number in range(len(self._handles)):
                values |= self._share(number, pids)
        return values

    def _share(self, number: int, pids: Set[int]) -> Mapping[str, float]:
        """The memory that these processes hold on a board, and their share of its multiprocessors' time since the last
        reading; 0 if they do not use it, and nothing where the driver does not say."""
        nvml, handle, values = self._nvml, self._handles[number], {}
        try:
            of_processes = [
                *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
                *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
            ]
        except nvml.NVMLError:
            return {}
        # A process that draws and computes is in both lists. Windows says who uses a board, and not how much.
        held = {process.pid: process.usedGpuMemory for process in of_processes if process.pid in pids}
        if None not in held.values():
            values[f"gpu{number}_process_memory_bytes"] = float(sum(held.values()))
        seen_us, use = self._shares[number]
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, seen_us)
        except nvml.NVMLError_NotFound:
            # No newer sample of anybody: between two samples, or because nobody uses it.
            use = use if time.time_ns() // 1000 - seen_us < _SAMPLED_EVERY_US else 0.0
        except nvml.NVMLError:
            return values
        else:
            latest = {sample.pid: sample.smUtil for sample in sorted(samples, key=lambda sample: sample.timeStamp)}
            use = min(100, sum(used for pid, used in latest.items() if pid in pids)) / 100
            self._shares[number] = max((sample.timeStamp for sample in samples), default=seen_us), use
        values[f"gpu{number}_process_use"] = use
        return values


def _queries(nvml: Any) -> dict[str, Query]:
    """The readings of a board, energy first, because the time of a reading is taken before it."""
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    if reasons is None:  # in older versions
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons

    def memory(board: Any) -> float:
        # The first version of this structure counts the driver's own memory as used.
        try:
            return float(nvml.nvmlDeviceGetMemoryInfo(board, version=nvml.nvmlMemory_v2).used)
        except nvml.NVMLError:
            return float(nvml.nvmlDeviceGetMemoryInfo(board).used)

    return {
        "energy_j_total": lambda board: nvml.nvmlDeviceGetTotalEnergyConsumption(board) / 1e3,
        "power_w": lambda board: nvml.nvmlDeviceGetPowerUsage(board) / 1e3,
        "use": lambda board: nvml.nvmlDeviceGetUtilizationRates(board).gpu / 100,
        "memory_bytes": memory,
        "sm_hz": lambda board: nvml.nvmlDeviceGetClockInfo(board, nvml.NVML_CLOCK_SM) * 1e6,
        "memory_hz": lambda board: nvml.nvmlDeviceGetClockInfo(board, nvml.NVML_CLOCK_MEM) * 1e6,
        "temperature_c": lambda board: nvml.nvmlDeviceGetTemperature(board, nvml.NVML_TEMPERATURE_GPU),
        "throttled_power": lambda board: bool(reasons(board) & _POWER),
        "throttled_heat": lambda board: bool(reasons(board) & _HEAT),
    }
