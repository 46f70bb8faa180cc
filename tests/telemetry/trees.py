"""Files and libraries as machines have them, to be read in their place: `/sys` in a folder, NVML, psutil."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

UJ = 1_000_000


def tree(root: Path, files: dict[str, object]) -> Path:
    """These files, by their path below `root`, each with its value and a line feed."""
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="utf-8")
    return root


def rapl(root: Path, **energies_uj: int) -> Path:
    """An Intel server of one package with its parts, its memory, the platform's counter, and the same by MMIO."""
    told = {"package": 10 * UJ, "core": 4 * UJ, "dram": 2 * UJ, "psys": 50 * UJ, **energies_uj}
    domains = {
        "intel-rapl:0": ("package-0", told["package"]),
        "intel-rapl:0:0": ("core", told["core"]),
        "intel-rapl:0:1": ("dram", told["dram"]),
        "intel-rapl:1": ("psys", told["psys"]),
        "intel-rapl-mmio:0": ("package-0", told["package"]),
    }
    for folder, (name, energy_uj) in domains.items():
        base = f"sys/class/powercap/{folder}"
        tree(
            root, {f"{base}/name": name, f"{base}/energy_uj": energy_uj, f"{base}/max_energy_range_uj": 262_143_328_850}
        )
    return root


def amd(root: Path, card: int = 0, **over: object) -> Path:
    """An AMD board by its kernel driver, and the connectors that stand beside it."""
    device = f"sys/class/drm/card{card}/device"
    files: dict[str, object] = {
        f"{device}/vendor": "0x1002",
        f"{device}/device": "0x744c",
        f"{device}/gpu_busy_percent": 37,
        f"{device}/mem_info_vram_used": 5_000_000_000,
        f"{device}/hwmon/hwmon3/power1_average": 180_000_000,
        f"{device}/hwmon/hwmon3/temp1_input": 61_000,
        f"{device}/hwmon/hwmon3/freq1_input": 2_400_000_000,
        f"sys/class/drm/card{card}-DP-1/status": "connected",
    }
    return tree(root, files | {f"{device}/{name}": value for name, value in over.items()})


def board(root: Path, card: int, files: dict[str, object], *, driver: str, vendor: str = "0x8086") -> Path:
    """A board as the kernel has it: its PCI address is behind a link, and so is its driver."""
    pdev = f"0000:{card:02x}:00.0"
    real = root / f"sys/devices/pci0000:00/{pdev}"
    tree(real, {"vendor": vendor, "device": "0xe20b", "class": "0x030000"})
    (root / f"sys/class/drm/card{card}").mkdir(parents=True)
    (root / f"sys/class/drm/card{card}/device").symlink_to(real)
    (root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
    (real / "driver").symlink_to(root / f"sys/bus/pci/drivers/{driver}")
    tree(root / f"sys/class/drm/card{card}", files)
    return root


def client(root: Path, pid: int, descriptor: int, text: str, *, opens: str = "/dev/dri/renderD128") -> Path:
    """A device that a process has open, and the kernel's account of it."""
    folder = root / f"proc/{pid}"
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    link = folder / f"fd/{descriptor}"
    link.unlink(missing_ok=True)
    link.symlink_to(opens)
    return tree(folder, {f"fdinfo/{descriptor}": text})


class NVMLError(Exception):
    """As `pynvml` has it."""


class NotFoundError(NVMLError):
    """No sample since."""


class NVML:
    """`pynvml` of boards that each tell what they are given; what a board lacks it refuses, as the driver does."""

    NVMLError, NVMLError_NotFound = NVMLError, NotFoundError
    nvmlMemory_v2 = 0x02000028  # noqa: N815
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, *boards: dict[str, Any], driver: str = "580.65", starts: bool = True) -> None:
        self.boards = [dict(board) for board in boards]
        self._driver = driver
        self._starts = starts

    def nvmlInit(self):  # noqa: N802
        if not self._starts:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return self._driver

    def nvmlDeviceGetName(self, board):  # noqa: N802
        return self._of(board, "name")

    def nvmlDeviceGetTotalEnergyConsumption(self, board):  # noqa: N802
        return self._of(board, "energy_mj")

    def nvmlDeviceGetPowerUsage(self, board):  # noqa: N802
        return self._of(board, "power_mw")

    def nvmlDeviceGetUtilizationRates(self, board):  # noqa: N802
        return SimpleNamespace(gpu=self._of(board, "use"), memory=0)

    def nvmlDeviceGetMemoryInfo(self, board, version=None):  # noqa: N802
        used = self._of(board, "used")
        if version is None:  # with the driver's own
            used += self._of(board, "reserved")
        elif self.boards[board].get("old"):
            raise NVMLError("Function Not Found")
        return SimpleNamespace(used=used, total=80_000_000_000)

    def nvmlDeviceGetEnforcedPowerLimit(self, board):  # noqa: N802
        return self._of(board, "limit_mw")

    def nvmlDeviceGetComputeRunningProcesses(self, board):  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self._of(board, "compute").items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, board):  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self._of(board, "graphics").items()]

    def nvmlDeviceGetProcessUtilization(self, board, seen_us):  # noqa: N802
        samples = [SimpleNamespace(pid=pid, timeStamp=at, smUtil=use) for at, pid, use in self._of(board, "samples")]
        newer = [sample for sample in samples if sample.timeStamp > seen_us]
        if not newer:
            raise NotFoundError("Not Found")
        return newer

    def nvmlDeviceGetClockInfo(self, board, clock):  # noqa: N802
        return self._of(board, "mhz")[clock - 1]

    def nvmlDeviceGetTemperature(self, board, sensor):  # noqa: N802
        return self._of(board, "celsius")

    def nvmlDeviceGetCurrentClocksEventReasons(self, board):  # noqa: N802
        return self._of(board, "reasons")

    def _of(self, board: int, what: str) -> Any:
        if what not in self.boards[board]:
            raise NVMLError("Not Supported")
        return self.boards[board][what]


H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "energy_mj": 5_000_000,
    "power_mw": 350_500,
    "use": 87,
    "used": 40_000_000_000,
    "reserved": 500_000_000,
    "limit_mw": 700_000,
    "mhz": (1980, 2619),
    "celsius": 54,
    "reasons": 0x04,
}
