"""Ctrl-C does not wait for a name server."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from loadbench.client.fast_transport import FastTransport
from loadbench.client.stamping import StampedSocket
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.core import event_loop
from loadbench.record.outcome import Outcome
from tests.cli.running import LIMIT_S, environment
from tests.client.server import ASK, CLOSE, RST, serving

MS = 1_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has receive stamps")

# The command line on a machine whose name server never answers.
_NO_ANSWER = """
import socket, sys, threading
def wait(host, *_, **__):
    print("asked", flush=True)
    threading.Event().wait()
socket.getaddrinfo = wait
from loadbench.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("command", ["sweep", "doctor"])
def test_ctrl_c_ends_a_program_that_looks_a_name_up(command, tmp_path):
    """Seen to fail: asyncio waits for its threads at the end, and Python once more."""
    arguments = [command, "--url=http://no-answer.example:1/v1"]
    process = subprocess.Popen(
        [sys.executable, "-c", _NO_ANSWER, *arguments],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert (process.returncode, "Traceback" in errors) == (130, False)


def test_names_are_looked_up_as_python_does(monkeypatch):
    """The addresses or the error are those of `socket.getaddrinfo`, and no more than some threads ask at once."""

    async def addresses(host: str) -> object:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM) for _ in range(100)))

    expected = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert event_loop.run(addresses, "127.0.0.1") == [expected] * 100

    asking, most = [], []

    def fails(*_: object, **__: object) -> object:
        asking.append(1)
        most.append(len(asking))
        time.sleep(0.05)
        asking.pop()
        raise socket.gaierror(-2, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(socket.gaierror, match="no such host"):
        event_loop.run(addresses, "nobody")
    assert max(most) <= 32


class Sleeps:
    """A selector whose clock moves by what it sleeps, and by what the test says."""

    def __init__(self, monkeypatch) -> None:
        self.now_ns, self.slept_ns = 0, []
        clock = SimpleNamespace(perf_counter_ns=lambda: self.now_ns, sleep=self._sleep)
        monkeypatch.setattr(event_loop, "time", clock)
        self.selector = event_loop.BatchingSelector()
        # Something is always ready, so that no call waits in the kernel.
        self._pair = socket.socketpair()
        self.selector.register(self._pair[1], 1)
        self._pair[0].send(b"x")

    def _sleep(self, seconds: float) -> None:
        self.slept_ns.append(round(seconds * 1e9))

    def read(self, reads: int, *, gap_ns: int, every_ns: int = 40_000) -> None:
        """So many reads at this pace, each of a connection that was read `gap_ns` before."""
        for _ in range(reads):
            self.now_ns += every_ns
            self.selector.read_after(gap_ns)

    def waits(self, timeout: float | None = None) -> bool:
        """Whether a call with this timeout waits for more to read."""
        self.now_ns += 10 * MS + 1
        self.selector.read_after(20 * MS)
        before = len(self.slept_ns)
        assert self.selector.select(timeout), "what is ready is reported"
        return len(self.slept_ns) > before

    def close(self) -> None:
        self.selector.close()
        for end in self._pair:
            end.close()


@pytest.fixture
def sleeps(monkeypatch):
    made = Sleeps(monkeypatch)
    yield made
    made.close()


@linux
@pytest.mark.parametrize(
    ("gap_ns", "least_ns", "most_ns"),
    [(20 * MS, 290_000, 300_000), (5 * MS, 70_000, 80_000), (MS, 14_000, 17_000), (100_000, 0, 2_000), (0, 0, 1_000)],
)
def test_wait_is_short_beside_the_time_between_two_reads_of_a_stream(sleeps, gap_ns, least_ns, most_ns):
    """A 64th of it: two events of a stream do not come in one read because of it; without stamps, 0, there is none."""
    sleeps.read(10_000, gap_ns=20 * MS)
    sleeps.read(10_000, gap_ns=gap_ns)
    assert least_ns <= sleeps.selector.wait_ns <= most_ns


@linux
@pytest.mark.parametrize(("fast", "waits"), [(1, True), (3, False)])
def test_a_few_reads_close_together_end_no_wait(sleeps, fast, waits):
    """The end of a response may come in pieces; with more of them, some streams are fast."""
    for _ in range(2_000):
        sleeps.read(20 - fast, gap_ns=20 * MS)
        sleeps.read(fast, gap_ns=MS // 10)
    assert (sleeps.selector.wait_ns > 250_000) == waits


@linux
def test_only_a_busy_loop_waits(sleeps):
    """It waits where several reads come meanwhile, and no timer is near; an idle loop, and one with work, never do."""
    assert not sleeps.waits()
    for timeout, waits in [(None, True), (0.01, True), (0.0005, False), (0, False), (-1, False)]:
        sleeps.read(10_000, gap_ns=20 * MS)
        sleeps.selector.select(0)
        sleeps.read(500, gap_ns=20 * MS)
        assert sleeps.waits(timeout) == waits
    assert set(sleeps.slept_ns) == {300_000}
    sleeps.read(20, gap_ns=20 * MS, every_ns=10 * MS)
    assert not sleeps.waits()


_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n"


class Heard:
    """Keeps what an exchange brings."""

    def __init__(self) -> None:
        self.body, self.stamps = b"", []

    def connected(self, *_: object, **__: object) -> None: ...

    def reconnecting(self) -> None: ...

    def sent(self, at_ns: int) -> None: ...

    def headers(self, *_: object) -> None: ...

    def data(self, at_ns: int, chunk: bytes) -> None:
        self.body += chunk
        self.stamps.append(at_ns)
        if b"!" in chunk:
            raise ZeroDivisionError


@linux
@pytest.mark.parametrize(
    ("script", "ended"),
    [
        ([ASK, _HEAD, 0.02, b"abc", 0.02, b"def", ASK, _HEAD + b"ghijkl"], "whole"),
        ([ASK, _HEAD, b"abc", 0.02, CLOSE], "TransportError('truncated: "),
        ([ASK, _HEAD, b"abc", 0.02, RST], "TransportError('reset: "),
        ([ASK, _HEAD, b"abc!", 0.02, CLOSE], "ZeroDivisionError()"),
        ([ASK, b"HTP/1.1 200 OK\r\n\r\n"], "TransportError('protocol: "),
    ],
)
def test_direct_reads_end_as_those_of_asyncio_do(script, ended):
    """Bodies, broken connections and mistakes are the same as through asyncio's transport, and no reader is left."""

    async def main() -> tuple[str, bytes, int]:
        loop, heard, how, most = asyncio.get_running_loop(), Heard(), "whole", 0
        readers = loop.batches.readers if isinstance(loop, event_loop.EventLoop) else {}
        transport = FastTransport()
        async with serving(script) as server:
            for _ in range(script.count(ASK)):
                try:
                    await transport.exchange(HttpRequest("POST", server.url(), (), b"{}"), heard)
                except (TransportError, ZeroDivisionError) as error:
                    how = f"{error.outcome}: {error.detail}" if isinstance(error, TransportError) else ""
                    how = f"{type(error).__name__}({how!r})" if how else repr(error)
                most = max(most, len(readers))
            await transport.aclose()
            await asyncio.sleep(0.01)
        assert heard.stamps == sorted(heard.stamps)
        assert not readers
        return how, heard.body, most

    direct, usual = event_loop.run(main), asyncio.run(main())
    assert direct[0].startswith(ended)
    assert direct[:2] == usual[:2]
    assert usual[2] == 0


@linux
def test_connections_are_read_past_asyncio(monkeypatch):
    """Each read of a stream goes to the connection itself; under asyncio's own loop it does not."""
    monkeypatch.setattr(StampedSocket, "enable", _counted(StampedSocket.enable, counts := []))
    read = []
    monkeypatch.setattr(event_loop.BatchingSelector, "read_after", lambda _, gap_ns: read.append(gap_ns))

    async def main() -> None:
        transport, heard = FastTransport(), Heard()
        async with serving([ASK, _HEAD, 0.05, b"abc", 0.05, b"def"]) as server:
            await transport.exchange(HttpRequest("POST", server.url(), (), b"{}"), heard)
        await transport.aclose()

    event_loop.run(main)
    assert counts
    assert read
    assert max(read) > 30 * MS, "each is told the time since the read before it"


@linux
def test_connection_that_breaks_between_the_look_and_the_read_is_reset(monkeypatch):
    """The error is seen once, and by this read alone."""
    read_into, reads = StampedSocket.recv_into, []

    def breaks(self, *arguments: object) -> int:
        reads.append(1)
        if len(reads) == 2:
            raise ConnectionResetError(104, "Connection reset by peer")
        return read_into(self, *arguments)

    monkeypatch.setattr(StampedSocket, "recv_into", breaks)

    async def main() -> None:
        transport, heard = FastTransport(), Heard()
        async with serving([ASK, _HEAD, 0.05, b"abc", 0.05, b"def"]) as server:
            with pytest.raises(TransportError) as raised:
                await transport.exchange(HttpRequest("POST", server.url(), (), b"{}"), heard)
            assert raised.value.outcome is Outcome.RESET
            assert "reset" in raised.value.detail.lower()
        await transport.aclose()
        await asyncio.sleep(0.01)
        assert not asyncio.get_running_loop().batches.readers

    event_loop.run(main)


def _counted(method, counts: list[int]):
    def counting(self) -> None:
        counts.append(1)
        method(self)

    return counting


@linux
def test_timers_are_not_early_and_not_a_millisecond_late_by_rule():
    """What is left of a wait below a millisecond is awaited as it is; epoll alone would round it up."""

    async def main() -> list[float]:
        took = []
        for _ in range(40):
            began = time.perf_counter()
            await asyncio.sleep(0.0002)
            took.append(time.perf_counter() - began)
        return took

    took, usual = event_loop.run(main), asyncio.run(main())
    assert min(took) >= 0.0002
    # A quarter of them: on a busy machine some waits are over before either asks how much of them is left.
    assert sorted(took)[9] < sorted(usual)[9]


@linux
def test_timers_of_whole_milliseconds_wait_for_so_many(monkeypatch):
    """epoll takes whole ones, and rounds up: 9 * 0.001 s would be 10."""
    selector, waits = event_loop.BatchingSelector(), []
    with closing(selector), monkeypatch.context() as patch:
        patch.setattr(selector, "_selector", SimpleNamespace(poll=lambda wait_s, _: waits.append(wait_s) or []))
        patch.setattr(event_loop.select, "select", lambda *_: None)
        patch.setattr(selector, "fileno", lambda: 0)
        for microseconds in range(0, 100_000, 100):
            selector.select(microseconds / 1e6)
            assert math.ceil(round(waits.pop() * 1e9) / 1e6) == microseconds // 1000


@linux
def test_an_error_in_a_reader_does_not_end_the_loop(caplog):
    """It is reported, and the loop goes on with this socket."""

    async def main():
        loop = asyncio.get_running_loop()
        read, write = socket.socketpair()
        seen = asyncio.Event()
        with read, write:
            read.setblocking(False)
            loop.add_reader(read, seen.set)
            loop.batches.readers[read.fileno()] = lambda: 1 / 0
            write.send(b"x")
            await asyncio.wait_for(seen.wait(), 30)
            loop.remove_reader(read)
            del loop.batches.readers[read.fileno()]

    event_loop.run(main)
    assert "ZeroDivisionError" in caplog.text
