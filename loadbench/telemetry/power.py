"""What the machine is fed by, and whether it saves power: both decide how fast it is, and differ from run to run.

    /sys/class/power_supply/BAT0/{type, scope, status, power_now, current_now, voltage_now}     µW, µA, µV
    /sys/class/power_supply/AC/{type, online}
    /sys/firmware/acpi/platform_profile
    /sys/devices/system/cpu/cpu0/cpufreq/{scaling_governor, scaling_driver, energy_performance_preference,
                                          scaling_max_freq, cpuinfo_max_freq}

While a laptop runs on its battery, what that gives is the power of the whole machine, screen and load generator
included; as long as it is plugged in, the battery says nothing. Batteries report a new value every few seconds only,
some every half minute.

Sources, in the kernel's `Documentation`: `ABI/testing/sysfs-class-power`, `ABI/testing/sysfs-platform_profile`,
`admin-guide/pm/intel_pstate.rst`. Windows and macOS are read as `windows.py` and `macos.py` say.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from loadbench.telemetry import macos, windows
from loadbench.telemetry.sysfs import entries, number, word

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# Profiles and preferences that save power; `balance_power` prefers saving, as its name does not say.
_PROFILES = {"low-power", "quiet"}
_PREFERENCES = {"power", "balance_power"}
# These keep the clock low, or raise it late, unless the driver itself raises it, as those of Intel and AMD do.
SLOW_GOVERNORS = {"powersave", "conservative"}
# A limit of the clock this far below the processor's own.
_LIMITED = 0.9


class PowerState(NamedTuple):
    """`on_battery` is `None` without a battery, or where that is unknown; `charge` is a share; `saving` has what saves
    power, each in words."""

    on_battery: bool | None = None
    charge: float | None = None
    saving: tuple[str, ...] = ()


def power_state(root: Path, psutil: Any | None) -> PowerState:
    """The power of this machine now; `root` is the folder that contains `sys`."""
    saving: list[str] = []
    if sys.platform == "linux":
        saving = _saving(root)
        if (plugged := _plugged(root)) is not None:
            levels = [level for one in _batteries(root) if (level := number(one / "capacity")) is not None]
            return PowerState(not plugged, min(levels) / 100 if levels else None, tuple(saving))
    elif sys.platform == "darwin":
        saving = macos.saving_modes()
    elif sys.platform == "win32":
        kernel32, powrprof = windows.windows_library("kernel32"), windows.windows_library("powrprof")
        saving = windows.saving_modes(kernel32, powrprof)
    battery = None
    with suppress(AttributeError, NotImplementedError, OSError, RuntimeError):
        battery = psutil.sensors_battery() if psutil is not None else None
    if battery is None or battery.power_plugged is None:
        return PowerState(saving=tuple(saving))
    return PowerState(not battery.power_plugged, battery.percent / 100, tuple(saving))


def _batteries(root: Path) -> list[Path]:
    """Those that feed the machine: the batteries of mice and headsets have another scope."""
    return [
        supply
        for supply in entries(root / "sys/class/power_supply")
        if word(supply / "type") == "Battery" and word(supply / "scope") != "Device"
    ]


def _plugged(root: Path) -> bool | None:
    """Whether the machine is fed from outside; `None` without a battery, or where that is unknown."""
    batteries = _batteries(root)
    outside = [
        online
        for supply in entries(root / "sys/class/power_supply")
        if word(supply / "type") in {"Mains", "USB"} and (online := number(supply / "online")) is not None
    ]
    if not batteries:
        return None
    if any(outside):
        return True
    statuses = {word(battery / "status") for battery in batteries}
    return False if outside or "Discharging" in statuses else True if statuses - {"Unknown", ""} else None


def _saving(root: Path) -> list[str]:
    found = []
    profiles = [root / "sys/firmware/acpi/platform_profile"]
    profiles += [folder / "profile" for folder in entries(root / "sys/class/platform-profile")]
    found += [f"platform profile {name}" for name in sorted({word(path) for path in profiles} & _PROFILES)]
    folders = [path / "cpufreq" for path in entries(root / "sys/devices/system/cpu") if path.name[3:].isdigit()]
    preferences = {word(folder / "energy_performance_preference") for folder in folders} & _PREFERENCES
    found += [f"energy performance preference {name}" for name in sorted(preferences)]
    governors = {
        name
        for folder in folders
        if (name := word(folder / "scaling_governor")) in SLOW_GOVERNORS
        and "pstate" not in word(folder / "scaling_driver")
    }
    found += [f"frequency governor {name}" for name in sorted(governors)]
    limits = []
    for folder in folders:
        limit, most = number(folder / "scaling_max_freq"), number(folder / "cpuinfo_max_freq")
        if limit and most and limit < _LIMITED * most:
            limits.append((limit / most, f"clock limited to {limit / 1e6:.1f} of {most / 1e6:.1f} GHz"))
    return found + [text for _, text in sorted(limits)[:1]]


class Battery:
    """The power of the whole machine while its battery feeds it."""

    def __init__(self, discharge_w: Callable[[], float | None]) -> None:
        self._discharge_w = discharge_w
        self.about: Mapping[str, object] = {"batteries": ["battery0"]}

    @classmethod
    def detect(cls, root: Path) -> Self | None:
        """`None` if the machine is plugged in, or has no battery that says what it gives."""
        if sys.platform == "linux":
            battery = cls(lambda: _discharge_w(root))
        elif sys.platform == "darwin":
            battery = cls(macos.discharge_w)
        else:
            powrprof = windows.windows_library("powrprof")
            battery = cls(lambda: windows.discharge_w(powrprof))
        return battery if battery.read() else None

    def read(self) -> Mapping[str, float]:
        """Its power, while it discharges."""
        watts = self._discharge_w()
        return {} if watts is None else {"battery0_power_w": watts}


def _discharge_w(root: Path) -> float | None:
    """What all batteries give together; `None` if the machine is plugged in, or one does not say."""
    if _plugged(root) is not False:
        return None
    total = 0.0
    for battery in _batteries(root):
        if word(battery / "status") != "Discharging":
            continue  # of two batteries one gives at a time
        watts, amperes, volts = (number(battery / name) for name in ("power_now", "current_now", "voltage_now"))
        if watts is not None:
            total += abs(watts) / 1e6
        elif amperes is not None and volts is not None:
            total += abs(amperes) / 1e6 * abs(volts) / 1e6
        else:
            return None
    return total or None
