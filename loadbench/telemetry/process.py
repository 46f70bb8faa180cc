"""The server's processes: the one that listens, and its descendants, which often do the work; of a server that
loadbench has started, all that its command has started.

The process is found by its port among the listening sockets of this machine, unless the system shows those of other
users only to root. A server that is gone is looked for again, because a restarted server is another process. CPU time
includes every process that was seen, ended ones as well. Resident memory is summed over the processes, so shared pages
count once for each.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from loadbench.core.guard import GUARD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Set

# These listen for a server in a container or in another system, and are not the server.
_PROXIES = frozenset({"docker-proxy", "com.docker.backend", "com.docker.backend.exe", "wslrelay.exe", "slirp4netns"})
# These listen for a server on another machine.
_TUNNELS = frozenset({"ssh", "ssh.exe", "sshd", "sshd-session", "kubectl", "kubectl.exe"})
# These open ports for others, and hold them as long as they run.
_ACTIVATORS = frozenset({"systemd", "launchd"})
# What the command line of the guard has, where it cannot be renamed.
_GUARD_MODULE = "loadbench.core.guard"
# Finding descendants takes a look at every process of the machine, so it is done only at every fifth reading.
_FRESH = 5
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - compared with, not bound to


class MeasuredProcess:
    """A process and its descendants. With a port it is looked for again when it ends; a given pid is not."""

    def __init__(self, psutil: Any, process: Any, *, port: int | None = None, host: str | None = None) -> None:
        self._psutil = psutil
        self._process = process
        self._port = port
        self._host = host
        self._age = 0  # readings since the descendants were looked for
        self._family: dict[Any, Any] = {}  # keeps the same object for a process, which remembers its last reading
        self._last: dict[tuple[str, Any], float] = {}
        self._totals = {"process_restarts_total": 0.0}
        name = None
        with suppress(psutil.Error):
            name = process.name()
        found_by = "port" if port is not None else "--server-pid"
        self.about: Mapping[str, object] = {"process": {"pid": process.pid, "name": name, "found_by": found_by}}

    @classmethod
    def detect(
        cls, psutil: Any | None, *, port: int | None, host: str | None, pid: int | None, pids: Set[int] | None = None
    ) -> Self | None:
        """`None` without `psutil`, or if there is no such process that this user can see; `pids` are the owners of the
        port, if they are known."""
        if psutil is None:
            return None
        if pid is not None:
            with suppress(psutil.Error):
                return cls(psutil, psutil.Process(pid))
            return None
        if port is not None and pids is None:
            pids = owners(psutil, port, host)
        process = None if port is None else first_of(psutil, pids or set())
        return None if process is None else cls(psutil, process, port=port, host=host)

    def pids(self) -> Set[int]:
        """The processes, as they were seen last."""
        return {self._process.pid} | {process.pid for process in self._family.values()}

    def read(self) -> Mapping[str, float]:
        """CPU seconds, memory, threads, bytes read and written, over all processes.

        Empty if the process is gone, or if the system hides it from this user.
        """
        if not is_alive(self._psutil, self._process):
            restarted = None if self._port is None else listening(self._psutil, self._port, self._host)
            if restarted is None:
                return {}
            self._totals["process_restarts_total"] += restarted not in self._family  # else one that was there before
            self._process, self._age = restarted, 0
        if not self._age:
            members = family(self._psutil, self._process)
            self._family = {process: self._family.get(process, process) for process in members}
        self._age = (self._age + 1) % _FRESH
        values = {"process_rss_bytes": 0.0, "process_threads": 0.0, "process_count": 0.0}
        for process in self._family.values():
            with suppress(self._psutil.Error), process.oneshot():
                resident, threads = process.memory_info().rss, process.num_threads()
                self._count(process)
                values["process_rss_bytes"] += resident
                values["process_threads"] += threads
                values["process_count"] += 1
        return values | self._totals if values["process_count"] else {}

    def _count(self, process: Any) -> None:
        """Add what a process did since its last reading, or since it started."""
        times = process.cpu_times()
        self._add("process_cpu_s_total", process, times.user + times.system)
        # macOS has no such counters, and Linux shows only those of the user's own processes.
        with suppress(AttributeError, self._psutil.Error, NotImplementedError):
            io = process.io_counters()
            self._add("process_read_bytes_total", process, io.read_bytes)
            self._add("process_write_bytes_total", process, io.write_bytes)

    def _add(self, name: str, process: Any, now: float) -> None:
        before = self._last.get((name, process), 0.0)
        self._totals[name] = self._totals.get(name, 0.0) + max(0.0, now - before)
        self._last[name, process] = now


def family(psutil: Any, process: Any) -> list[Any]:
    """The process and all below it; if loadbench has started the server, all below the guard of that: the process that
    listens may be one of several that do the work."""
    ours = {os.getpid(), os.getppid()}  # a guard above these has started loadbench itself
    with suppress(psutil.Error, OSError):
        for parent in process.parents():
            if parent.pid in ours:
                break
            with suppress(psutil.Error):
                if parent.name() == GUARD or _GUARD_MODULE in parent.cmdline():
                    return [process, *(one for one in parent.children(recursive=True) if one != process)]
        return [process, *process.children(recursive=True)]
    return [process]


def is_alive(psutil: Any, process: Any | None) -> bool:
    """Whether it runs. A process that has ended and was not yet waited for by its parent is gone, too."""
    with suppress(psutil.Error):
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def listening(psutil: Any, port: int, host: str | None) -> Any | None:
    """The process that listens on this port; of several, the one that started the others."""
    return first_of(psutil, owners(psutil, port, host))


def first_of(psutil: Any, pids: Set[int]) -> Any | None:
    """Of the processes that own a port, the one that started the others."""
    for pid in sorted(pids):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            above = {parent.pid for parent in process.parents()}
            if not above & pids and process.name() not in _PROXIES:
                return process
    return None


def tunnels(psutil: Any, pids: Set[int]) -> bool:
    """Whether one of the processes that own a port is a tunnel to another machine; then there is nothing to read."""
    for pid in pids:
        with suppress(psutil.Error):
            if psutil.Process(pid).name() in _TUNNELS:
                return True
    return False


def owners(psutil: Any, port: int, host: str | None, *, among: Iterable[Any] | None = None) -> set[int]:
    """The pids of the sockets that listen on this port and address, as far as this user can see them: `among` these
    processes, or of all, which takes some 20 ms."""
    sockets: list[tuple[int, Any]] = []
    if among is None:
        try:
            sockets = [(socket.pid, socket) for socket in psutil.net_connections(kind="tcp")]
        except psutil.AccessDenied:  # macOS shows all of them only to root, but those of a process of the same user
            among = psutil.process_iter()
        except (psutil.Error, OSError):
            return set()
    for process in among or ():
        with suppress(psutil.Error):
            sockets += [(process.pid, socket) for socket in process.net_connections(kind="tcp")]

    def listens(socket: Any) -> bool:
        at_port = socket.status == psutil.CONN_LISTEN and socket.laddr and socket.laddr.port == port
        return bool(at_port) and (host is None or socket.laddr.ip in {host, *_ANY_ADDRESS})

    found = {pid for pid, socket in sockets if pid and listens(socket)}
    # Of several processes that share a socket psutil names one, which may be a worker that will be replaced.
    for pid in [*found] if among is None else ():
        with suppress(psutil.Error, OSError):
            for parent in psutil.Process(pid).parents():
                if parent.name() in _ACTIVATORS or not any(map(listens, parent.net_connections(kind="tcp"))):
                    break
                found.add(parent.pid)
    return found
