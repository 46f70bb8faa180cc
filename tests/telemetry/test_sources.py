"""Every source by the files and libraries it reads, in exact figures; and what is not there, which makes no noise."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from loadbench.telemetry import sources as module
from loadbench.telemetry.host import Host
from loadbench.telemetry.nvidia import Nvidia
from loadbench.telemetry.sources import about_all, read_all, sources
from loadbench.telemetry.sysfs import Drm, Rapl
from tests.telemetry.trees import H100, NVML, UJ, NVMLError, amd, rapl, tree

# CPU packages.


def test_packages_and_memory_are_metered_and_their_parts_are_not(tmp_path):
    """Cores are in their package, the platform holds it, MMIO tells it twice: package and dram, each once, from 0."""
    found = Rapl.detect(rapl(tmp_path))
    assert found is not None
    assert found.about == {"packages": ["package0", "dram0"]}
    assert found.read() == {"package0_energy_j_total": 0.0, "dram0_energy_j_total": 0.0}
    rapl(tmp_path, package=17 * UJ, dram=2_500_000)
    assert found.read() == {"package0_energy_j_total": 7.0, "dram0_energy_j_total": 0.5}


def test_counter_that_wraps_at_its_range_goes_on(tmp_path):
    """From 5 J below its range to 3 J above 0 is 8 J, again and again."""
    top = 262_143_328_850
    found = Rapl.detect(rapl(tmp_path, package=top - 5 * UJ))
    assert found is not None
    rapl(tmp_path, package=3 * UJ)
    assert found.read()["package0_energy_j_total"] == pytest.approx(8.0)
    rapl(tmp_path, package=top - UJ)
    rapl(tmp_path, package=0)
    assert found.read()["package0_energy_j_total"] == pytest.approx(8.0 - 3.0 + top / UJ)


def test_two_packages_are_two_meters(tmp_path):
    """Each socket has its own number, in the order of the kernel's."""
    base = "sys/class/powercap/intel-rapl:2"
    tree(rapl(tmp_path), {f"{base}/name": "package-1", f"{base}/energy_uj": 0, f"{base}/max_energy_range_uj": 1})
    found = Rapl.detect(tmp_path)
    assert found is not None
    assert found.about == {"packages": ["package0", "dram0", "package1"]}


def test_counter_that_may_not_be_read_is_absent(tmp_path):
    """Most kernels show it to root only: an unreadable counter is no counter, and one alone is left out."""
    rapl(tmp_path)
    for domain in ("intel-rapl:0", "intel-rapl:0:1"):
        energy = tmp_path / f"sys/class/powercap/{domain}/energy_uj"
        energy.unlink()
        energy.mkdir()  # what cannot be read by anybody, root included
        expected = {"packages": ["dram0"]} if domain == "intel-rapl:0" else None
        found = Rapl.detect(tmp_path)
        assert (None if found is None else found.about) == expected


def test_counter_that_vanishes_leaves_its_reading_out(tmp_path):
    """As when a module is unloaded: the others go on."""
    found = Rapl.detect(rapl(tmp_path))
    assert found is not None
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert found.read() == {"dram0_energy_j_total": 0.0}


# Boards.


def test_amd_board_in_base_units(tmp_path):
    """Percent are shares, µW watts, m°C degrees; connectors are no boards; the name is made of the ids."""
    found = Drm.detect(amd(tmp_path))
    assert found is not None
    assert found.about == {"boards": [{"name": "AMD 0x744c"}]}
    assert found.read() == {
        "gpu0_use": 0.37,
        "gpu0_memory_bytes": 5e9,
        "gpu0_power_w": 180.0,
        "gpu0_temperature_c": 61.0,
        "gpu0_sm_hz": 2.4e9,
    }


def test_energy_counter_of_a_board_is_read_beside_its_power(tmp_path):
    """`energy1_input` is in µJ; of two power files the average is preferred."""
    found = Drm.detect(amd(tmp_path, **{"hwmon/hwmon3/energy1_input": 7_500_000, "hwmon/hwmon3/power1_input": 1}))
    assert found is not None
    assert found.read()["gpu0_energy_j_total"] == 7.5
    assert found.read()["gpu0_power_w"] == 180.0


def test_graphics_within_a_metered_package_are_not_metered_twice(tmp_path, monkeypatch):
    """An APU tells the whole chip's power: it is its power where RAPL cannot be read, and none beside RAPL's."""
    monkeypatch.setattr(module, "library", {}.get)
    amd(tmp_path, 0, **{"hwmon/hwmon3/in1_label": "vddnb"})
    amd(tmp_path, 1)
    alone = read_all(sources(port=None, host=None, pid=None, root=tmp_path))
    assert (alone["gpu0_power_w"], alone["gpu1_power_w"]) == (180.0, 180.0)
    beside = read_all(sources(port=None, host=None, pid=None, root=rapl(tmp_path)))
    assert beside.keys() & {"gpu0_power_w", "gpu1_power_w", "package0_energy_j_total", "gpu0_use"} == {
        "gpu1_power_w",
        "package0_energy_j_total",
        "gpu0_use",
    }


def test_boards_are_numbered_on_after_those_of_nvidia(tmp_path):
    """Ten boards keep the order of their numbers; a display adapter without readings is none."""
    for card in (0, 2, 10):
        amd(tmp_path, card)
    tree(tmp_path, {"sys/class/drm/card1/device/vendor": "0x1a03"})
    tree(tmp_path, {"sys/class/drm/card3/device/hwmon/hwmon9/temp1_input": 40_000})
    (tmp_path / "sys/class/drm/card10/device/gpu_busy_percent").write_text("99\n")
    found = Drm.detect(tmp_path, first=1)
    assert found is not None
    assert {name: value for name, value in found.read().items() if name.endswith("_use")} == {
        "gpu1_use": 0.37,
        "gpu2_use": 0.37,
        "gpu3_use": 0.99,
    }


def test_nvidia_board_in_base_units():
    """mJ are joules, mW watts, percent shares, MHz hertz; the power cap holds its clocks down, heat does not."""
    found = Nvidia.detect(NVML(H100))
    assert found is not None
    assert found.about == {
        "boards": [{"name": "NVIDIA H100 80GB HBM3", "driver": "580.65", "memory_bytes": 8e10, "power_limit_w": 700.0}]
    }
    assert found.read() == {
        "gpu0_energy_j_total": 5000.0,
        "gpu0_power_w": 350.5,
        "gpu0_use": 0.87,
        "gpu0_memory_bytes": 4e10,
        "gpu0_sm_hz": 1.98e9,
        "gpu0_memory_hz": 2.619e9,
        "gpu0_temperature_c": 54.0,
        "gpu0_throttled_power": 1.0,
        "gpu0_throttled_heat": 0.0,
    }


@pytest.mark.parametrize(
    ("reasons", "power", "heat"),
    [(0x00, 0, 0), (0x01, 0, 0), (0x02, 0, 0), (0x04, 1, 0), (0x80, 1, 0), (0x20, 0, 1), (0x48, 0, 1), (0xA4, 1, 1)],
)
def test_reasons_of_held_clocks(reasons, power, heat):
    """An idle board and one set to a clock are not held down; power cap and brake are power, thermal ones heat."""
    found = Nvidia.detect(NVML(H100 | {"reasons": reasons}))
    assert found is not None
    read = found.read()
    assert (read["gpu0_throttled_power"], read["gpu0_throttled_heat"]) == (power, heat)


def test_what_an_older_board_does_not_tell_is_left_out():
    """One without an energy counter and power beside one with both; names that are bytes are texts."""
    older = {"name": b"Tesla P4", "use": 3, "used": 1, "mhz": (500, 800), "celsius": 40, "reasons": 0}
    found = Nvidia.detect(NVML(older, H100))
    assert found is not None
    assert found.about["boards"][0]["name"] == "Tesla P4"
    read = found.read()
    assert {"gpu0_energy_j_total", "gpu0_power_w"}.isdisjoint(read)
    assert (read["gpu0_use"], read["gpu1_energy_j_total"]) == (0.03, 5000.0)


def test_share_of_the_server_on_a_board():
    """Memory of its processes, once if one also draws; use from the newest sample, kept until the next one is due."""
    now_us = time.time_ns() // 1000
    samples = [(now_us - 300_000, 7, 20), (now_us - 100_000, 7, 60), (now_us - 100_000, 8, 15), (now_us, 99, 25)]
    board = H100 | {"compute": {7: 3_000, 8: 500, 99: 9_000}, "graphics": {7: 3_000}, "samples": samples}
    nvml = NVML(board)
    found = Nvidia.detect(nvml, lambda: {7, 8})
    assert found is not None
    for _ in range(2):  # the second time there is no newer sample
        read = found.read()
        assert (read["gpu0_process_memory_bytes"], read["gpu0_process_use"]) == (3_500.0, 0.75)
    found._shares[0] = (now_us - 1_000_000, 0.75)
    nvml.boards[0]["samples"] = []
    assert found.read()["gpu0_process_use"] == 0.0


def test_share_that_is_not_known_is_left_out():
    """A driver that lists no processes, one that does not say how much they hold, a server that is not found."""
    assert not any("process" in name for name in Nvidia.detect(NVML(H100), lambda: {7}).read())
    hidden = H100 | {"compute": {7: None}, "graphics": {}}
    assert not any("process" in name for name in Nvidia.detect(NVML(hidden), lambda: {7}).read())
    listed = H100 | {"compute": {7: 1}, "graphics": {}}
    assert not any("process" in name for name in Nvidia.detect(NVML(listed)).read())


def test_memory_of_the_driver_itself_is_not_in_use():
    """Only where the driver is too old to tell them apart."""
    assert Nvidia.detect(NVML(H100)).read()["gpu0_memory_bytes"] == 4e10
    assert Nvidia.detect(NVML(H100 | {"old": True})).read()["gpu0_memory_bytes"] == 4.05e10


def test_board_that_fails_once_is_read_again():
    """A reading that fails is left out, that once."""
    nvml = NVML(H100)
    found = Nvidia.detect(nvml)
    assert found is not None
    power = nvml.boards[0].pop("power_mw")
    assert "gpu0_power_w" not in found.read()
    nvml.boards[0]["power_mw"] = power
    assert found.read()["gpu0_power_w"] == 350.5


def test_older_library_has_the_older_name():
    """Before it spoke of event reasons it spoke of throttle reasons."""
    nvml = NVML(H100)
    older = SimpleNamespace(
        **{name: getattr(nvml, name) for name in dir(nvml) if name.startswith(("nvml", "NVML_"))},
        NVMLError=NVMLError,
        nvmlDeviceGetCurrentClocksThrottleReasons=nvml.nvmlDeviceGetCurrentClocksEventReasons,
    )
    del older.nvmlDeviceGetCurrentClocksEventReasons
    found = Nvidia.detect(older)
    assert found is not None
    assert found.read()["gpu0_throttled_power"] == 1.0


# The machine.


def psutil_like(**over: object) -> SimpleNamespace:
    """`psutil` of a small machine."""
    told: dict[str, object] = {
        "cpu_percent": lambda: 42.0,
        "cpu_count": lambda: 8,
        "virtual_memory": lambda: SimpleNamespace(total=16_000, available=6_000),
        "cpu_freq": lambda: SimpleNamespace(current=2400.0),
        "sensors_temperatures": lambda: {
            "coretemp": [SimpleNamespace(current=55.0), SimpleNamespace(current=61.0)],
            "nvme": [SimpleNamespace(current=80.0)],
        },
        **over,
    }
    return SimpleNamespace(**{name: value for name, value in told.items() if value is not None})


def test_machine_in_base_units(tmp_path):
    """Shares, bytes, hertz; the temperature is the hottest of the processor's, not of the disk's."""
    host = Host.detect(psutil_like(), tmp_path)
    assert host is not None
    assert host.about == {"host": {"cores": 8, "memory_bytes": 16_000}}
    assert host.read() == {
        "host_cpu_share": 0.42,
        "host_memory_used_bytes": 10_000.0,
        "host_frequency_hz": 2.4e9,
        "host_temperature_c": 61.0,
    }


def test_throttling_is_counted_once_for_each_package(tmp_path):
    """Every core of a package tells the whole package's count: of two packages with two cores each there are two."""
    for cpu, (package, count) in enumerate([(0, 5), (0, 5), (1, 2), (1, 2)]):
        base = f"sys/devices/system/cpu/cpu{cpu}"
        tree(tmp_path, {f"{base}/topology/physical_package_id": package})
        tree(tmp_path, {f"{base}/thermal_throttle/package_throttle_count": count})
    host = Host.detect(psutil_like(), tmp_path)
    assert host is not None
    assert host.read()["host_throttled_total"] == 7


@pytest.mark.parametrize(
    "lacking",
    [
        {"cpu_freq": None, "sensors_temperatures": None},
        {"cpu_freq": lambda: None, "sensors_temperatures": dict},
        {"cpu_freq": lambda: SimpleNamespace(current=0.0), "sensors_temperatures": lambda: {"nvme": []}},
    ],
)
def test_machine_without_frequency_and_temperature(tmp_path, lacking):
    """As virtual machines are, and macOS: CPU and memory all the same."""
    host = Host.detect(psutil_like(**lacking), tmp_path)
    assert host is not None
    assert host.read().keys() == {"host_cpu_share", "host_memory_used_bytes"}


# All together.


def test_everything_that_there_is_in_one_reading(tmp_path, monkeypatch):
    """Boards of two makers in one list, numbered through; the server's process is null, for nobody looked for it."""
    libraries = {"psutil": psutil_like(), "pynvml": NVML(H100)}
    monkeypatch.setattr(module, "library", libraries.get)
    found = sources(port=None, host=None, pid=None, root=amd(rapl(tmp_path)))
    about = about_all(found)
    assert about["packages"] == ["package0", "dram0"]
    assert [board["name"] for board in about["boards"]] == ["NVIDIA H100 80GB HBM3", "AMD 0x744c"]
    assert about["process"] is None
    read = read_all(found)
    assert (read["gpu0_use"], read["gpu1_use"], read["package0_energy_j_total"]) == (0.87, 0.37, 0.0)


@pytest.mark.parametrize(
    "libraries", [{}, {"pynvml": NVML(starts=False)}, {"pynvml": NVML()}], ids=["no library", "no driver", "no board"]
)
def test_machine_with_nothing_to_read_has_no_source(tmp_path, monkeypatch, libraries):
    """Neither psutil nor NVML nor any file: no source, all null, no error."""
    monkeypatch.setattr(module, "library", libraries.get)
    found = sources(port=1, host=None, pid=None, root=tmp_path)
    assert found == []
    assert about_all(found) == {"process": None, "host": None, "boards": None, "npus": None, "packages": None}
    assert read_all(found) == {}


def test_library_that_is_not_installed_is_none(monkeypatch):
    """An import that fails is an answer."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert module.library("pynvml") is None
