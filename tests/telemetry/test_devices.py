"""The boards that are in a machine, by what Linux lists of its buses."""

from __future__ import annotations

import pytest

from loadbench.telemetry.devices import Device, _linux_devices
from tests.telemetry.trees import tree


def pci(root, *devices: tuple[str, str, str]):
    """Devices with this class, vendor and number."""
    for number, (kind, vendor, device) in enumerate(devices):
        base = f"sys/bus/pci/devices/0000:{number:02x}:00.0"
        tree(root, {f"{base}/class": kind, f"{base}/vendor": vendor, f"{base}/device": device})
    return root


def test_boards_by_their_class_and_maker(tmp_path):
    """Also 3D controllers and processing accelerators; no audio, no bridge, no adapter that only shows a picture."""
    found = _linux_devices(
        pci(
            tmp_path,
            ("0x030200", "0x10de", "0x2330"),
            ("0x040300", "0x10de", "0x22ba"),
            ("0x038000", "0x1002", "0x74a1"),
            ("0x120000", "0x1002", "0x740f"),
            ("0x030000", "0x8086", "0xa780"),
            ("0x120000", "0x8086", "0x7d1d"),
            ("0x118000", "0x1022", "0x17f0"),
            ("0x060000", "0x1022", "0x1507"),
            ("0x030000", "0x1a03", "0x2000"),
            ("0x030000", "0x1234", "0x1111"),
        )
    )
    assert found == [
        Device("GPU", "NVIDIA", "NVIDIA 0x2330"),
        Device("GPU", "AMD", "AMD 0x74a1"),
        Device("GPU", "AMD", "AMD 0x740f"),
        Device("GPU", "Intel", "Intel 0xa780"),
        Device("NPU", "Intel", "Intel NPU"),
        Device("NPU", "AMD", "AMD NPU"),
    ]


def test_name_of_a_board_of_nvidia_is_in_its_drivers_folder(tmp_path):
    """Without its library; one that the driver does not have keeps its number."""
    pci(tmp_path, ("0x030000", "0x10de", "0x2684"), ("0x030000", "0x10de", "0x1b80"))
    tree(tmp_path, {"proc/driver/nvidia/gpus/0000:00:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:  1"})
    assert [device.name for device in _linux_devices(tmp_path)] == ["NVIDIA GeForce RTX 4090", "NVIDIA 0x1b80"]


@pytest.mark.parametrize(("driver", "maker"), [("intel_vpu", "Intel"), ("amdxdna", "AMD"), ("other", None)])
def test_neural_processor_by_its_driver(tmp_path, driver, maker):
    """Where its number is not known; one that the bus has is not counted twice."""
    real = tmp_path / f"sys/bus/pci/drivers/{driver}"
    real.mkdir(parents=True)
    (tmp_path / "sys/class/accel/accel0/device").mkdir(parents=True)
    (tmp_path / "sys/class/accel/accel0/device/driver").symlink_to(real)
    expected = [Device("NPU", maker, f"{maker} NPU")] if maker else []
    assert _linux_devices(tmp_path) == expected
    pci(tmp_path, ("0x120000", "0x8086", "0x7d1d"))
    assert len(_linux_devices(tmp_path)) == (2 if maker == "AMD" else 1)
