"""The run's side of telemetry: the sampler as a real process, in virtual time, and not there at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from types import SimpleNamespace

import anyio
import orjson
import psutil
import pytest

from loadbench.core.errors import BadInput
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.results.folder import RunFolder, RunPlace
from loadbench.results.readings import ReadingLog
from loadbench.telemetry import sampler as module
from loadbench.telemetry.sampler import MachineSampler, check_pid, is_local

S = 1_000_000_000
MS = 1_000_000


def lines(path) -> list[dict]:
    """The readings that were written down."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def sampled(tmp_path, *, for_s: float, interval_ns: int = 100 * MS, during=None, **wanted):
    """The watch over a real sampler for some time, and its window."""
    log = ReadingLog(RunFolder(tmp_path), origin_ns=0)
    watch = MachineSampler(log, interval_ns=interval_ns)

    async def main():
        started_ns = time.perf_counter_ns()
        async with watch.sampling(**wanted), anyio.create_task_group() as beside:
            beside.start_soon(watch.listen)
            await watch.caught_up(started_ns)  # the first reading, which may have come by now
            began_ns = time.perf_counter_ns()
            if during is not None:
                during()
            await anyio.sleep(for_s)
            ended_ns = time.perf_counter_ns()
            await watch.caught_up(ended_ns)
            beside.cancel_scope.cancel()
        watch.flush()
        return watch.window(began_ns, ended_ns), (ended_ns - began_ns) / 1e9

    return watch, *asyncio.run(main())


def samplers() -> set[psutil.Process]:
    """The samplers that run below this process."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or is no more than an entry
            if "loadbench.telemetry" in child.cmdline():
                found.add(child)
    return found


def test_sampler_reads_this_machine_on_the_runs_own_clock(tmp_path):
    """This process listens and is found by its port; what it computes is counted; readings lie in order in the time."""

    def burn():
        until_s = time.process_time() + 0.4
        while time.process_time() < until_s:
            sum(range(1000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        before_ns = time.perf_counter_ns()
        watch, window, seconds = sampled(tmp_path, for_s=0.5, during=burn, url=url)
    assert watch.about["process"]["pid"] == os.getpid()
    assert watch.about["host"]["memory_bytes"] == psutil.virtual_memory().total
    assert window is not None
    # Of 0.4 s, an interval may be lost at the beginning of the window.
    assert window.counters["process_cpu_s_total"] >= 0.2
    assert window.gauges["process_rss_bytes"].max > 5_000_000
    assert 0.2 / (os.cpu_count() * (seconds + 1)) <= window.gauges["host_cpu_share"].mean <= 1
    moments = [reading["at_ns"] for reading in lines(tmp_path / "telemetry.jsonl")]
    assert moments == sorted(moments)
    assert before_ns < moments[0] < moments[-1] < time.perf_counter_ns()


def test_cores_in_use_are_those_that_this_process_may_use(monkeypatch):
    """Other cores may be busy; where the system shows nothing, nothing is known to be in use."""
    readings = [[0.0, 0.0, 0.0], [80.0, 100.0, 30.0]]
    machine = SimpleNamespace(cpu_percent=lambda *, percpu: readings.pop(0) if percpu else 0.0)
    monkeypatch.setattr(module, "library", lambda _: machine)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    assert run_virtual(module.cores_in_use) == pytest.approx(1.1)

    def refuses(*, percpu: bool) -> list[float]:
        raise PermissionError

    machine.cpu_percent = refuses
    assert run_virtual(module.cores_in_use) == 0.0
    monkeypatch.setattr(module, "library", lambda _: None)
    assert run_virtual(module.cores_in_use) == 0.0


@pytest.mark.slow
def test_sampler_costs_less_than_a_hundredth_of_a_core(tmp_path):
    """At its usual interval, by its own account, with a process to read."""
    _, window, seconds = sampled(tmp_path, for_s=3.0, interval_ns=S, url="http://127.0.0.1:9/v1", pid=os.getpid())
    assert window is not None
    assert 0 < window.counters["sampler_cpu_s_total"] < 0.01 * seconds


def test_sampler_that_dies_ends_the_readings_and_nothing_else(tmp_path):
    """What it had told is kept; nobody waits for what will not come: the next reading would be ten minutes later."""
    before, killed = samplers(), []

    def kill():
        killed.extend(samplers() - before)
        for child in killed:
            child.kill()

    watch, _, _ = sampled(tmp_path, for_s=0.2, interval_ns=600 * S, during=kill, url="http://127.0.0.1:9/v1")
    assert len(killed) == 1
    assert lines(tmp_path / "telemetry.jsonl")
    assert watch.about


def test_sampler_ends_with_the_context(tmp_path):
    """No process is left behind, however the body ended; and its error comes out as it is."""

    before, started = samplers(), set()

    async def main():
        async with MachineSampler().sampling(url="http://127.0.0.1:9/v1"):
            started.update(samplers() - before)
            raise BadInput("as it is")

    with pytest.raises(BadInput, match="as it is"):
        asyncio.run(main())
    assert len(started) == 1
    assert not any(child.is_running() for child in started)


def test_sampler_that_does_not_start_is_no_failure(tmp_path, monkeypatch):
    """Whatever keeps it from starting: nothing is known, and nothing said."""
    monkeypatch.setattr(module, "_MODULE", "loadbench.telemetry.nowhere")
    watch, window, _ = sampled(tmp_path, for_s=0.01, url="http://127.0.0.1:9/v1")
    assert (watch.about, window) == ({}, None)
    assert not (tmp_path / "telemetry.jsonl").exists()


def test_machine_without_room_for_a_process_is_not_sampled(tmp_path, monkeypatch):
    """The measurement can do without it."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    watch, window, _ = sampled(tmp_path, for_s=0.01, url="http://127.0.0.1:9/v1")
    assert (watch.about, window) == ({}, None)


def test_machine_of_another_is_not_sampled(tmp_path):
    """What this machine does says nothing of a server elsewhere."""
    watch, window, _ = sampled(tmp_path, for_s=0.01, url="http://192.0.2.1:8080/v1")
    assert (watch.about, window) == ({}, None)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://127.8.8.8/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8080/v1", True),
        ("https://192.0.2.1/v1", False),
        ("https://[2001:db8::1]/v1", False),
        ("http://model.example/v1", False),
    ],
)
def test_whether_a_server_is_on_this_machine(url, local):
    """Loopback and its own addresses are; a name that could be anybody's is not."""
    assert is_local(url) is local


def test_sandbox_without_interfaces_ends_nothing(monkeypatch):
    """Seen as a traceback: what the system does not show is not known."""

    def refuse():
        raise PermissionError("netlink")

    monkeypatch.setattr(psutil, "net_if_addrs", refuse)
    assert is_local("http://127.0.0.1/v1")
    assert not is_local("http://192.0.2.1/v1")


def test_own_address_is_local():
    """A server that is asked by this machine's address in its network is on it."""
    for found in psutil.net_if_addrs().values():
        for one in found:
            if one.family == socket.AF_INET:
                assert is_local(f"http://{one.address}:8080/v1")


def test_without_psutil_only_loopback_is_known_to_be_local(monkeypatch):
    """And nobody can look for a process."""
    monkeypatch.setattr(module, "library", lambda _name: None)
    assert is_local("http://127.0.0.1/v1")
    assert not is_local("http://192.0.2.1/v1")
    check_pid(None)
    with pytest.raises(BadInput, match="psutil"):
        check_pid(1)


def test_pid_that_nobody_has_is_refused():
    """Before anything is started."""
    check_pid(os.getpid())
    with pytest.raises(BadInput, match="no such process"):
        check_pid(2**22 + 1)


def test_fake_source_in_virtual_time():
    """Readings of one second by the virtual clock: a window of 10 s has 11 of them, and its figures are exact."""

    async def main():
        clock, watch = VirtualClock(), MachineSampler()

        async def sample():
            while True:
                at_ns = clock.now_ns()
                watch.add(at_ns, {"gpu0_power_w": 100.0 + at_ns / S, "gpu0_energy_j_total": 250 * at_ns / S})
                await anyio.sleep(1)

        async with anyio.create_task_group() as beside:
            beside.start_soon(sample)
            await anyio.sleep(20)
            beside.cancel_scope.cancel()
        return watch.window(5 * S, 15 * S)

    window = run_virtual(main)
    assert window.gauges["gpu0_power_w"].mean == pytest.approx(110.0)
    assert window.gauges["gpu0_power_w"].readings == 11
    assert window.counters == {"gpu0_energy_j_total": pytest.approx(2500.0)}


def test_reading_that_is_no_number_is_left_out(tmp_path):
    """A sensor may say NaN; JSON cannot."""
    log = ReadingLog(RunFolder(tmp_path), origin_ns=S)
    watch = MachineSampler(log)
    watch.add(3 * S, {"a": float("nan"), "b": float("inf"), "c": 2.0, "d": 0.5})
    watch.flush()
    assert lines(tmp_path / "telemetry.jsonl") == [{"at_ns": 2 * S, "c": 2, "d": 0.5}]


def test_readings_that_cannot_be_written_are_lost_and_nothing_else(tmp_path):
    """A measurement goes on without them, and says so."""
    (tmp_path / "file").write_bytes(b"")
    folder = RunFolder(RunPlace(tmp_path / "file", may_move=False))
    log = ReadingLog(folder, origin_ns=0)
    log.add_reading(1, {"a": 1.0})
    log.flush()
    assert "1 lines are missing" in folder.place.unwritten["telemetry.jsonl"]
