"""What the server's processes use of AMD and Intel boards, by the kernel's account of each open device (Linux).

    /proc/<pid>/fdinfo/<fd>
        drm-pdev: 0000:03:00.0        drm-client-id: 42        drm-driver: xe
        drm-engine-render: 5000 ns                             i915
        drm-cycles-ccs: 100, drm-total-cycles-ccs: 1000        xe
        drm-resident-vram0: 4096 KiB  drm-engine-capacity-video: 2

A process may have one device open several times: its client counts once. The use of a board is that of its engine with
the most work, as other tools show it, since engines work side by side. It is left out for AMD: work of ROCm is not in
this account. Memory is that on the board and that of the machine in its use; `cpu` is not in its use.

Source, in the kernel's `Documentation`: `gpu/drm-usage-stats.rst`. The system shows the processes of the same user, and
all of them to root.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from loadbench.telemetry.sysfs import entries, linked, word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set
    from pathlib import Path

_LINE = re.compile(r"drm-([\w-]+):\s*(\S+)(?: (\w+))?")
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Drivers whose account of engines has all work.
_WITH_ENGINES = {"i915", "xe"}
_MEMORY = ("resident-", "memory-", "total-")
_GROUPS = ("engine-capacity-", "engine-", "total-cycles-", "cycles-", *_MEMORY)


class _Client(NamedTuple):
    """One client of one board: the engines' busy time, their clock if that is not the run's, and bytes."""

    pdev: str
    number: str
    busy: Mapping[str, float]
    clock: Mapping[str, float]
    capacity: Mapping[str, float]
    memory_bytes: float


class DrmClients:
    """The server's share of the boards: `gpus` has the name and the driver of each, by its PCI address."""

    def __init__(
        self,
        root: Path,
        gpus: Mapping[str, tuple[str, str]],
        pids: Callable[[], Set[int]],
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.about: Mapping[str, object] = {}
        self._proc = root / "proc"
        self._gpus = {pdev: gpu for pdev, gpu in gpus.items() if gpu[1] in {"amdgpu", *_WITH_ENGINES}}
        self._pids = pids
        self._now_ns = now_ns
        self._last: tuple[int, Mapping[tuple[str, str], _Client]] | None = None

    def read(self) -> Mapping[str, float]:
        """The memory that the processes hold on each board, and their use of it since the last reading; nothing where
        the system hides one of the processes."""
        at_ns = self._now_ns()
        clients: dict[tuple[str, str], _Client] = {}
        for pid in self._pids():
            descriptors = entries(self._proc / str(pid) / "fd")
            if not descriptors:
                return {}
            clients |= {(client.pdev, client.number): client for client in self._clients(pid, descriptors)}
        before_ns, before = self._last or (at_ns, {})
        values: dict[str, float] = {}
        for pdev, (gpu, driver) in self._gpus.items():
            own = {key: client for key, client in clients.items() if client.pdev == pdev}
            values[f"{gpu}_process_memory_bytes"] = sum(client.memory_bytes for client in own.values())
            used: dict[str, float] = defaultdict(float)
            for key, client in own.items():
                if (last := before.get(key)) is None:
                    continue
                for engine, busy in client.busy.items():
                    since = client.clock.get(engine, at_ns) - last.clock.get(engine, before_ns)
                    done = max(0.0, busy - last.busy.get(engine, 0.0))
                    used[engine] += done / since / client.capacity.get(engine, 1.0) if since > 0 else 0.0
            if self._last is not None and driver in _WITH_ENGINES:
                values[f"{gpu}_process_use"] = min(1.0, max(used.values(), default=0.0))
        self._last = at_ns, clients
        return values

    def _clients(self, pid: int, descriptors: Iterable[Path]) -> Iterable[_Client]:
        """The clients that a process has, some of them several times."""
        for descriptor in descriptors:
            # Most descriptors are sockets and files, which a look at the link tells at once.
            if not linked(descriptor).startswith(("renderD", "card")):
                continue
            fields: dict[str, str] = {}
            groups: dict[str, dict[str, float]] = defaultdict(dict)
            for line in word(self._proc / str(pid) / "fdinfo" / descriptor.name).splitlines():
                match = _LINE.match(line)
                if match is None:
                    continue
                fields[match[1]] = match[2]
                group = next((group for group in _GROUPS if match[1].startswith(group)), None)
                if group is not None and match[2].isdigit():
                    groups[group][match[1].removeprefix(group)] = float(match[2]) * _UNITS.get(match[3], 1)
            memory = next((groups[kind] for kind in _MEMORY if groups[kind]), {})
            if "client-id" in fields:
                yield _Client(
                    pdev=fields.get("pdev", ""),
                    number=fields["client-id"],
                    busy=groups["engine-"] | groups["cycles-"],
                    clock=groups["total-cycles-"],
                    capacity=groups["engine-capacity-"],
                    memory_bytes=sum(held for region, held in memory.items() if region != "cpu"),
                )
