"""What `doctor` says of the processor: cores and load, governor, battery."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from loadbench.targets.machine import processor


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
