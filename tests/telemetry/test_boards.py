"""AMD and Intel boards, Intel's NPU, and what the server's processes use of them: by the kernel's files, exactly."""

from __future__ import annotations

import struct

import pytest

from loadbench.telemetry.drm_clients import DrmClients
from loadbench.telemetry.sysfs import Drm, Npu
from tests.telemetry.trees import amd, board, client, tree

S = 1_000_000_000

XE = {
    "device/hwmon/hwmon2/name": "xe",
    "device/hwmon/hwmon2/energy1_input": 12_500_000,
    "device/hwmon/hwmon2/energy2_input": 9_000_000,
    "device/hwmon/hwmon2/power1_max": 190_000_000,
    "device/hwmon/hwmon2/temp2_input": 58_000,
    "device/tile0/gt0/freq0/act_freq": 2850,
    "device/tile0/gt1/freq0/act_freq": 1200,
    **{f"device/tile0/gt0/freq0/throttle/reason_{name}": 0 for name in ("pl1", "pl2", "thermal", "prochot", "vr_tdc")},
    "device/tile0/gt0/freq0/throttle/status": 0,
}


def test_intel_board_of_the_xe_driver(tmp_path):
    """µJ are joules, MHz hertz; the board's counter goes before that of its chip; the first tile's clock counts."""
    found = Drm.detect(board(tmp_path, 1, XE, driver="xe"))
    assert found is not None
    assert found.about == {"boards": [{"name": "Intel 0xe20b", "driver": "xe", "power_limit_w": 190.0}]}
    assert found.read() == {
        "gpu0_energy_j_total": 12.5,
        "gpu0_temperature_c": 58.0,
        "gpu0_sm_hz": 2.85e9,
        "gpu0_throttled_power": 0.0,
        "gpu0_throttled_heat": 0.0,
    }


def test_chip_is_metered_where_the_board_is_not(tmp_path):
    """As on boards whose firmware has only the second counter."""
    found = Drm.detect(board(tmp_path, 1, XE | {"device/hwmon/hwmon2/energy1_input": ""}, driver="xe"))
    assert found is not None
    assert found.read()["gpu0_energy_j_total"] == 9.0


@pytest.mark.parametrize(
    ("reason", "power", "heat"),
    [("pl1", 1, 0), ("pl2", 1, 0), ("vr_tdc", 1, 0), ("psys_pl1", 1, 0), ("thermal", 0, 1), ("prochot", 0, 1),
     ("soc_thermal", 0, 1), ("vr_thermalert", 0, 1), ("ratl", 0, 1)],
)  # fmt: skip
@pytest.mark.parametrize("driver", ["xe", "i915"])
def test_reasons_of_intels_clocks(tmp_path, driver, reason, power, heat):
    """Limits of power and current are power; the rest is heat, in any part of the board."""
    folder = {"xe": "device/tile0/gt1/freq0/throttle/reason_", "i915": "gt/gt0/throttle_reason_"}[driver]
    known = {f"{folder}pl4": 0, f"{folder}thermal": 0, f"{folder}status": 1, f"{folder}{reason}": 1}
    found = Drm.detect(board(tmp_path, 0, XE | known, driver=driver))
    assert found is not None
    read = found.read()
    assert (read["gpu0_throttled_power"], read["gpu0_throttled_heat"]) == (power, heat)


def test_intel_board_of_the_i915_driver(tmp_path):
    """The whole board's sensor goes before those of its parts, whatever their order."""
    files = {
        "device/hwmon/hwmon1/name": "i915_gt0",
        "device/hwmon/hwmon1/energy1_input": 1_000_000,
        "device/hwmon/hwmon4/name": "i915",
        "device/hwmon/hwmon4/energy1_input": 7_000_000,
        "gt/gt0/rps_act_freq_mhz": 2100,
        "gt_act_freq_mhz": 2000,
    }
    found = Drm.detect(board(tmp_path, 0, files, driver="i915"))
    assert found is not None
    assert found.read() == {"gpu0_energy_j_total": 7.0, "gpu0_sm_hz": 2.1e9}


def test_amd_board_with_all_that_it_has(tmp_path):
    """Two clocks, memory of the machine in its use, its size and its limit."""
    files = {
        "gpu_busy_percent": 80,
        "mem_info_vram_total": 16_000_000_000,
        "mem_info_gtt_used": 250_000_000,
        "hwmon/hwmon3/freq2_input": 1_250_000_000,
        "hwmon/hwmon3/power1_cap": 300_000_000,
    }
    found = Drm.detect(amd(tmp_path, **files))
    assert found is not None
    assert found.about == {"boards": [{"name": "AMD 0x744c", "memory_bytes": 16e9, "power_limit_w": 300.0}]}
    read = found.read()
    assert (read["gpu0_use"], read["gpu0_shared_memory_bytes"], read["gpu0_memory_hz"]) == (0.8, 250e6, 1.25e9)


def metrics(version: tuple[int, int], reasons: int, *, size: int = 136) -> bytes:
    """AMD's table of metrics with these reasons for throttled clocks."""
    at = {(1, 3): 112}.get(version, 120)
    return struct.pack("<HBB", size, *version) + bytes(at - 4) + struct.pack("<Q", reasons) + bytes(size - at - 8)


@pytest.mark.parametrize(
    ("version", "reasons", "expected"),
    [
        ((1, 3), 0, (0, 0)),
        ((1, 3), 1 << 0, (1, 0)),  # PPT0
        ((1, 3), 1 << 16, (1, 0)),  # TDC_GFX
        ((1, 3), 1 << 36, (0, 1)),  # TEMP_HOTSPOT
        ((2, 2), 1 << 6 | 1 << 47, (1, 1)),  # SPPT, PROCHOT_GFX
        ((2, 4), 1 << 33, (0, 1)),  # TEMP_CORE
        ((1, 3), (1 << 64) - 1, None),  # the firmware fills nothing in
        ((1, 1), 1, None),  # it has only reasons that depend on the board
        ((3, 0), 1, None),
    ],
)
def test_reasons_of_amds_clocks(tmp_path, version, reasons, expected):
    """From the table of metrics where its version says so for every board."""
    amd(tmp_path)
    (tmp_path / "sys/class/drm/card0/device/gpu_metrics").write_bytes(metrics(version, reasons))
    found = Drm.detect(tmp_path)
    assert found is not None
    read = found.read()
    assert (read.get("gpu0_throttled_power"), read.get("gpu0_throttled_heat")) == (expected or (None, None))


@pytest.mark.parametrize("table", [b"", b"\x78", metrics((1, 3), 1)[:100]])
def test_table_that_is_cut_off_says_nothing(tmp_path, table):
    """A short read is no reason."""
    amd(tmp_path)
    (tmp_path / "sys/class/drm/card0/device/gpu_metrics").write_bytes(table)
    found = Drm.detect(tmp_path)
    assert found is not None
    assert "gpu0_throttled_power" not in found.read()


# What the server's processes use.


def fdinfo(number: int, pdev: str = "0000:03:00.0", **lines: str) -> str:
    """An account of one client."""
    return "\n".join(
        ["pos:\t0", f"drm-pdev:\t{pdev}", f"drm-client-id:\t{number}"]
        + [f"drm-{name.replace('_', '-')}:\t{value}" for name, value in lines.items()]
    )


def sampled(root, gpus, pids, steps):
    """The readings at 10, 11, … s; each step writes the files before its reading."""
    now = [9 * S]
    found = DrmClients(root, gpus, lambda: pids, lambda: now[0])
    readings = []
    for step in steps:
        step()
        now[0] += S
        readings.append(found.read())
    return readings


def test_cycles_of_the_xe_driver_are_shares_of_its_clock(tmp_path):
    """Two processes on one engine add up; the engine with the most work counts; one client open twice counts once."""

    def step(busy: int, total: int):
        def write():
            account = fdinfo(7, cycles_ccs=str(busy), total_cycles_ccs=str(total), cycles_bcs="5", total_cycles_bcs="9",
                             resident_vram0="2 GiB", total_vram0="3 GiB", resident_system="1024 KiB")  # fmt: skip
            client(tmp_path, 40, 5, account)
            client(tmp_path, 40, 6, account)
            client(tmp_path, 40, 7, "", opens="socket:[123]")
            other = fdinfo(8, cycles_ccs=str(busy // 2), total_cycles_ccs=str(total), resident_vram0="1 MiB")
            client(tmp_path, 41, 3, other, opens="/dev/dri/card1")

        return write

    first, second = sampled(tmp_path, {"0000:03:00.0": ("gpu1", "xe")}, {40, 41}, [step(0, 1000), step(400, 2000)])
    held = 2 * 2**30 + 2**20 + 2**20
    assert first == {"gpu1_process_memory_bytes": held}  # a use needs two readings
    assert second == {"gpu1_process_memory_bytes": held, "gpu1_process_use": pytest.approx(0.6)}


def test_nanoseconds_of_the_i915_driver_are_shares_of_the_time(tmp_path):
    """Divided by the number of engines of a kind."""
    accounts = [
        fdinfo(1, engine_render=f"{busy} ns", engine_video=f"{busy * 3} ns", engine_capacity_video="2")
        for busy in (0, S // 2)
    ]
    steps = [lambda account=account: client(tmp_path, 40, 5, account) for account in accounts]
    _, second = sampled(tmp_path, {"0000:03:00.0": ("gpu0", "i915")}, {40}, steps)
    assert second == {"gpu0_process_memory_bytes": 0.0, "gpu0_process_use": pytest.approx(0.75)}


def test_engines_of_amd_are_not_counted(tmp_path):
    """The work of ROCm is not in their account: memory only. What the processor can reach is not the board's."""
    accounts = [
        fdinfo(1, engine_gfx=f"{busy} ns", memory_vram="4096 KiB", memory_gtt="1024 KiB", memory_cpu="9000 KiB")
        for busy in (0, S)
    ]
    steps = [lambda account=account: client(tmp_path, 40, 5, account) for account in accounts]
    _, second = sampled(tmp_path, {"0000:03:00.0": ("gpu0", "amdgpu")}, {40}, steps)
    assert second == {"gpu0_process_memory_bytes": 5 * 2**20}


def test_server_that_does_not_use_the_board_has_a_use_of_0(tmp_path):
    """And a board whose driver has no account has none."""
    steps = [lambda: client(tmp_path, 40, 5, "", opens="/var/log/server.log")] * 2
    gpus = {"0000:03:00.0": ("gpu0", "xe"), "0000:04:00.0": ("gpu1", "nouveau")}
    assert sampled(tmp_path, gpus, {40}, steps)[1] == {"gpu0_process_memory_bytes": 0.0, "gpu0_process_use": 0.0}


def test_process_that_is_hidden_says_nothing(tmp_path):
    """Another user's: that its descriptors cannot be seen does not mean that it has none."""
    client(tmp_path, 40, 5, fdinfo(1, resident_vram0="1 GiB"))
    assert sampled(tmp_path, {"0000:03:00.0": ("gpu0", "xe")}, {40, 41}, [lambda: None]) == [{}]


def test_clients_belong_to_the_boards_by_their_address(tmp_path):
    """As the boards are numbered, on after those of NVIDIA."""
    board(tmp_path, 1, XE, driver="xe")
    found = Drm.detect(tmp_path, first=2)
    assert found is not None
    assert found.gpus == {"0000:01:00.0": ("gpu2", "xe")}


# NPU.


def test_intels_npu(tmp_path):
    """Busy µs are a share of the time between two readings; a counter that started again has none that once."""
    device = "sys/class/accel/accel0/device"
    tree(tmp_path, {f"{device}/npu_busy_time_us": 5_000_000, f"{device}/npu_memory_utilization": 3_000_000})
    tree(tmp_path, {f"{device}/npu_current_frequency_mhz": 1900})
    tree(tmp_path, {"sys/class/accel/accel1/device/vendor": "0x1022"})
    now = [10 * S]
    found = Npu.detect(tmp_path, lambda: now[0])
    assert found is not None
    assert found.about == {"npus": [{"name": "Intel NPU", "driver": ""}]}
    rest = {"npu0_memory_bytes": 3e6, "npu0_hz": 1.9e9}
    assert found.read() == rest
    now[0] += 2 * S
    tree(tmp_path, {f"{device}/npu_busy_time_us": 5_500_000})
    assert found.read() == rest | {"npu0_use": 0.25}
    now[0] += S
    tree(tmp_path, {f"{device}/npu_busy_time_us": 100})
    assert found.read() == rest
    now[0] += S
    tree(tmp_path, {f"{device}/npu_busy_time_us": 1_000_100})
    assert found.read() == rest | {"npu0_use": 1.0}


def test_machine_without_an_npu(tmp_path):
    """Nor one whose driver has no counter."""
    assert Npu.detect(tmp_path) is None
