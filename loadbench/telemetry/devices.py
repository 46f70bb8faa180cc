"""The boards and neural processors that are in this machine, whether or not anything can be read of them.

    Linux     /sys/bus/pci/devices/*/{class, vendor, device}, /proc/driver/nvidia/gpus/*/information, /sys/class/accel
    Windows   HKLM\\SYSTEM\\CurrentControlSet\\Control\\Class\\{display and compute accelerators}\\0000\\DriverDesc

A machine with Apple's chip has its GPU. Adapters that only show a picture, as those of servers and of virtual machines,
are none. Sources: the PCI class codes of `pci_ids.h` in the kernel, Microsoft's list of device setup classes.
"""

from __future__ import annotations

import platform
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from loadbench.telemetry.sources import library
from loadbench.telemetry.sysfs import entries, linked, word

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["GPU", "NPU"]

_MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x1022": "AMD", "0x17cb": "Qualcomm"}
_DISPLAY, _ACCELERATOR = "0x03", "0x12"
# AMD's NPUs have the class of a signal processor.
_AMD_NPUS = {"0x1502", "0x17f0"}
_NPU_DRIVERS = {"intel_vpu": "Intel", "amdxdna": "AMD"}
_CLASSES: dict[Kind, str] = {
    "GPU": "{4d36e968-e325-11ce-bfc1-08002be10318}",
    "NPU": "{f01a9d53-3ff6-48d2-9f97-c8a7004be10c}",
}
_CLASS_FOLDER = r"SYSTEM\CurrentControlSet\Control\Class"
_BY_NAME = re.compile(
    r"\b(NVIDIA|AMD|Intel|Qualcomm|Apple)\b|\b(Radeon)\b|\b(Adreno|Hexagon|Snapdragon)\b", re.IGNORECASE
)
_NO_BOARD = re.compile(r"Microsoft (Basic|Remote|Hyper-V)|Virtual|Parsec|VMware|QXL|Citrix|DisplayLink", re.IGNORECASE)


class Device(NamedTuple):
    """A board or a neural processor; `maker` is empty where it is not known."""

    kind: Kind
    maker: str
    name: str


def present_devices(root: Path) -> list[Device]:
    """All of this machine; `root` is the folder that contains `sys` and `proc`."""
    if sys.platform == "win32":
        found = windows_devices(library("winreg"))
    elif sys.platform == "darwin":
        found = [Device("GPU", "Apple", "the GPU of Apple's chip")] if platform.machine() == "arm64" else []
    else:
        found = _linux_devices(root)
    return found


def _linux_devices(root: Path) -> list[Device]:
    found, npus = [], set()
    for device in entries(root / "sys/bus/pci/devices"):
        kind, vendor, model = word(device / "class"), word(device / "vendor"), word(device / "device")
        maker = _MAKERS.get(vendor)
        if maker is None:
            continue
        if (maker == "Intel" and kind.startswith(_ACCELERATOR)) or (vendor == "0x1022" and model in _AMD_NPUS):
            npus.add(maker)
            found.append(Device("NPU", maker, f"{maker} NPU"))
        elif kind.startswith((_DISPLAY, _ACCELERATOR)) and vendor != "0x1022":
            found.append(Device("GPU", maker, f"{maker} {model}"))
    for accel in entries(root / "sys/class/accel"):
        maker = _NPU_DRIVERS.get(linked(accel / "device/driver"))
        if maker is not None and maker not in npus:
            npus.add(maker)
            found.append(Device("NPU", maker, f"{maker} NPU"))
    # The driver's own folder has its name, without any library.
    models = re.findall(
        r"^Model:\s*(.+?)\s*$",
        "\n".join(word(gpu / "information") for gpu in entries(root / "proc/driver/nvidia/gpus")),
        re.MULTILINE,
    )
    names = iter(models)
    return [
        Device(device.kind, device.maker, next(names, device.name)) if device.maker == "NVIDIA" else device
        for device in found
    ]


def windows_devices(winreg: Any | None) -> list[Device]:
    """Those that have a driver, by the registry; empty where it cannot be read."""
    found: list[Device] = []
    if winreg is None:
        return found
    for kind, name in _CLASSES.items():
        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, rf"{_CLASS_FOLDER}\{name}") as folder:
            for index in range(winreg.QueryInfoKey(folder)[0]):
                key = winreg.EnumKey(folder, index)
                if not key.isdigit():
                    continue  # its properties, which only the system may read
                with suppress(OSError), winreg.OpenKey(folder, key) as device:
                    text = str(winreg.QueryValueEx(device, "DriverDesc")[0])
                    if _NO_BOARD.search(text) is None:
                        found.append(Device(kind, maker_of(text), text))
    return list(dict.fromkeys(found))


def maker_of(name: str) -> str:
    """The maker of a board by its name; empty where it does not say."""
    match = _BY_NAME.search(name)
    if match is None:
        return ""
    known = {"nvidia": "NVIDIA", "amd": "AMD", "intel": "Intel", "qualcomm": "Qualcomm", "apple": "Apple"}
    return known.get(match[0].lower(), "AMD" if match[2] else "Qualcomm")
