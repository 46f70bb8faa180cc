"""Stamps of arrival: the kernel's, in the run's clock, whatever the wall clock does."""

from __future__ import annotations

import socket
import sys
import time
from types import SimpleNamespace

import pytest

from loadbench.client import stamping
from loadbench.client.stamping import KERNEL, StampedSocket, Stamper, stamp_source

S = 1_000_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="receive stamps are Linux's")


class Clocks:
    """Two clocks that run together until the wall clock is stepped; a look at either takes 100 ns."""

    def __init__(self, monkeypatch) -> None:
        self.now_ns = 1000 * S
        self.wall_ahead_ns = 500_000 * S
        fake = SimpleNamespace(perf_counter_ns=self.perf_counter_ns, time_ns=self.time_ns)
        monkeypatch.setattr(stamping, "time", fake)

    def perf_counter_ns(self) -> int:
        self.now_ns += 100
        return self.now_ns

    def time_ns(self) -> int:
        self.now_ns += 100
        return self.now_ns + self.wall_ahead_ns


class Arrival:
    """A socket whose bytes arrived at this moment of the wall clock."""

    def __init__(self, stamped_ns: int) -> None:
        self.stamped_ns = stamped_ns


def test_kernel_stamp_becomes_a_moment_of_the_runs_clock(monkeypatch):
    """What arrived 300 µs ago is stamped 300 µs ago, and the delay is kept."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    arrived_ns = clocks.now_ns - 300_000
    stamp = stamper.arrived(Arrival(arrived_ns + clocks.wall_ahead_ns))
    assert abs(stamp - arrived_ns) <= 200
    delays = stamper.take_stats().delays
    assert (delays.count, stamper.take_stats().delays.count) == (1, 0)
    assert abs(delays.max - 300_000) <= 1000


@pytest.mark.parametrize("step_ns", [-3600 * S, -5_000_000, 5_000_000, 3600 * S])
def test_step_of_the_wall_clock_moves_no_stamp(monkeypatch, step_ns):
    """After the wall clock jumped, what arrives now is stamped now, and the step is counted."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    clocks.wall_ahead_ns += step_ns
    arrived_ns = clocks.now_ns
    stamp = stamper.arrived(Arrival(arrived_ns + clocks.wall_ahead_ns))
    assert abs(stamp - arrived_ns) <= 5_000
    assert stamper.take_stats().clock_steps == 1


@pytest.mark.parametrize("step_ns", [-3600 * S, 3600 * S])
def test_bytes_from_before_a_step_are_never_stamped_in_the_future(monkeypatch, step_ns):
    """A stamp in the old wall clock, read after the step, ends up at the read at the latest."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    old_wall_ns = clocks.now_ns + clocks.wall_ahead_ns
    clocks.wall_ahead_ns += step_ns
    assert stamper.arrived(Arrival(old_wall_ns)) <= clocks.now_ns


def test_slow_drift_is_followed(monkeypatch):
    """The offset is measured again every second: a clock that drifts 0.1 ms a second moves no stamp by more."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    for _ in range(100):
        clocks.now_ns += S
        clocks.wall_ahead_ns += 100_000
        arrived_ns = clocks.now_ns
        assert abs(stamper.arrived(Arrival(arrived_ns + clocks.wall_ahead_ns)) - arrived_ns) <= 101_000
    assert stamper.take_stats().clock_steps == 0


def test_without_a_kernel_stamp_the_read_is_the_stamp(monkeypatch):
    """A plain socket, or a read without a stamp, is stamped now, and no delay is made up."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    before_ns = clocks.now_ns
    assert before_ns < stamper.arrived(None) <= clocks.now_ns
    assert before_ns < stamper.arrived(Arrival(0)) <= clocks.now_ns
    assert stamper.take_stats().delays.count == 0


def test_many_delays_are_all_kept(monkeypatch):
    """Delays are gathered and folded in batches, and none is lost on the way."""
    clocks = Clocks(monkeypatch)
    stamper = Stamper()
    for _ in range(10_000):
        stamper.arrived(Arrival(clocks.now_ns + clocks.wall_ahead_ns))
    assert stamper.take_stats().delays.count == 10_000


def await_stamps(theirs: socket.socket, ours: StampedSocket) -> None:
    """Send until the kernel stamps: it begins a moment after the first socket of the machine has asked for it."""
    until_ns = time.perf_counter_ns() + 5_000_000_000
    while time.perf_counter_ns() < until_ns:
        theirs.send(b"x")
        ours.recv_into(bytearray(16))
        if ours.stamped_ns:
            return
        time.sleep(0.001)


@linux
def test_real_stamp_lies_between_sending_and_reading():
    """On a real socket the kernel's stamp is after the send began and before the read."""
    assert stamp_source() == KERNEL
    with socket.create_server(("127.0.0.1", 0)) as server, StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        ours.enable()
        ours.connect(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            await_stamps(theirs, ours)
            stamper = Stamper()
            for _ in range(50):
                sent_ns = time.perf_counter_ns()
                theirs.send(b"x")
                buffer = bytearray(16)
                assert ours.recv_into(buffer) == 1
                read_ns = time.perf_counter_ns()
                stamp = stamper.arrived(ours)
                # The two clocks are compared to within a microsecond or so.
                assert sent_ns - 20_000 <= stamp <= read_ns + 20_000
            assert stamper.take_stats().delays.count == 50


@linux
def test_delay_of_a_late_read_is_in_the_delay_and_not_in_the_stamp():
    """Bytes that wait in the kernel are stamped as they came: the wait is the client's own delay."""
    with socket.create_server(("127.0.0.1", 0)) as server, StampedSocket(socket.AF_INET, socket.SOCK_STREAM) as ours:
        ours.enable()
        ours.connect(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            await_stamps(theirs, ours)
            stamper = Stamper()
            theirs.send(b"x")
            sent_ns = time.perf_counter_ns()
            time.sleep(0.05)
            ours.recv_into(bytearray(16))
            read_ns = time.perf_counter_ns()
            stamp = stamper.arrived(ours)
            waited_ns = read_ns - sent_ns
            assert stamp - sent_ns < waited_ns / 2
            assert stamper.take_stats().delays.max > waited_ns / 2


@linux
def test_beginning_of_a_send_is_kept():
    """Whichever way it is sent; a response cannot have come before that."""
    ours, theirs = socket.socketpair()
    with StampedSocket(ours.family, ours.type, fileno=ours.detach()) as sock, theirs:
        for send in (lambda: sock.send(b"a"), lambda: sock.sendmsg([b"a"])):
            before_ns = time.perf_counter_ns()
            assert send() == 1
            assert before_ns <= sock.send_began_ns <= time.perf_counter_ns()
        assert theirs.recv(9) == b"aa"
