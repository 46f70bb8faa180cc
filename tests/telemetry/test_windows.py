"""The boards of Windows by performance counters, over a library that answers as `pdh.dll` does."""

from __future__ import annotations

import contextlib
import ctypes
from functools import partial
from types import SimpleNamespace

import pytest

from loadbench.telemetry.devices import Device, windows_devices
from loadbench.telemetry.windows import _COUNTERS, WindowsBoards, _Item, adapter_names, windows_library

MORE_DATA = 0x800007D2
GPU, NPU, SOFTWARE = "0x00000000_0x0000B75A", "0x00000000_0x0000BB15", "0x00000000_0x0000BAEA"


class FakePdh:
    """`pdh.dll` with these values by counter path and instance; a list may grow while it is asked for its size."""

    def __init__(self, values: dict[str, dict[str, float]], *, grows: int = 0) -> None:
        self.values = values
        self.grows = grows
        self.statuses: dict[str, int] = {}
        self.collected, self.closed = 0, False
        self._paths: list[str] = []
        names = ("OpenQueryW", "AddEnglishCounterW", "CollectQueryData", "GetFormattedCounterArrayW", "CloseQuery")
        for name in names:
            setattr(self, f"Pdh{name}", partial(getattr(self, f"_{name}")))

    def _OpenQueryW(self, _source, _data, query):  # noqa: N802
        query._obj.value = 1
        return 0

    def _AddEnglishCounterW(self, _query, path, _data, counter):  # noqa: N802
        if path.value not in self.values:
            return 0xC0000BB8  # PDH_CSTATUS_NO_OBJECT
        self._paths.append(path.value)
        counter._obj.value = len(self._paths)
        return 0

    def _CollectQueryData(self, _query):  # noqa: N802
        self.collected += 1
        return 0

    def _CloseQuery(self, _query):  # noqa: N802
        self.closed = True
        return 0

    def _GetFormattedCounterArrayW(self, counter, form, size, count, buffer):  # noqa: N802
        assert form.value == 0x8200
        instances = self.values[self._paths[counter.value - 1]]
        needed = ctypes.sizeof(_Item) * len(instances)
        if size._obj.value < needed + self.grows:
            self.grows -= min(self.grows, 1)
            size._obj.value = needed + self.grows
            return MORE_DATA
        self._names = [ctypes.create_unicode_buffer(name) for name in instances]
        for index, ((name, value), text) in enumerate(zip(instances.items(), self._names, strict=True)):
            item = _Item.from_buffer(buffer, index * ctypes.sizeof(_Item))
            item.name = ctypes.cast(text, ctypes.c_wchar_p)
            item.value.status, item.value.value = self.statuses.get(name, 0), value
        count._obj.value = len(instances)
        return 0


def engine(pid: int, luid: str, number: int, kind: str) -> str:
    """An instance as Windows names it."""
    return f"pid_{pid}_luid_{luid}_phys_0_eng_{number}_engtype_{kind}"


def counters(**more: dict[str, float]) -> dict[str, dict[str, float]]:
    """A laptop with a GPU that has a neural engine of its own, an NPU, and a software renderer."""
    values = {
        "engines": {
            engine(40, GPU, 0, "3D"): 20.0,
            engine(99, GPU, 0, "3D"): 5.0,
            engine(40, GPU, 3, "neural"): 61.0,
            engine(99, GPU, 3, "neural"): 9.0,
            engine(41, NPU, 0, "Compute"): 42.0,
            engine(99, SOFTWARE, 0, "3D"): 99.0,
        },
        "dedicated": {f"luid_{GPU}_phys_0": 3e9, f"luid_{NPU}_phys_0": 0.0, f"luid_{SOFTWARE}_phys_0": 1.0},
        "shared": {f"luid_{GPU}_phys_0": 1e9, f"luid_{NPU}_phys_0": 2e9, f"luid_{SOFTWARE}_phys_0": 1.0},
        "process_dedicated": {f"pid_40_luid_{GPU}_phys_0": 2e9, f"pid_99_luid_{GPU}_phys_0": 1e9},
        "process_shared": {f"pid_40_luid_{GPU}_phys_0": 5e8, f"pid_41_luid_{NPU}_phys_0": 2e9},
        **more,
    }
    return {_COUNTERS[name]: instances for name, instances in values.items()}


class FakeRegistry:
    """`winreg` over folders of values."""

    HKEY_LOCAL_MACHINE = "HKLM"

    def __init__(self, keys: dict[str, dict[str, dict[str, object]]]) -> None:
        self._keys = keys

    @contextlib.contextmanager
    def OpenKey(self, folder, name):  # noqa: N802
        if folder == "HKLM" and name in self._keys:
            yield self._keys[name]
        elif isinstance(folder, dict) and name in folder:
            yield folder[name]
        else:
            raise FileNotFoundError(name)

    def QueryInfoKey(self, folder):  # noqa: N802
        return len(folder), 0, 0

    def EnumKey(self, folder, index):  # noqa: N802
        return list(folder)[index]

    def QueryValueEx(self, folder, name):  # noqa: N802
        if name not in folder:
            raise FileNotFoundError(name)
        return folder[name], 1


def registry():
    """The display adapters; the NPU is not among them."""
    return FakeRegistry(
        {
            r"SOFTWARE\Microsoft\DirectX": {
                "{1}": {"AdapterLuid": 0xB75A, "Description": "Intel(R) Arc(TM) 140V GPU"},
                "{2}": {"AdapterLuid": 0xBAEA, "Description": "Microsoft Basic Render Driver"},
                "{3}": {"Description": "an adapter without a number"},
            }
        }
    )


def test_boards_of_windows_in_base_units():
    """The engine with the most work counts, over all processes; the neural engine of a GPU is not the NPU."""
    found = WindowsBoards.detect(FakePdh(counters()), registry(), lambda: {40, 41})
    assert found is not None
    assert found.about == {"boards": [{"name": "Intel(R) Arc(TM) 140V GPU"}], "npus": [{"name": "NPU"}]}
    assert found.read() == pytest.approx(
        {
            "gpu0_use": 0.70,
            "gpu0_process_use": 0.61,
            "gpu0_memory_bytes": 3e9,
            "gpu0_shared_memory_bytes": 1e9,
            "gpu0_process_memory_bytes": 2.5e9,
            "npu0_use": 0.42,
            "npu0_process_use": 0.42,
            "npu0_memory_bytes": 0.0,
            "npu0_shared_memory_bytes": 2e9,
            "npu0_process_memory_bytes": 2e9,
        }
    )


def test_list_that_grows_meanwhile_is_asked_for_again():
    """Processes start all the time; the size is asked for as often as it takes, within reason."""
    pdh = FakePdh(counters())
    found = WindowsBoards.detect(pdh, registry())
    assert found is not None
    pdh.grows = 1
    assert found.read()["gpu0_use"] == pytest.approx(0.70)


def test_values_that_are_not_valid_are_left_out():
    """As of a process that has ended."""
    pdh = FakePdh(counters())
    found = WindowsBoards.detect(pdh, registry())
    assert found is not None
    pdh.statuses = {engine(40, GPU, 3, "neural"): 0x800007D5, engine(99, GPU, 3, "neural"): 1}
    assert found.read()["gpu0_use"] == pytest.approx(0.25)


def test_boards_without_a_process_are_there_and_idle():
    """The GPU by its name, the NPU since it has none; neither has an engine before a process uses it."""
    found = WindowsBoards.detect(FakePdh(counters(engines={})), registry())
    assert found is not None
    assert (list(found.about), found.read()["gpu0_use"], found.read()["npu0_use"]) == (["boards", "npus"], 0.0, 0.0)


def test_boards_of_nvidia_are_left_to_its_own_library():
    """They are numbered first, and not twice."""
    names = registry()
    names._keys[r"SOFTWARE\Microsoft\DirectX"]["{4}"] = {"AdapterLuid": 0xC0DE, "Description": "NVIDIA RTX 4090"}
    nvidia = "0x00000000_0x0000C0DE"
    values = counters()
    values[_COUNTERS["engines"]] |= {engine(40, nvidia, 0, "3D"): 80.0}
    found = WindowsBoards.detect(FakePdh(values), names, first=1)
    assert found is not None
    assert found.about["boards"] == [{"name": "Intel(R) Arc(TM) 140V GPU"}]
    assert found.read()["gpu1_use"] == pytest.approx(0.70)
    alone = WindowsBoards.detect(FakePdh(values), names)
    assert alone is not None
    assert [board["name"] for board in alone.about["boards"]] == ["Intel(R) Arc(TM) 140V GPU", "NVIDIA RTX 4090"]


def test_windows_without_such_counters():
    """An older one has no such object: there is nothing to read, and the query is closed."""
    pdh = FakePdh({})
    assert WindowsBoards.detect(pdh, registry()) is None
    assert pdh.closed
    assert WindowsBoards.detect(None, None) is None
    assert WindowsBoards.detect(FakePdh(counters(engines={}, dedicated={})), registry()) is None


def test_registry_that_cannot_be_read_has_no_names():
    """Then a board is a GPU or an NPU by its engines."""
    assert adapter_names(FakeRegistry({})) == {}
    found = WindowsBoards.detect(FakePdh(counters()), FakeRegistry({}))
    assert found is not None
    assert found.about["npus"] == [{"name": "NPU"}]


def test_other_systems_have_no_such_library(monkeypatch):
    """And Windows may lack one."""
    monkeypatch.delattr(ctypes, "WinDLL", raising=False)
    assert windows_library("pdh") is None

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "WinDLL", missing, raising=False)
    assert windows_library("pdh") is None
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: SimpleNamespace(name=name), raising=False)
    assert windows_library("pdh").name == "pdh"


def test_boards_that_have_a_driver_are_found_without_counters():
    """By their setup class; what only shows a picture is none, and properties are not devices."""
    folder = r"SYSTEM\CurrentControlSet\Control\Class"
    keys = {
        rf"{folder}\{{4d36e968-e325-11ce-bfc1-08002be10318}}": {
            "0000": {"DriverDesc": "NVIDIA GeForce RTX 5070 Laptop GPU"},
            "0001": {"DriverDesc": "AMD Radeon(TM) 890M"},
            "0002": {"DriverDesc": "Microsoft Remote Display Adapter"},
            "0003": {},
            "Properties": {"DriverDesc": "none"},
        },
        rf"{folder}\{{f01a9d53-3ff6-48d2-9f97-c8a7004be10c}}": {"0000": {"DriverDesc": "Intel(R) AI Boost"}},
    }
    assert windows_devices(FakeRegistry(keys)) == [
        Device("GPU", "NVIDIA", "NVIDIA GeForce RTX 5070 Laptop GPU"),
        Device("GPU", "AMD", "AMD Radeon(TM) 890M"),
        Device("NPU", "Intel", "Intel(R) AI Boost"),
    ]
    assert windows_devices(None) == []
