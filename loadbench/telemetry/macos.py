"""What macOS shows without root, by `ioreg` and `pmset`: the GPU's utilisation and memory, the battery, the power mode.

    ioreg -a -r -d 1 -c IOAccelerator       PerformanceStatistics: Device Utilization %, In use system memory
    ioreg -a -r -d 1 -c AppleSmartBattery   Voltage (mV), InstantAmperage (mA, negative while it discharges)
    pmset -g                                lowpowermode

Power and energy of CPU, GPU and Neural Engine are only in `powermetrics`, which needs root: they are not read. `run`
calls a command and returns its output, or `None`.
"""

from __future__ import annotations

import plistlib
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from loadbench.core.children import child_environment, find_program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Run = Callable[[Sequence[str]], bytes | None]

_ACCELERATORS = ("ioreg", "-a", "-r", "-d", "1", "-c", "IOAccelerator")
_BATTERY = ("ioreg", "-a", "-r", "-d", "1", "-c", "AppleSmartBattery")
_WITHIN_S = 5.0


def run(command: Sequence[str]) -> bytes | None:
    """The output of a command of the system; `None` if it fails or is not there."""
    program = find_program(command[0])
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(  # noqa: S603 - a command of the system
            [program, *command[1:]], env=child_environment(), capture_output=True, timeout=_WITHIN_S, check=True
        ).stdout
    return None


def _entries(output: bytes | None) -> list[dict[str, Any]]:
    with suppress(plistlib.InvalidFileException, ValueError, TypeError):
        found = plistlib.loads(output or b"")
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return []


class AppleBoards:
    """The GPUs of this machine."""

    def __init__(self, boards: Sequence[str], call: Run) -> None:
        self._call = call
        self.about: Mapping[str, object] = {"boards": [{"name": name} for name in boards]}

    @classmethod
    def detect(cls, call: Run = run) -> Self | None:
        """`None` if none reports its statistics."""
        boards = [_name(entry) for entry in _entries(call(_ACCELERATORS)) if "PerformanceStatistics" in entry]
        return cls(boards, call) if boards else None

    def read(self) -> Mapping[str, float]:
        """Utilisation and memory of each."""
        values: dict[str, float] = {}
        statistics = [entry.get("PerformanceStatistics") for entry in _entries(self._call(_ACCELERATORS))]
        for index, found in enumerate(one for one in statistics if isinstance(one, dict)):
            for name, key, scale in (
                ("use", "Device Utilization %", 0.01),
                ("memory_bytes", "In use system memory", 1.0),
            ):
                if isinstance(value := found.get(key), int):
                    values[f"gpu{index}_{name}"] = value * scale
        return values


def _name(entry: Mapping[str, Any]) -> str:
    model = entry.get("model", "")
    text = model.split(b"\0")[0].decode(errors="replace") if isinstance(model, bytes) else str(model)
    return text or "GPU"


def discharge_w(call: Run = run) -> float | None:
    """What the battery gives; `None` while it does not, or where there is none."""
    for entry in _entries(call(_BATTERY)):
        volts, amperes = entry.get("Voltage"), entry.get("InstantAmperage", entry.get("Amperage"))
        if entry.get("ExternalConnected") or not isinstance(volts, int) or not isinstance(amperes, int):
            continue
        amperes -= (amperes >= 1 << 63) << 64  # the registry has no sign
        return -volts * amperes / 1e6 if amperes < 0 else None
    return None


def saving_modes(call: Run = run) -> list[str]:
    """The settings that save power."""
    words = [line.split() for line in (call(("pmset", "-g")) or b"").decode(errors="replace").splitlines()]
    return ["Low Power Mode is on"] if ["lowpowermode", "1"] in words else []
