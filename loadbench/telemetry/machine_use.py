"""Who used the CPUs of this machine while a level ran: loadbench and the server, or others.

Two readings of counters, before a level and after it, so that nothing runs alongside its requests. `psutil` has the CPU
time of all cores and of each process; what neither loadbench with its children nor the server used, others did. On
Linux `/proc/<pid>/task/<tid>/schedstat` (kernel documentation, `scheduler/sched-stats.rst`) also has for how long a
thread was ready to run and had to wait for a core.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from loadbench.results.telemetry import MachineLoad
from loadbench.telemetry.power import PowerState, power_state
from loadbench.telemetry.process import family as family_of
from loadbench.telemetry.process import first_of, is_alive, owners, tunnels
from loadbench.telemetry.sampler import is_local
from loadbench.telemetry.sources import library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The kernel counts CPU time in hundredths of a second: over less time than this the shares are rough.
_SHORTEST_S = 1.0
_IDLE = ("idle", "iowait")
# On Linux the time of guests is part of that of users.
_COUNTED_TWICE = ("guest", "guest_nice")


class MachineUse(NamedTuple):
    """Counters in seconds since the machine started.

    `ours_s` is the CPU time of loadbench and the server; `None` if the server or a worker runs here and its process is
    hidden from this user. `waited_s` has the waits of the load generator and the server by (process, thread).
    """

    cores: int
    total_s: float
    busy_s: float
    stolen_s: float
    ours_s: float | None
    waited_s: Mapping[tuple[int, str], float]
    server_pids: frozenset[int]
    power: PowerState = PowerState()


class MachineReader:
    """Reads the counters; `urls` are the servers, `workers` the processes on this machine that make the load, whoever
    started them (`None` is one that cannot be seen), and `with_power` says that the machine's power matters. Without
    `psutil` there is nothing to read."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        server_pid: int | None = None,
        workers: Sequence[int | None] = (),
        proc: Path = Path("/proc"),
        with_power: bool = False,
    ) -> None:
        psutil: Any = library("psutil")
        self._psutil = psutil
        self._with_power = with_power
        self._proc = proc
        self._server_pid = server_pid
        self._urls = [url for url in urls if is_local(url)]
        self._known: dict[str, Any] = {}  # the process by URL, as long as it runs
        self._workers: list[Any] = []
        self._is_hidden = None in workers
        for pid in workers if psutil is not None else ():
            if pid is not None:
                with suppress(psutil.Error):
                    self._workers.append(psutil.Process(pid))

    def found(self, url: str, pid: int) -> None:
        """The sampler has found the process of this server: to look for it again takes 20 ms."""
        if self._psutil is not None and url in self._urls:
            with suppress(self._psutil.Error):
                self._known[url] = self._psutil.Process(pid)

    def read(self) -> MachineUse | None:
        """The counters now."""
        psutil = self._psutil
        if psutil is None:
            return None
        try:
            times = psutil.cpu_times()._asdict()
            own = psutil.Process()
            family = {own.pid: own} | {child.pid: child for child in own.children(recursive=True)}
        except (psutil.Error, OSError):
            return None
        # What Ray started is no child of ours: the actor that passes reports on, and its worker.
        for worker in self._workers:
            with suppress(psutil.Error):
                family |= {one.pid: one for one in (worker, worker.parent()) if one is not None and one.is_running()}
        servers = self._servers(psutil, family)
        server_pids: set[int] = set()
        for server in servers or ():
            members = {member.pid: member for member in family_of(psutil, server)}
            server_pids |= members.keys()
            family |= members
        ours_s = 0.0
        for process in family.values():
            with suppress(psutil.Error):
                used = process.cpu_times()
                # Children that ended count too, as far as their parent has waited for them.
                ours_s += used.user + used.system + used.children_user + used.children_system
        idle_s = sum(times.get(name, 0.0) for name in _IDLE)
        total_s = sum(spent for name, spent in times.items() if name not in _COUNTED_TWICE)
        return MachineUse(
            cores=psutil.cpu_count() or 1,
            total_s=total_s,
            busy_s=total_s - idle_s,
            stolen_s=times.get("steal", 0.0),
            ours_s=None if servers is None or self._is_hidden else ours_s,
            waited_s={key: waited for pid in (own.pid, *server_pids) for key, waited in self._waits(pid)},
            server_pids=frozenset(server_pids),
            power=power_state(Path("/"), psutil) if self._with_power else PowerState(),
        )

    def _servers(self, psutil: Any, family: Mapping[int, Any]) -> list[Any] | None:
        """The processes of the servers on this machine; `None` if one of them cannot be seen. The simulated one is a
        child of loadbench, which is the first of its `family`."""
        if self._server_pid is not None:
            with suppress(psutil.Error):
                return [psutil.Process(self._server_pid)]
            return None
        found = []
        for url in self._urls:
            server = self._known.get(url)
            if not is_alive(psutil, server):
                parts = urlsplit(url)
                port = parts.port or (443 if parts.scheme == "https" else 80)
                pids = owners(psutil, port, None, among=[*family.values()][1:]) or owners(psutil, port, None)
                if tunnels(psutil, pids):
                    continue
                server = self._known[url] = first_of(psutil, pids)
            found.append(server)
        return None if None in found else found

    def _waits(self, pid: int) -> list[tuple[tuple[int, str], float]]:
        """How long each thread of a process has waited for a core so far."""
        waits = []
        with suppress(OSError, ValueError, IndexError):
            for task in (self._proc / str(pid) / "task").iterdir():
                waited_ns = int((task / "schedstat").read_text(encoding="ascii").split()[1])
                waits.append(((pid, task.name), waited_ns / 1e9))
        return waits


def load_between(before: MachineUse | None, after: MachineUse | None) -> MachineLoad | None:
    """How busy the machine was between two readings; `None` where that is not known, or the time was too short."""
    if before is None or after is None or after.total_s - before.total_s < _SHORTEST_S * after.cores:
        return None
    capacity_s = after.total_s - before.total_s
    busy_s, stolen_s = after.busy_s - before.busy_s, after.stolen_s - before.stolen_s
    others = None
    if before.ours_s is not None and after.ours_s is not None:
        others = min(1.0, max(0.0, (busy_s - stolen_s - (after.ours_s - before.ours_s)) / capacity_s))
    elapsed_s = capacity_s / after.cores
    waits = {
        key: min(1.0, (waited_s - before.waited_s[key]) / elapsed_s)
        for key, waited_s in after.waited_s.items()
        if key in before.waited_s
    }
    longest = max(waits, key=lambda key: waits[key], default=None)
    return MachineLoad(
        cores=after.cores,
        busy=busy_s / capacity_s,
        others=others,
        stolen=stolen_s / capacity_s,
        waited=None if longest is None else waits[longest],
        waited_by="" if longest is None else "the server" if longest[0] in after.server_pids else "loadbench",
        on_battery=bool(before.power.on_battery or after.power.on_battery),
        power_saving=list(dict.fromkeys((*before.power.saving, *after.power.saving))),
    )
