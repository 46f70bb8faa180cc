"""Who used the CPUs: what neither loadbench nor the server did, others did."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from loadbench.telemetry import machine_use
from loadbench.telemetry.machine_use import MachineReader, MachineUse, load_between
from loadbench.telemetry.power import PowerState

psutil = pytest.importorskip("psutil")
BURN = "import sys, time\nend = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass"
SERVE = (
    "import os, socket, sys, time\ns = socket.create_server(('127.0.0.1', 0))\n"
    "print(s.getsockname()[1], os.getpid(), flush=True)\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
)


def use(total=100.0, busy=50.0, stolen=0.0, ours=10.0, waited=None, server=()):
    """A reading on two cores."""
    return MachineUse(2, total, busy, stolen, ours, waited or {}, frozenset(server))


def test_shares_are_of_all_cores_over_the_time_between():
    """Two cores for ten seconds: eleven were used, of which one was stolen and four ours."""
    before = use(waited={(1, "1"): 1.0, (2, "2"): 3.0})
    after = use(120.0, 61.0, 1.0, 14.0, waited={(1, "1"): 1.5, (2, "2"): 7.0, (2, "9"): 99.0}, server=(2,))
    load = load_between(before, after)
    assert (load.cores, load.busy, load.others, load.stolen) == (2, 0.55, 0.3, 0.05)
    assert (load.waited, load.waited_by) == (0.4, "the server")


def test_unknown_stays_unknown():
    """Without psutil, over too short a time, with a hidden server, and where the kernel does not count waits."""
    assert load_between(None, use()) is None
    assert load_between(use(), None) is None
    assert load_between(use(), use(101.9, 51.0)) is None
    hidden = load_between(use(), use(120.0, 60.0, ours=None))
    assert (hidden.others, hidden.busy, hidden.waited, hidden.waited_by) == (None, 0.5, None, "")


def test_counters_that_lag_are_no_negative_use():
    """Process and system counters are not read at one moment."""
    load = load_between(use(), use(120.0, 60.0, ours=20.5))
    assert load.others == 0.0


def between(reader, seconds):
    """What a reader sees over some seconds."""
    before = reader.read()
    time.sleep(seconds)
    return load_between(before, reader.read())


def burner(seconds, *, orphan=False):
    """A process that uses a whole core; one that is no child of ours where it must count as another's."""
    if not orphan:
        return subprocess.Popen([sys.executable, "-c", BURN, str(seconds)])
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}, '{seconds}'])"
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.slow
def test_children_are_ours_and_others_are_not():
    """The same burning core in each role."""
    child = burner(3)
    used = psutil.Process(child.pid).cpu_times
    before = used()
    mine = between(MachineReader([]), 1.5)
    its = (used().user - before.user) / 1.5 / mine.cores  # a busy machine gives it less than a core
    child.wait()
    middle = burner(3, orphan=True)
    middle.wait()
    time.sleep(0.3)
    theirs = between(MachineReader([]), 1.5)
    # Whatever else runs here, the child's core is not among what others used, and the orphan's is.
    assert mine.busy - mine.others > its / 2 > 0
    assert theirs.others > 0.2 / theirs.cores
    assert theirs.busy - theirs.others < 0.2


@pytest.mark.slow
def test_workers_that_a_cluster_started_are_ours():
    """They are nobody's children here, and this process is told which they are."""
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SERVE!r}])"],
        stdout=subprocess.PIPE,
        text=True,
    )
    _, pid = map(int, starter.stdout.readline().split())
    starter.wait()
    used = psutil.Process(pid).cpu_times
    before = used()
    with starter.stdout:
        load = between(MachineReader([], workers=[pid]), 1.5)
    its = (used().user - before.user) / 1.5 / load.cores
    assert load.busy - load.others > its / 2 > 0


def test_a_worker_that_nobody_can_see_leaves_the_use_of_others_unknown():
    """In another container its process has another number."""
    assert MachineReader([], workers=[None]).read().ours_s is None


@pytest.mark.slow
def test_server_on_this_machine_is_not_others():
    """It is found by its port, though it is nobody's child."""
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SERVE!r}])"
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    port, pid = map(int, starter.stdout.readline().split())
    starter.wait()
    used = psutil.Process(pid).cpu_times
    before = used()
    with starter.stdout:
        load = between(MachineReader([f"http://127.0.0.1:{port}/v1"]), 1.5)
    its = (used().user - before.user) / 1.5 / load.cores
    assert load.busy - load.others > its / 2 > 0
    if load.waited is not None and load.waited > 0.2:
        assert load.waited_by == "the server"


def test_server_that_nobody_can_see_is_unknown():
    """Nothing listens there as far as this user sees, so its use cannot be told from that of others."""
    assert MachineReader(["http://127.0.0.1:9/v1"]).read().ours_s is None
    assert MachineReader(["http://192.0.2.1:9/v1"]).read().ours_s is not None


def test_server_that_the_sampler_found_is_not_looked_for_again(monkeypatch):
    """Nothing listens at this port: its process is known, and only as long as it runs."""
    url = "http://127.0.0.1:9/v1"
    reader = MachineReader([url])
    looked = []
    monkeypatch.setattr(machine_use, "owners", lambda *_, **__: looked.append(url) or set())
    with burner(30) as child:
        reader.found(url, child.pid)
        assert child.pid in reader.read().server_pids
        assert not looked
        child.kill()
    assert reader.read().ours_s is None
    assert looked


def test_power_is_that_of_both_ends():
    """A laptop that was unplugged, or set to save power, at either end."""
    idle = use(0.0)
    before = idle._replace(power=PowerState(True, 0.5, ("Low Power Mode is on",)))
    after = idle._replace(
        total_s=20.0, power=PowerState(False, 0.5, ("Low Power Mode is on", "platform profile quiet"))
    )
    load = load_between(before, after)
    assert load is not None
    assert (load.on_battery, load.power_saving) == (True, ["Low Power Mode is on", "platform profile quiet"])
    plain = load_between(idle, use(20.0))
    assert plain is not None
    assert (plain.on_battery, plain.power_saving) == (False, [])
