"""The server's processes: found by their port, read with all below them, held against their own account."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from loadbench.telemetry import sources
from loadbench.telemetry.process import MeasuredProcess, listening, owners, tunnels
from tests.telemetry.trees import rapl

BURNER = Path(__file__).with_name("burner.py")
HOST = "127.0.0.1"
# What the system's accounts of CPU time come in.
TICK_S = 0.01


class Burning:
    """A burner and its child."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        _, port, child = process.stdout.readline().split()
        self.pid, self.port, self.child = process.pid, int(port), int(child)

    def spent_s(self) -> float:
        """The CPU seconds of both, by their own account."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextmanager
def burning(share: float, port: int = 0):
    """A burner at work."""
    command = [sys.executable, str(BURNER), str(share), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Burning(process)
        finally:
            process.stdin.close()
            process.wait(10)


def found(**wanted) -> MeasuredProcess | None:
    """As the sampler looks for it."""
    return MeasuredProcess.detect(psutil, **{"port": None, "host": None, "pid": None, **wanted})


@pytest.mark.parametrize("by", ["port", "pid"])
def test_cpu_time_of_a_server_and_its_child_is_what_they_say_themselves(by):
    """Two processes at a third of a core each: the rise between two readings is that of their own accounts."""
    with burning(0.33) as server:
        watched = found(port=server.port, host=HOST) if by == "port" else found(pid=server.pid)
        assert watched is not None
        before_s, first, between_s = server.spent_s(), watched.read(), server.spent_s()
        while server.spent_s() < between_s + 0.2:  # as long as that takes on a busy machine
            time.sleep(0.05)
        after_s, second, last_s = server.spent_s(), watched.read(), server.spent_s()
        rise_s = second["process_cpu_s_total"] - first["process_cpu_s_total"]
        assert after_s - between_s - 4 * TICK_S <= rise_s <= last_s - before_s + 4 * TICK_S
        assert rise_s > 0.1
        assert second["process_count"] == 2
        assert second["process_threads"] >= 4
        own = sum(psutil.Process(pid).memory_info().rss for pid in (server.pid, server.child))
        assert second["process_rss_bytes"] == pytest.approx(own, rel=0.1)


def test_cpu_time_of_a_child_that_has_ended_stays_counted():
    """A total never falls because a worker went: what the child had used when it was last read stays in it."""

    def spent_s(pid: int) -> float:
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system

    with burning(0.5) as server:
        watched = found(pid=server.pid)
        assert watched is not None
        while spent_s(server.child) < 0.15:
            time.sleep(0.02)
        child_s = spent_s(server.child)
        first = watched.read()
        psutil.Process(server.child).kill()
        with suppress(psutil.NoSuchProcess):
            while psutil.Process(server.child).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        parent_s = spent_s(server.pid)
        total_s = watched.read()["process_cpu_s_total"]
        assert total_s >= first["process_cpu_s_total"]
        assert total_s >= child_s + parent_s - 2 * TICK_S


def test_child_that_comes_later_is_found():
    """Within a few readings; what it did until then is counted."""
    watched = found(pid=os.getpid())
    assert watched is not None
    before = watched.read()["process_count"]
    with burning(0.01):
        assert [watched.read()["process_count"] for _ in range(6)][-1] == before + 2


PREFORK = """
import os, socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
def work():
    if (worker := os.fork()) == 0:
        time.sleep(600)
    return worker
worker = work()
print(listener.getsockname()[1], worker, flush=True)
for line in sys.stdin:
    new = work()
    os.kill(worker, 9)
    os.waitpid(worker, 0)
    worker = new
    print(worker, flush=True)
os.kill(worker, 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a worker is forked with the socket")
def test_workers_that_are_replaced_are_no_restart():
    """The process that has started them keeps the port, although the system names one of them as its owner."""
    with subprocess.Popen(
        [sys.executable, "-c", PREFORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        port, worker = map(int, server.stdout.readline().split())
        watched = found(port=port, host=HOST)
        assert watched is not None
        assert watched.about["process"]["pid"] == server.pid
        for _ in range(3):
            assert watched.read()["process_restarts_total"] == 0
            server.stdin.write("\n")
            server.stdin.flush()
            worker, before = int(server.stdout.readline()), worker
            assert worker != before
        assert watched.read()["process_restarts_total"] == 0
        server.stdin.close()
        server.wait(10)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no zombies")
def test_server_that_is_a_zombie_has_gone():
    """Its parent has not yet noticed; there is nothing left to read."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        watched = found(pid=process.pid)
        assert watched is not None
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert watched.read() == {}


def test_server_is_told_by_how_it_was_found():
    """Its pid and name go into the record, and whether the user named it."""
    with burning(0.01) as server:
        by_port, by_pid = found(port=server.port, host=HOST), found(pid=server.pid)
        assert by_port is not None
        assert by_pid is not None
        assert by_port.about["process"] == {
            "pid": server.pid,
            "name": psutil.Process(server.pid).name(),
            "found_by": "port",
        }
        assert by_pid.about["process"]["found_by"] == "--server-pid"


def test_server_that_was_restarted_is_found_again():
    """Its successor at the same port is read on, and the change is counted."""
    with burning(0.01) as server:
        watched = found(port=server.port, host=HOST)
        assert watched is not None
        first = watched.read()
        port = server.port
    assert watched.read() == {}
    with burning(0.01, port) as successor:
        second = watched.read()
        assert (first["process_restarts_total"], second["process_restarts_total"]) == (0, 1)
        assert second["process_cpu_s_total"] >= first["process_cpu_s_total"]
        assert successor.pid != server.pid


def test_process_that_has_gone_is_not_replaced_where_it_was_named():
    """A pid is that process and no other: nothing is read any more, and nothing raised."""
    with burning(0.01) as server:
        watched = found(pid=server.pid)
        assert watched is not None
    assert watched.read() == {}


@pytest.mark.parametrize("wanted", [{"pid": 2**30}, {"port": 1, "host": HOST}, {}])
def test_no_such_process_is_none(wanted):
    """Neither by a pid that nobody has, nor by a port at which nobody listens."""
    assert found(**wanted) is None


def test_without_the_library_there_is_none():
    """psutil may be missing."""
    assert MeasuredProcess.detect(None, port=80, host=None, pid=None) is None


def test_process_that_tells_nothing_is_not_told_as_nothing():
    """Of another user's process macOS tells neither CPU time nor memory: that is unknown, and not 0 bytes."""

    class Secret(psutil.Process):
        def num_threads(self):
            raise psutil.AccessDenied

    # One that has no children, as the tests' own process has.
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as waiting:
        found_of_it = MeasuredProcess(psutil, Secret(waiting.pid)).read()
        waiting.communicate(b"\n")
    assert found_of_it == {}


def test_connection_to_a_port_is_no_listener_at_it():
    """Who is connected to the server, as the load generator is, is not taken for it."""
    with burning(0.01) as server, socket.create_connection((HOST, server.port)):
        process = listening(psutil, server.port, HOST)
        assert process is not None
        assert process.pid == server.pid


# Machines that are not this one.


def machine(sockets, names, *, parents=None, shared=None, denied=False):
    """`psutil` of a machine with these listening sockets, (pid, address, port) each, and these processes by pid; those
    that are `shared` are only in the lists of their processes."""

    class AccessDenied(psutil.Error):
        pass

    def connection(pid, ip, port):
        return SimpleNamespace(pid=pid, status="LISTEN", laddr=SimpleNamespace(ip=ip, port=port))

    def process(pid):
        own = [connection(None, ip, port) for owner, ip, port in sockets if owner == pid]
        own += [connection(None, HOST, port) for owner, port in (shared or {}).items() if owner == pid]
        return SimpleNamespace(
            pid=pid,
            name=lambda: names[pid],
            parents=lambda: [process(one) for one in (parents or {}).get(pid, [])],
            net_connections=lambda kind: own,
        )

    def net_connections(kind):
        if denied:
            raise AccessDenied
        return [connection(*one) for one in sockets]

    return SimpleNamespace(
        Error=psutil.Error,
        AccessDenied=AccessDenied,
        CONN_LISTEN="LISTEN",
        Process=process,
        process_iter=lambda: [process(pid) for pid in names],
        net_connections=net_connections,
    )


@pytest.mark.parametrize(
    ("sockets", "names", "more", "pid"),
    [
        ([(7, HOST, 8080), (8, HOST, 8081)], {7: "server", 8: "other"}, {}, 7),
        ([(7, "0.0.0.0", 8080)], {7: "server"}, {}, 7),
        ([(7, "::", 8080)], {7: "server"}, {}, 7),
        ([(6, "10.0.0.1", 8080), (7, HOST, 8080)], {6: "other", 7: "server"}, {}, 7),
        # Forked workers share the socket: the one that started the others stands for all.
        ([(7, HOST, 8080), (3, HOST, 8080)], {3: "server", 7: "server"}, {"parents": {7: [3]}}, 3),
        ([(3, HOST, 8080), (7, HOST, 8080)], {3: "server", 7: "server"}, {"parents": {3: [7]}}, 7),
        # Of those that share it some systems name one alone; what opens ports for others is not the server.
        ([(7, HOST, 8080)], {3: "server", 7: "server"}, {"parents": {7: [3]}, "shared": {3: 8080}}, 3),
        ([(7, HOST, 8080)], {1: "systemd", 7: "server"}, {"parents": {7: [1]}, "shared": {1: 8080}}, 7),
        # In its container the server is out of sight.
        ([(7, HOST, 8080)], {7: "docker-proxy"}, {}, None),
        # Of other users' processes the system shows no pid.
        ([(None, HOST, 8080)], {}, {}, None),
        # macOS shows each process's own.
        ([(7, HOST, 8080)], {7: "server"}, {"denied": True}, 7),
    ],
    ids=[
        "port",
        "any address",
        "any v6",
        "address",
        "workers",
        "older pid",
        "one of them named",
        "socket activation",
        "container",
        "another user's",
        "one by one",
    ],
)
def test_listener_is_found_as_each_system_shows_it(sockets, names, more, pid):
    """By port and address, of several the first, and never what merely passes connections on."""
    process = listening(machine(sockets, names, **more), 8080, HOST)
    assert (None if process is None else process.pid) == pid


@pytest.mark.parametrize("name", ["ssh", "kubectl", "sshd-session"])
def test_mouth_of_a_tunnel_is_no_server_and_this_machine_is_not_its(monkeypatch, tmp_path, name):
    """Behind a forwarded port is another machine: its energy is not what this one's meters tell, nor its load."""
    monkeypatch.setattr(sources, "library", {"psutil": machine([(7, HOST, 8080)], {7: name})}.get)
    assert sources.sources(port=8080, host=HOST, pid=None, root=rapl(tmp_path)) == []


def test_another_tunnel_changes_nothing():
    """At another port, or on another address, it is not what is asked."""
    here = machine([(6, HOST, 9090), (5, "10.0.0.1", 8080), (7, HOST, 8080)], {5: "ssh", 6: "ssh", 7: "server"})
    assert not tunnels(here, owners(here, 8080, HOST))
