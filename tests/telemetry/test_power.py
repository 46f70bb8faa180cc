"""What feeds the machine, what it gives, and what saves power: by Linux' files, and by fakes of others' libraries."""

from __future__ import annotations

import ctypes
import plistlib
import uuid
from types import SimpleNamespace

import pytest

from loadbench.telemetry import macos, windows
from loadbench.telemetry.power import Battery, power_state
from tests.telemetry.trees import tree

SUPPLIES = "sys/class/power_supply"
LAPTOP = {
    f"{SUPPLIES}/AC/type": "Mains",
    f"{SUPPLIES}/AC/online": 0,
    f"{SUPPLIES}/BAT0/type": "Battery",
    f"{SUPPLIES}/BAT0/status": "Discharging",
    f"{SUPPLIES}/BAT0/capacity": 62,
    f"{SUPPLIES}/BAT0/power_now": 17_250_000,
    # A mouse has a battery, too.
    f"{SUPPLIES}/hidpp_battery_0/type": "Battery",
    f"{SUPPLIES}/hidpp_battery_0/scope": "Device",
    f"{SUPPLIES}/hidpp_battery_0/status": "Discharging",
}
CPU = "sys/devices/system/cpu/cpu{}/cpufreq/{}"


def laptop(root, **over: object):
    """A laptop on its battery; `BAT0_status` and so on say what else it is, and None that it has no such file."""
    files = LAPTOP | {f"{SUPPLIES}/{name.replace('_', '/', 1)}": value for name, value in over.items()}
    return tree(root, {name: value for name, value in files.items() if value is not None})


def test_discharge_is_the_power_of_the_machine(tmp_path):
    """µW are watts; the battery of a mouse feeds nothing else."""
    found = Battery.detect(laptop(tmp_path))
    assert found is not None
    assert found.about == {"batteries": ["battery0"]}
    assert found.read() == {"battery0_power_w": 17.25}
    state = power_state(tmp_path, None)
    assert (state.on_battery, state.charge) == (True, 0.62)


def test_power_is_current_times_voltage(tmp_path):
    """Where the battery has no power; some give the current a sign."""
    laptop(tmp_path, BAT0_power_now=None, BAT0_current_now=-1_500_000, BAT0_voltage_now=12_000_000)
    found = Battery.detect(tmp_path)
    assert found is not None
    assert found.read() == {"battery0_power_w": pytest.approx(18.0)}


def test_of_two_batteries_both_may_give(tmp_path):
    """One after the other, as most do, or together."""
    laptop(tmp_path, BAT1_type="Battery", BAT1_status="Not charging", BAT1_power_now=0, BAT1_capacity=30)
    found = Battery.detect(tmp_path)
    assert found is not None
    assert found.read() == {"battery0_power_w": 17.25}
    tree(tmp_path, {f"{SUPPLIES}/BAT1/status": "Discharging", f"{SUPPLIES}/BAT1/power_now": 2_750_000})
    assert found.read() == {"battery0_power_w": 20.0}
    assert power_state(tmp_path, None).charge == 0.30


@pytest.mark.parametrize(
    "over",
    [
        {"AC_online": 1},  # a weak charger: the battery gives a part of what the machine draws
        {"AC_online": 1, "BAT0_status": "Charging"},
        {"BAT0_type": "UPS"},
        {"BAT0_power_now": None},
        {"BAT0_power_now": 0},
    ],
)
def test_battery_that_does_not_feed_the_machine_alone_is_no_meter(tmp_path, over):
    """Its figure would not be that of the machine."""
    assert Battery.detect(laptop(tmp_path, **over)) is None


def test_battery_that_is_plugged_in_meanwhile_leaves_its_reading_out(tmp_path):
    """From then on."""
    found = Battery.detect(laptop(tmp_path))
    assert found is not None
    tree(tmp_path, {f"{SUPPLIES}/AC/online": 1, f"{SUPPLIES}/BAT0/status": "Charging"})
    assert found.read() == {}
    assert power_state(tmp_path, None).on_battery is False


@pytest.mark.parametrize(
    ("over", "on_battery"),
    [
        ({"AC_type": None, "AC_online": None}, True),  # by its own status only
        ({"AC_type": None, "AC_online": None, "BAT0_status": "Full"}, False),
        ({"AC_type": None, "AC_online": None, "BAT0_status": "Unknown"}, None),
        ({"AC_type": "USB", "AC_online": 1}, False),
    ],
)
def test_whether_it_is_plugged_in(tmp_path, over, on_battery):
    """By its supplies, else by the battery."""
    assert power_state(laptop(tmp_path, **over), None).on_battery is on_battery


def test_machine_without_a_battery_is_neither(tmp_path):
    """A server."""
    tree(tmp_path, {f"{SUPPLIES}/AC/type": "Mains", f"{SUPPLIES}/AC/online": 1})
    assert power_state(tmp_path, None) == (None, None, ())


@pytest.mark.parametrize(
    ("files", "saving"),
    [
        ({"sys/firmware/acpi/platform_profile": "low-power"}, ("platform profile low-power",)),
        ({"sys/class/platform-profile/platform-profile-0/profile": "quiet"}, ("platform profile quiet",)),
        ({"sys/firmware/acpi/platform_profile": "balanced"}, ()),
        (
            {CPU.format(cpu, "energy_performance_preference"): name for cpu, name in enumerate(("balance_power",) * 2)},
            ("energy performance preference balance_power",),
        ),
        ({CPU.format(0, "energy_performance_preference"): "balance_performance"}, ()),
        # The governor of Intel's own driver is called powersave, and is not slow.
        ({CPU.format(0, "scaling_governor"): "powersave", CPU.format(0, "scaling_driver"): "intel_pstate"}, ()),
        (
            {CPU.format(0, "scaling_governor"): "powersave", CPU.format(0, "scaling_driver"): "acpi-cpufreq"},
            ("frequency governor powersave",),
        ),
        (
            {
                CPU.format(0, "scaling_governor"): "powersave",
                CPU.format(0, "scaling_driver"): "intel_pstate",
                CPU.format(0, "scaling_max_freq"): 1_200_000,
                CPU.format(0, "cpuinfo_max_freq"): 4_800_000,
                CPU.format(1, "scaling_max_freq"): 1_200_000,
                CPU.format(1, "cpuinfo_max_freq"): 3_600_000,
            },
            ("clock limited to 1.2 of 4.8 GHz",),
        ),
        ({CPU.format(0, "scaling_max_freq"): 4_600_000, CPU.format(0, "cpuinfo_max_freq"): 4_800_000}, ()),
    ],
)
def test_what_saves_power(tmp_path, files, saving):
    """In the words of the system."""
    assert power_state(tree(tmp_path, files), None).saving == saving


# Windows.


def call(write):
    """A function of a library that fills in the structure that its last argument refers to."""
    return lambda *arguments: write(arguments)


def powrprof(**state: int):
    """A battery with this state."""

    def inform(level, _input, _size, output, size):
        assert (level.value, size.value) == (5, 32)
        for name, value in state.items():
            setattr(output._obj, name, value)
        return 0

    return SimpleNamespace(CallNtPowerInformation=inform)


@pytest.mark.parametrize(
    ("state", "watts"),
    [
        ({"present": 1, "discharging": 1, "rate": (1 << 32) - 14_600}, 14.6),
        ({"present": 1, "discharging": 1, "rate": 14_600}, 14.6),  # some drivers give no sign
        ({"present": 1, "discharging": 1, "rate": 1 << 31}, None),  # unknown
        ({"present": 1, "ac": 1, "charging": 1, "rate": 30_000}, None),
        ({}, None),
    ],
)
def test_battery_of_windows(state, watts):
    """mW, negative while it discharges."""
    assert windows.discharge_w(powrprof(**state)) == watts


def test_battery_of_windows_that_does_not_answer():
    """An error, or no such library."""
    assert windows.discharge_w(SimpleNamespace(CallNtPowerInformation=lambda *_: 0xC0000002)) is None
    assert windows.discharge_w(None) is None


def test_modes_of_windows():
    """The energy saver, the power plan and the power mode, each by its own call."""
    plan = ctypes.create_string_buffer(uuid.UUID("a1841308-3541-4fab-bc81-f71556f20b4a").bytes_le, 16)
    mode = uuid.UUID("961cc777-2547-4f9d-8174-7d86181b8a7a").bytes_le
    freed = []

    def status(output):
        output._obj.saver = 1
        return 1

    def active(_root, scheme):
        scheme._obj.value = ctypes.addressof(plan)
        return 0

    def overlay(buffer):
        buffer.raw = mode
        return 0

    kernel32 = SimpleNamespace(GetSystemPowerStatus=status, LocalFree=lambda scheme: freed.append(scheme.value))
    library = SimpleNamespace(PowerGetActiveScheme=active, PowerGetEffectiveOverlayScheme=overlay)
    assert windows.saving_modes(kernel32, library) == [
        "the energy saver is on",
        "the power plan Power saver",
        "the power mode Best power efficiency",
    ]
    assert freed == [ctypes.addressof(plan)]
    plan.raw, mode = uuid.UUID("381b4222-f694-41f0-9685-ff5bb260df2e").bytes_le, bytes(16)
    kernel32.GetSystemPowerStatus = lambda _: 0
    assert windows.saving_modes(kernel32, library) == []
    del library.PowerGetEffectiveOverlayScheme  # before Windows 10 1709
    assert windows.saving_modes(kernel32, library) == []
    assert windows.saving_modes(None, None) == []


# macOS.


@pytest.mark.parametrize(
    ("battery", "watts"),
    [
        ({"Voltage": 12_000, "InstantAmperage": (1 << 64) - 1_500, "ExternalConnected": False}, 18.0),
        ({"Voltage": 12_000, "Amperage": -1_000, "ExternalConnected": False}, 12.0),
        ({"Voltage": 12_000, "InstantAmperage": -1_500, "ExternalConnected": True}, None),
        ({"Voltage": 12_000, "InstantAmperage": 1_500, "ExternalConnected": False}, None),
        ({"Voltage": "12"}, None),
    ],
)
def test_battery_of_macos(battery, watts):
    """mV times mA, which the registry has without a sign."""
    # A plist has no integers above 2^64, and plistlib writes those below 2^63 with a sign.
    written = plistlib.dumps([battery], fmt=plistlib.FMT_XML)
    assert macos.discharge_w(lambda command: written if "AppleSmartBattery" in command else None) == watts


@pytest.mark.parametrize("output", [None, b"", b"not a plist", plistlib.dumps({"a": 1}), plistlib.dumps([1])])
def test_what_macos_does_not_say_is_not_known(output):
    """A desktop, a command that fails, another output."""
    assert macos.discharge_w(lambda _: output) is None
    assert macos.AppleBoards.detect(lambda _: output) is None


def test_low_power_mode_of_macos():
    """As `pmset -g` lists it."""
    assert macos.saving_modes(lambda _: b" standby 1\n lowpowermode         1\n") == ["Low Power Mode is on"]
    assert macos.saving_modes(lambda _: b" lowpowermode         0\n") == []
    assert macos.saving_modes(lambda _: None) == []


def test_boards_of_macos():
    """Percent are shares; the name may be bytes that end with 0."""
    entries = [
        {"model": b"Apple M4\0", "PerformanceStatistics": {"Device Utilization %": 37, "In use system memory": 5}},
        {"IOClass": "something else"},
    ]
    found = macos.AppleBoards.detect(lambda _: plistlib.dumps(entries))
    assert found is not None
    assert found.about == {"boards": [{"name": "Apple M4"}]}
    assert found.read() == {"gpu0_use": 0.37, "gpu0_memory_bytes": 5.0}


def test_command_that_is_not_there_is_none(monkeypatch, tmp_path):
    """As on other systems."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert macos.run(("ioreg-of-nobody", "-a")) is None
