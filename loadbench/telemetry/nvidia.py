"""NVIDIA boards, through NVML as wrapped by `nvidia-ml-py` (the module `pynvml`, of the extra `gpu`).

A reading that a board or its driver does not have at first is not tried again: older boards have no energy counter, and
some laptops no power reading. The energy counter is in mJ since the driver was loaded, on Volta and later (NVML API
reference, `nvmlDeviceGetTotalEnergyConsumption`). A throttle reading is 1 while power or heat limits the clocks, so
that its mean is the share of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Query = Callable[[Any], float]

# Bits of `nvmlDeviceGetCurrentClocksEventReasons`, nvml.h: software power cap, power brake; thermal, by software and
# by hardware. The general hardware slowdown (0x08) is set together with one of both.
_POWER = 0x04 | 0x80
_HEAT = 0x20 | 0x40


class Nvidia:
    """All boards that NVML lists."""

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        self._nvml = nvml
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
                }
                for handle in handles
            ]
        }

    @classmethod
    def detect(cls, nvml: Any | None) -> Self | None:
        """`None` without the library, a driver or a board."""
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return None
        return cls(nvml, handles) if handles else None

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
        """Utilisation, memory, power, energy, clocks and throttling of each board."""
        values = {name: self._value(query, handle) for name, (query, handle) in self._queries.items()}
        return {name: value for name, value in values.items() if value is not None}


def _queries(nvml: Any) -> dict[str, Query]:
    """The readings of a board, energy first, because the time of a reading is taken before it."""
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    if reasons is None:  # in older versions
        reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons
    return {
        "energy_j_total": lambda board: nvml.nvmlDeviceGetTotalEnergyConsumption(board) / 1e3,
        "power_w": lambda board: nvml.nvmlDeviceGetPowerUsage(board) / 1e3,
        "use": lambda board: nvml.nvmlDeviceGetUtilizationRates(board).gpu / 100,
        "memory_bytes": lambda board: nvml.nvmlDeviceGetMemoryInfo(board).used,
        "sm_hz": lambda board: nvml.nvmlDeviceGetClockInfo(board, nvml.NVML_CLOCK_SM) * 1e6,
        "memory_hz": lambda board: nvml.nvmlDeviceGetClockInfo(board, nvml.NVML_CLOCK_MEM) * 1e6,
        "temperature_c": lambda board: nvml.nvmlDeviceGetTemperature(board, nvml.NVML_TEMPERATURE_GPU),
        "throttled_power": lambda board: bool(reasons(board) & _POWER),
        "throttled_heat": lambda board: bool(reasons(board) & _HEAT),
    }
