"""The server's own processes: the one that listens, and all below it, which often do the work.

It is looked up by its port among the listening sockets of this machine; where the system shows those of other users to
root only, it is not found. A server that has gone is looked for again: one that was restarted is another process. Its
CPU time counts every process that it was seen to have, the ended ones too. Resident memory is summed over processes,
so that pages which they share count for each of them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# These listen on behalf of a server in a container or another system, and are not the server.
_PROXIES = frozenset({"docker-proxy", "com.docker.backend", "com.docker.backend.exe", "wslrelay.exe", "slirp4netns"})
# What listens here for a server on another machine.
_TUNNELS = frozenset({"ssh", "ssh.exe", "sshd", "sshd-session", "kubectl", "kubectl.exe"})
# To look for a process's descendants every process of the machine is looked at: that is not done at every reading.
_FRESH = 5
_ANY_ADDRESS = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - compared with, not bound to


class MeasuredProcess:
    """A process and its descendants. With a port it may be lost and found; a given pid is never another's."""

    def __init__(self, psutil: Any, process: Any, *, port: int | None = None, host: str | None = None) -> None:
        self._psutil = psutil
        self._process = process
        self._port = port
        self._host = host
        self._fresh = 0  # readings since its descendants were looked for
        self._kept: dict[Any, Any] = {}  # the same object for a process each time: it knows what it has read
        self._seen: dict[tuple[str, Any], float] = {}
        self._spent = {"process_restarts_total": 0.0}
        self.about: Mapping[str, object] = {"process": _about(psutil, process, by_port=port is not None)}

    @classmethod
    def found(cls, psutil: Any | None, *, port: int | None, host: str | None, pid: int | None) -> Self | None:
        """`None` without the library, or where no such process can be seen."""
        if psutil is None:
            return None
        if pid is not None:
            with suppress(psutil.Error):
                return cls(psutil, psutil.Process(pid))
            return None
        process = None if port is None else listening(psutil, port, host)
        return None if process is None else cls(psutil, process, port=port, host=host)

    def read(self) -> Mapping[str, float]:
        """CPU seconds, memory, threads, bytes read and written, over all of its processes.

        None where it has gone, or the system tells no other user of it.
        """
        family = self._family()
        if not family:
            return {}
        values = {"process_rss_bytes": 0.0, "process_threads": 0.0, "process_count": 0.0}
        for process in family:
            with suppress(self._psutil.Error), process.oneshot():
                resident, threads = process.memory_info().rss, process.num_threads()
                self._count(process)
                values["process_rss_bytes"] += resident
                values["process_threads"] += threads
                values["process_count"] += 1
        return values | self._spent if values["process_count"] else {}

    def _family(self) -> list[Any]:
        """The process and its descendants, looked for anew now and then."""
        if not self._alive():
            again = None if self._port is None else listening(self._psutil, self._port, self._host)
            if again is None:
                return []
            self._process, self._fresh = again, 0
            self._spent["process_restarts_total"] += 1
        if not self._fresh:
            members = [self._process]
            with suppress(self._psutil.Error):
                members += self._process.children(recursive=True)
            self._kept = {one: self._kept.get(one, one) for one in members}
        self._fresh = (self._fresh + 1) % _FRESH
        return list(self._kept.values())

    def _alive(self) -> bool:
        """One that has ended and is not yet taken leave of by its parent has gone, too."""
        with suppress(self._psutil.Error):
            return bool(self._process.is_running() and self._process.status() != self._psutil.STATUS_ZOMBIE)
        return False

    def _count(self, process: Any) -> None:
        """Add what this one did since it was last read; what it did before it was first seen is part of it."""
        times = process.cpu_times()
        self._add("process_cpu_s_total", process, times.user + times.system)
        # macOS has no such counters, and Linux shows those of one's own processes only.
        with suppress(AttributeError, self._psutil.Error, NotImplementedError):
            done = process.io_counters()
            self._add("process_read_bytes_total", process, done.read_bytes)
            self._add("process_write_bytes_total", process, done.write_bytes)

    def _add(self, name: str, process: Any, now: float) -> None:
        before = self._seen.get((name, process), 0.0)
        self._spent[name] = self._spent.get(name, 0.0) + max(0.0, now - before)
        self._seen[name, process] = now


def _about(psutil: Any, process: Any, *, by_port: bool) -> dict[str, object]:
    name = None
    with suppress(psutil.Error):
        name = process.name()
    return {"pid": process.pid, "name": name, "found_by": "port" if by_port else "--server-pid"}


def listening(psutil: Any, port: int, host: str | None) -> Any | None:
    """The process that listens on this port; of several that share it, the one that started the others."""
    owners = _owners(psutil, port, host)
    for pid in sorted(owners):
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            above = {parent.pid for parent in process.parents()}
            if not above & owners and process.name() not in _PROXIES:
                return process
    return None


def tunnelled(psutil: Any, port: int, host: str | None) -> bool:
    """Whether what listens on this port leads to another machine, of which this one tells nothing."""
    for pid in _owners(psutil, port, host):
        with suppress(psutil.Error):
            if psutil.Process(pid).name() in _TUNNELS:
                return True
    return False


def _owners(psutil: Any, port: int, host: str | None) -> set[int]:
    return {pid for pid, address in _listeners(psutil, port) if host is None or address in {host, *_ANY_ADDRESS}}


def _listeners(psutil: Any, port: int) -> Iterator[tuple[int, str]]:
    """(pid, address) of each socket that listens on this port, as far as they may be seen."""
    try:
        sockets = [(one.pid, one) for one in psutil.net_connections(kind="tcp")]
    except psutil.AccessDenied:  # macOS shows all of them to root only, but each process's own
        sockets = list(_own_sockets(psutil))
    except (psutil.Error, OSError):
        return
    for pid, one in sockets:
        if pid and one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port:
            yield pid, one.laddr.ip


def _own_sockets(psutil: Any) -> Iterator[tuple[int, Any]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            for one in process.net_connections(kind="tcp"):
                yield process.pid, one
