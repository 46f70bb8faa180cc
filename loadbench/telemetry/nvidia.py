"""NVIDIA's boards, through NVML as `nvidia-ml-py` wraps it (the module `pynvml`, of the extra `gpu`).

What a board or its driver does not tell at first is not asked again: older ones have no energy counter, some laptops no
power. The energy counter is in mJ since the driver was loaded, Volta and later (NVML API reference,
`nvmlDeviceGetTotalEnergyConsumption`). A throttle reading is 1 while the clocks are held down by power or by heat, so
that its mean is the share of time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Ask = Callable[[Any], float]

# Bits of `nvmlDeviceGetCurrentClocksEventReasons`, nvml.h: software power cap, power brake; thermal, by software and
# by hardware. The general hardware slowdown (0x08) is one of both, and told with them.
_POWER = 0x04 | 0x80
_HEAT = 0x20 | 0x40


class Nvidia:
    """Every board that NVML shows."""

    def __init__(self, nvml: Any, handles: Sequence[Any]) -> None:
        self._nvml = nvml
        self._asked = {
            f"gpu{number}_{name}": (ask, handle)
            for number, handle in enumerate(handles)
            for name, ask in _questions(nvml).items()
            if self._told(ask, handle) is not None
        }
        self.boards = len(handles)
        self.about: Mapping[str, object] = {"boards": [self._board(handle) for handle in handles]}

    @classmethod
    def found(cls, nvml: Any | None) -> Self | None:
        """`None` without the library, the driver or a board."""
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        except nvml.NVMLError:
            return None
        return cls(nvml, handles) if handles else None

    def _board(self, handle: Any) -> dict[str, object]:
        return {
            "name": self._said(lambda: self._nvml.nvmlDeviceGetName(handle)),
            "driver": self._said(self._nvml.nvmlSystemGetDriverVersion),
            "memory_bytes": self._told(lambda one: self._nvml.nvmlDeviceGetMemoryInfo(one).total, handle),
        }

    def _said(self, ask: Callable[[], Any]) -> str | None:
        """A text; older versions of the library give bytes."""
        try:
            said = ask()
        except self._nvml.NVMLError:
            return None
        return said.decode(errors="replace") if isinstance(said, bytes) else str(said)

    def _told(self, ask: Ask, handle: Any) -> float | None:
        try:
            return float(ask(handle))
        except self._nvml.NVMLError:
            return None

    def read(self) -> Mapping[str, float]:
        """Utilisation, memory, power, energy, clocks and throttling of each board."""
        told = {name: self._told(ask, handle) for name, (ask, handle) in self._asked.items()}
        return {name: value for name, value in told.items() if value is not None}


def _questions(nvml: Any) -> dict[str, Ask]:
    """What is asked of a board, the energy first: the time of a reading is taken before it."""
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    if reasons is None:  # the older name
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
