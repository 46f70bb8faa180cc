"""What `doctor` says of the processor: cores and load, governor, battery."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from loadbench.targets import machine as module
from loadbench.targets.machine import processor
from loadbench.telemetry.devices import Device


def fake(*, use=1.0, plugged=None):
    """A machine of four cores."""
    battery = None if plugged is None else SimpleNamespace(percent=40.0, power_plugged=plugged)
    return SimpleNamespace(
        cpu_percent=lambda interval: use,
        cpu_count=lambda: 4,
        getloadavg=lambda: (1.5, 1.0, 1.0),
        sensors_battery=lambda: battery,
    )


def governed(tmp_path, governor, driver="acpi-cpufreq"):
    """The folders of one core."""
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text(governor + "\n")
    (folder / "scaling_driver").write_text(driver + "\n")
    return tmp_path


@pytest.mark.parametrize(("use", "status"), [(3.0, "ok"), (25.0, "ok"), (26.0, "warn"), (100.0, "warn")])
def test_cores_and_load_are_shown(use, status, tmp_path):
    """With advice where others use them."""
    cpu = processor(fake(use=use), root=tmp_path)[0]
    assert (cpu.name, cpu.status) == ("cpu", status)
    assert cpu.message == f"4 cores, {use:.0f} % in use, load average 1.5"
    assert bool(cpu.advice) is (status == "warn")


@pytest.mark.parametrize(
    ("governor", "driver", "status"),
    [
        ("performance", "acpi-cpufreq", "ok"),
        ("schedutil", "acpi-cpufreq", "ok"),
        ("powersave", "acpi-cpufreq", "warn"),
        ("powersave", "intel_pstate", "ok"),
        ("powersave", "amd-pstate-epp", "ok"),
    ],
)
def test_governor_that_keeps_the_clock_low_is_a_warning(governor, driver, status, tmp_path):
    """Where the driver leaves it to the governor."""
    check = processor(fake(), root=governed(tmp_path, governor, driver))[1]
    assert (check.name, check.status, check.message) == ("governor", status, governor)


def test_system_without_governor_or_battery_is_skipped(tmp_path):
    """As a virtual machine is."""
    assert [check.status for check in processor(fake(), root=tmp_path)[-1:]] == ["skip"]


@pytest.mark.parametrize(("plugged", "status"), [(True, "ok"), (False, "warn"), (None, "skip")])
def test_battery_is_a_warning_unless_plugged_in(plugged, status, tmp_path):
    """A battery that is being charged is none."""
    assert processor(fake(plugged=plugged), root=tmp_path)[2].status == status


def gpu_check(monkeypatch, read, present, nvml=True):
    """What `doctor` says of the boards: those that are read, and those that are in the machine."""
    about = {"boards": [{"name": name} for kind, name in read if kind == "GPU"] or None}
    about |= {"npus": [{"name": name} for kind, name in read if kind == "NPU"] or None}
    source = SimpleNamespace(about=about, read=dict)
    monkeypatch.setattr(module, "sources", lambda **_: [source])
    monkeypatch.setattr(module, "present_devices", lambda _: [Device(*one) for one in present])
    monkeypatch.setattr(module, "library", lambda name: nvml if name == "pynvml" else None)
    check = module.Machine("http://127.0.0.1:9", local=True).gpu()
    return check.status, check.message


@pytest.mark.parametrize(
    ("read", "present", "expected"),
    [
        ([], [], ("skip", "none found")),
        (
            [("GPU", "NVIDIA RTX 4090")],
            [("GPU", "Intel", "Intel 0xa780"), ("GPU", "NVIDIA", "NVIDIA 0x2684")],
            ("ok", "NVIDIA RTX 4090, Intel 0xa780: no counter for this device"),
        ),
        (
            [("GPU", "Intel Arc")],
            [("GPU", "Intel", "Intel Arc"), ("NPU", "Intel", "Intel AI Boost")],
            ("ok", "Intel Arc, Intel AI Boost: no counter for this device"),
        ),
        ([("GPU", "Intel Arc"), ("NPU", "NPU")], [("GPU", "Intel", "Intel Arc"), ("NPU", "Intel", "AI Boost")],
         ("ok", "Intel Arc, NPU (NPU)")),
        ([], [("NPU", "AMD", "AMD NPU")], ("skip", "AMD NPU: no counter for this device")),
    ],
)  # fmt: skip
def test_board_without_a_counter_is_named(monkeypatch, read, present, expected):
    """Its use cannot be measured, and that is said; one that is read is not listed twice."""
    assert gpu_check(monkeypatch, read, present) == expected


def test_boards_have_the_names_of_their_libraries(monkeypatch):
    """Each of two of one maker its own; a container may hide the bus, and what is read is there all the same."""
    read = [("GPU", "NVIDIA L4"), ("GPU", "NVIDIA L40S"), ("GPU", "Radeon Pro")]
    present = [("GPU", "NVIDIA", "NVIDIA 0x27b8"), ("NPU", "AMD", "AMD NPU"), ("GPU", "NVIDIA", "NVIDIA 0x26b9")]
    gpu_check(monkeypatch, read, present)
    assert module.Machine("http://127.0.0.1:9", local=True).devices() == [
        Device("GPU", "NVIDIA", "NVIDIA L4"),
        Device("NPU", "AMD", "AMD NPU"),
        Device("GPU", "NVIDIA", "NVIDIA L40S"),
        Device("GPU", "AMD", "Radeon Pro"),
    ]
    assert module.Machine("http://192.0.2.1", local=False).devices() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_libraries_of_a_process_are_those_that_it_has_loaded():
    """By name, each once; this one has loaded Python's."""
    libraries = module.Machine("http://127.0.0.1:9", local=True, pid=os.getpid()).libraries()
    assert libraries == sorted(set(libraries))
    assert any(name.startswith("libc") for name in libraries)
    assert not any("/" in name for name in libraries)


def test_board_of_nvidia_without_its_library_names_the_extra(monkeypatch):
    """With it, there would be readings."""
    check = gpu_check(monkeypatch, [], [("GPU", "NVIDIA", "NVIDIA RTX 4090")], nvml=False)
    assert check == ("skip", "NVIDIA RTX 4090: no counter for this device: pip install 'loadbench[gpu]'")


def test_power_saving_is_a_warning(tmp_path):
    """The governor has a line of its own; nothing is said where nothing saves power."""
    root = governed(tmp_path, "powersave")
    assert [check.name for check in processor(fake(), root=root)] == ["cpu", "governor", "power"]
    profile = root / "sys/firmware/acpi/platform_profile"
    profile.parent.mkdir(parents=True)
    profile.write_text("low-power\n")
    saving = processor(fake(), root=root)[-1]
    assert (saving.name, saving.status, saving.message) == ("power saving", "warn", "platform profile low-power")
