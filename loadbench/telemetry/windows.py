"""What Windows shows of its boards and its power: GPU and NPU engines by performance counters, and the battery.

    \\GPU Engine(pid_1234_luid_0x00000000_0x0000BB15_phys_0_eng_0_engtype_3D)\\Utilization Percentage
    \\GPU Adapter Memory(luid_0x00000000_0x0000BB15_phys_0)\\Dedicated Usage, \\Shared Usage
    \\GPU Process Memory(pid_1234_luid_0x00000000_0x0000BB15_phys_0)\\Dedicated Usage, \\Shared Usage

Each process has its share of each engine; the use of a board is that of its engine with the most work, as in the Task
Manager. An NPU appears among them with Windows 11 24H2; it computes only, so it has no engines for graphics, while the
`neural` engine of a GPU is part of that GPU. What no counter shows is left out: power, clocks, temperature. The names
of boards are in the registry, where Direct3D keeps them by the same LUID; a software renderer is no board.

Sources: Microsoft's reference of the Performance Data Helper (`PdhAddEnglishCounterW`, `PdhGetFormattedCounterArrayW`),
of `GetSystemPowerStatus` and `CallNtPowerInformation`. The libraries are arguments, since only Windows has them.
"""

from __future__ import annotations

import ctypes
import re
import uuid
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Set

_INSTANCE = re.compile(
    r"(?:pid_(?P<pid>\d+)_)?luid_(?P<luid>0x[0-9a-f]+_0x[0-9a-f]+)_phys_\d+(?:_eng_(?P<engine>\d+)_engtype_(?P<type>.*))?",
    re.IGNORECASE,
)
# Every board for graphics has some of these engines, and no NPU does. Without a process, a board shows no engine.
_GRAPHICS = re.compile(r"3d|video|overlay|gsc", re.IGNORECASE)
_NEURAL = re.compile(r"\b(npu|ai boost|hexagon|neural)\b", re.IGNORECASE)
_SOFTWARE = "Microsoft Basic Render Driver"
_DIRECTX = r"SOFTWARE\Microsoft\DirectX"
_COUNTERS = {
    "engines": r"\GPU Engine(*)\Utilization Percentage",
    "dedicated": r"\GPU Adapter Memory(*)\Dedicated Usage",
    "shared": r"\GPU Adapter Memory(*)\Shared Usage",
    "process_dedicated": r"\GPU Process Memory(*)\Dedicated Usage",
    "process_shared": r"\GPU Process Memory(*)\Shared Usage",
}
# pdh.h and pdhmsg.h.
_FMT_DOUBLE, _FMT_NOCAP100, _MORE_DATA = 0x200, 0x8000, 0x800007D2
_VALID = {0, 1}  # PDH_CSTATUS_VALID_DATA, PDH_CSTATUS_NEW_DATA
# A list grows between the question for its size and the one for its values: processes start.
_TRIES = 3
# Power schemes and overlays that save power.
_SAVING = {
    uuid.UUID("a1841308-3541-4fab-bc81-f71556f20b4a"): "the power plan Power saver",
    uuid.UUID("961cc777-2547-4f9d-8174-7d86181b8a7a"): "the power mode Best power efficiency",
}
_BATTERY_STATE = 5  # POWER_INFORMATION_LEVEL
_UNKNOWN_RATE = 0x8000_0000


def windows_library(name: str) -> Any | None:
    """A library of Windows; `None` elsewhere, or if there is no such one."""
    load = getattr(ctypes, "WinDLL", None)
    if load is None:
        return None
    try:
        return load(name)
    except OSError:
        return None


class _Value(ctypes.Structure):
    _fields_ = (("status", ctypes.c_uint32), ("value", ctypes.c_double))


class _Item(ctypes.Structure):
    _fields_ = (("name", ctypes.c_wchar_p), ("value", _Value))


class Pdh:
    """A query of performance counters, each of all its instances."""

    def __init__(self, pdh: Any, query: ctypes.c_void_p, counters: Mapping[str, ctypes.c_void_p]) -> None:
        self._pdh = pdh
        self._query = query
        self._counters = counters

    @classmethod
    def open(cls, pdh: Any, paths: Mapping[str, str]) -> Self | None:
        """A query of the counters that this system has; `None` if it has none of them."""
        # A status is unsigned, and ctypes takes every result for signed.
        for name in (
            "PdhOpenQueryW",
            "PdhAddEnglishCounterW",
            "PdhCollectQueryData",
            "PdhGetFormattedCounterArrayW",
            "PdhCloseQuery",
        ):
            getattr(pdh, name).restype = ctypes.c_uint32
        query = ctypes.c_void_p()
        if pdh.PdhOpenQueryW(None, None, ctypes.byref(query)):
            return None
        counters = {}
        for key, path in paths.items():
            counter = ctypes.c_void_p()
            if not pdh.PdhAddEnglishCounterW(query, ctypes.c_wchar_p(path), None, ctypes.byref(counter)):
                counters[key] = counter
        # The first collection has no interval to report on.
        if not counters or pdh.PdhCollectQueryData(query):
            pdh.PdhCloseQuery(query)
            return None
        return cls(pdh, query, counters)

    def read(self) -> Mapping[str, Mapping[str, float]]:
        """The values by instance of each counter; those that cannot be read now are left out."""
        if self._pdh.PdhCollectQueryData(self._query):
            return {}
        return {key: self._values(counter) for key, counter in self._counters.items()}

    def _values(self, counter: ctypes.c_void_p) -> Mapping[str, float]:
        size, count = ctypes.c_uint32(0), ctypes.c_uint32(0)
        buffer = None
        for _ in range(_TRIES):
            status = self._pdh.PdhGetFormattedCounterArrayW(
                counter, ctypes.c_uint32(_FMT_DOUBLE | _FMT_NOCAP100), ctypes.byref(size), ctypes.byref(count), buffer
            )
            if status != _MORE_DATA:
                break
            buffer = ctypes.create_string_buffer(size.value)
        if status or buffer is None:
            return {}
        items = ctypes.cast(buffer, ctypes.POINTER(_Item))
        values: dict[str, float] = {}
        for item in (items[index] for index in range(count.value)):
            if item.name and item.value.status in _VALID:
                values[item.name] = values.get(item.name, 0.0) + item.value.value
        return values


class _Board(NamedTuple):
    """One adapter: its LUID in lower case, and `gpu0` or `npu0`."""

    luid: str
    key: str


class WindowsBoards:
    """The boards that have performance counters; those that NVML reads are left to it."""

    def __init__(
        self, query: Pdh, names: Mapping[str, str], pids: Callable[[], Set[int]] | None, *, first: int = 0
    ) -> None:
        self._query = query
        self._pids = pids
        read = query.read()
        types: dict[str, set[str]] = defaultdict(set)
        for name in (*read.get("engines", {}), *read.get("dedicated", {})):
            if match := _INSTANCE.fullmatch(name):
                types[match["luid"].lower()] |= {match["type"]} - {None}
        self._boards: list[_Board] = []
        listed: dict[str, list[Mapping[str, object]]] = {"gpu": [], "npu": []}
        for luid, engines in sorted(types.items()):
            known = names.get(luid, "")
            # NVML numbers its boards first.
            if known == _SOFTWARE or (first and (not known or known.startswith("NVIDIA"))):
                continue
            idle_gpu = not engines and known and not _NEURAL.search(known)
            kind = "gpu" if idle_gpu or any(_GRAPHICS.search(engine) for engine in engines) else "npu"
            index = len(listed[kind]) + (first if kind == "gpu" else 0)
            self._boards.append(_Board(luid, f"{kind}{index}"))
            listed[kind].append({"name": known or kind.upper()})
        self.about: Mapping[str, object] = {
            about: listed[kind] for kind, about in (("gpu", "boards"), ("npu", "npus")) if listed[kind]
        }

    @classmethod
    def detect(
        cls, pdh: Any | None, winreg: Any | None, pids: Callable[[], Set[int]] | None = None, *, first: int = 0
    ) -> Self | None:
        """`None` where Windows has no such counters, or no board with them."""
        if pdh is None:
            return None
        query = Pdh.open(pdh, _COUNTERS)
        boards = None if query is None else cls(query, adapter_names(winreg), pids, first=first)
        return boards if boards is not None and boards.about else None

    def read(self) -> Mapping[str, float]:
        """Utilisation and memory of each board, and the server's share of both."""
        read = self._query.read()
        pids = None if self._pids is None else self._pids()
        used: dict[tuple[str, str], float] = defaultdict(float)  # of each engine of a board, by all and by the server
        own: dict[tuple[str, str], float] = defaultdict(float)
        for name, percent in read.get("engines", {}).items():
            if match := _INSTANCE.fullmatch(name):
                engine = match["luid"].lower(), match["engine"]
                used[engine] += percent
                own[engine] += percent if pids is not None and int(match["pid"] or -1) in pids else 0.0
        values: dict[str, float] = {}
        for board in self._boards:
            if "engines" in read:
                for name, shares in ("use", used), *([("process_use", own)] if pids is not None else []):
                    most = max((share for (luid, _), share in shares.items() if luid == board.luid), default=0.0)
                    values[f"{board.key}_{name}"] = min(100.0, most) / 100
            for counter, name in (("dedicated", "memory_bytes"), ("shared", "shared_memory_bytes")):
                held = [size for _, size in _of(read.get(counter, {}), board.luid)]
                values |= {f"{board.key}_{name}": sum(held)} if held else {}
            if pids is not None and {"process_dedicated", "process_shared"} & read.keys():
                both = [read.get(counter, {}) for counter in ("process_dedicated", "process_shared")]
                held = [size for sizes in both for pid, size in _of(sizes, board.luid) if pid in pids]
                values[f"{board.key}_process_memory_bytes"] = sum(held)
        return values


def _of(sizes: Mapping[str, float], luid: str) -> list[tuple[int, float]]:
    """(pid or -1, value) of the instances of one board."""
    matches = [(_INSTANCE.fullmatch(name), size) for name, size in sizes.items()]
    return [(int(match["pid"] or -1), size) for match, size in matches if match and match["luid"].lower() == luid]


def adapter_names(winreg: Any | None) -> dict[str, str]:
    """The names of the display adapters by LUID, as counters write it; empty where they cannot be read."""
    names: dict[str, str] = {}
    if winreg is None:
        return names
    with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, _DIRECTX) as folder:
        for index in range(winreg.QueryInfoKey(folder)[0]):
            with suppress(OSError), winreg.OpenKey(folder, winreg.EnumKey(folder, index)) as adapter:
                luid = int(winreg.QueryValueEx(adapter, "AdapterLuid")[0])
                name = str(winreg.QueryValueEx(adapter, "Description")[0])
                names[f"0x{luid >> 32 & 0xFFFFFFFF:08x}_0x{luid & 0xFFFFFFFF:08x}"] = name
    return names


class _PowerStatus(ctypes.Structure):
    """SYSTEM_POWER_STATUS."""

    _fields_ = (
        ("ac_line", ctypes.c_uint8),
        ("battery_flag", ctypes.c_uint8),
        ("percent", ctypes.c_uint8),
        ("saver", ctypes.c_uint8),
        ("life_s", ctypes.c_uint32),
        ("full_life_s", ctypes.c_uint32),
    )


class _BatteryState(ctypes.Structure):
    """SYSTEM_BATTERY_STATE: rates in mW, negative while it discharges."""

    _fields_ = (
        ("ac", ctypes.c_uint8),
        ("present", ctypes.c_uint8),
        ("charging", ctypes.c_uint8),
        ("discharging", ctypes.c_uint8),
        ("spare", ctypes.c_uint8 * 4),
        ("capacity", ctypes.c_uint32),
        ("remaining", ctypes.c_uint32),
        ("rate", ctypes.c_uint32),
        ("life", ctypes.c_uint32),
        ("alerts", ctypes.c_uint32 * 2),
    )


def discharge_w(powrprof: Any | None) -> float | None:
    """What the battery gives; `None` while it does not, or where that is unknown."""
    state = _BatteryState()
    if powrprof is None or powrprof.CallNtPowerInformation(
        ctypes.c_int(_BATTERY_STATE),
        None,
        ctypes.c_uint32(0),
        ctypes.byref(state),
        ctypes.c_uint32(ctypes.sizeof(state)),
    ):
        return None
    if state.ac or not state.present or not state.discharging or state.rate == _UNKNOWN_RATE:
        return None
    return abs(ctypes.c_int32(state.rate).value) / 1e3


def saving_modes(kernel32: Any | None, powrprof: Any | None) -> list[str]:
    """The settings of Windows that save power, as people know them."""
    found = []
    status = _PowerStatus()
    if kernel32 is not None and kernel32.GetSystemPowerStatus(ctypes.byref(status)) and status.saver == 1:
        found.append("the energy saver is on")
    if powrprof is not None:
        scheme = ctypes.c_void_p()
        if not powrprof.PowerGetActiveScheme(None, ctypes.byref(scheme)) and scheme.value:
            found.append(_SAVING.get(uuid.UUID(bytes_le=ctypes.string_at(scheme.value, 16)), ""))
            if kernel32 is not None:
                kernel32.LocalFree(scheme)
        overlay = ctypes.create_string_buffer(16)
        # Since Windows 10 1709.
        if hasattr(powrprof, "PowerGetEffectiveOverlayScheme") and not powrprof.PowerGetEffectiveOverlayScheme(overlay):
            found.append(_SAVING.get(uuid.UUID(bytes_le=overlay.raw), ""))
    return [mode for mode in found if mode]
