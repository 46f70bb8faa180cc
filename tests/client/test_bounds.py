"""What a server sends without end: each part of a response has a bound, and what is beyond it ends the request.

The servers are threads with plain sockets; loadbench is a process of its own where its memory counts.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.fast_transport import FastTransport
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.units import NS_PER_S
from loadbench.plan.load import DRAIN_NS
from loadbench.record.outcome import Outcome
from tests.cli.running import LIMIT_S, started
from tests.client.server import DONE, END, FINISH, token

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_CHUNKED = _OK + b"transfer-encoding: chunked\r\n\r\n"
_BLOCK = 65_536
# Ctrl-C that is not heard leaves a level of 80 s to go on, and a run that waits for responses drains for three times
# this. Where nothing else runs, a run ends in about a second.
_SOON_S = DRAIN_NS / NS_PER_S / 3


def _times(data: bytes) -> bytes:
    return data * (_BLOCK // len(data))


def _chunks(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# By its name: what a server sends first, what it sends again and again, and how the request ends.
ENDLESS: dict[str, tuple[bytes, bytes, Outcome]] = {
    "tokens": (_OK + b"\r\n", _times(token()), Outcome.ENDLESS),
    "tokens in chunks": (_CHUNKED, _chunks(_times(token())), Outcome.ENDLESS),
    "tokens that differ": (_OK + b"\r\n", _times(token() + token("\\u00e4")), Outcome.ENDLESS),
    "keep-alives": (_OK + b"\r\n", _times(b": ping\n\n"), Outcome.ENDLESS),
    "empty lines": (_OK + b"\r\n", b"\n" * _BLOCK, Outcome.ENDLESS),
    "frames without text": (_OK + b"\r\n", _times(b'data: {"choices":[]}\n\n'), Outcome.ENDLESS),
    "events that are no JSON": (_OK + b"\r\n", _times(b"data: {x\n\n"), Outcome.PROTOCOL),
    "unknown lines": (_OK + b"\r\n", _times(b"what is this\n"), Outcome.ENDLESS),
    "a line": (_OK + b"\r\ndata: ", b"x" * _BLOCK, Outcome.PROTOCOL),
    "a line of JSON": (_OK + b'\r\ndata: {"choices":[', _times(b"[],{},"), Outcome.PROTOCOL),
    "many lists": (
        _OK + b"\r\n",
        b'data: {"choices":[{"delta":{"content":"x","y":[' + b"[]," * 690_000 + b"0]}}]}\n\n",
        Outcome.ENDLESS,
    ),
    "lines of an event": (_OK + b"\r\n", _times(b"data: x\n"), Outcome.PROTOCOL),
    "a page": (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>", _times(b"<title "), Outcome.PROTOCOL),
    "blanks": (b"HTTP/1.1 200 OK\r\n\r\n", b" " * _BLOCK, Outcome.PROTOCOL),
    "JSON": (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[", _times(b"[],"), Outcome.PROTOCOL),
    "an error page": (b"HTTP/1.1 500 Oops\r\n\r\n<html>", _times(b"<title "), Outcome.HTTP_ERROR),
    "a redirect": (b"HTTP/1.1 307 Moved\r\nlocation: /x\r\n\r\n", b"x" * _BLOCK, Outcome.HTTP_ERROR),
    "headers": (b"HTTP/1.1 200 OK\r\n", _times(b"a: b\r\n"), Outcome.PROTOCOL),
    "set-cookie": (b"HTTP/1.1 200 OK\r\n", _times(b"set-cookie: a=b\r\n"), Outcome.PROTOCOL),
    "one header": (b"HTTP/1.1 200 OK\r\na: ", b"b" * _BLOCK, Outcome.PROTOCOL),
    "interim responses": (b"", _times(b"HTTP/1.1 100 Continue\r\n\r\n"), Outcome.PROTOCOL),
    "trailers": (_CHUNKED + _chunks(token()) + b"0\r\n", _times(b"a: b\r\n"), Outcome.PROTOCOL),
    "one trailer": (_CHUNKED + _chunks(token()) + b"0\r\na: ", b"b" * _BLOCK, Outcome.PROTOCOL),
    "a chunk's extension": (_CHUNKED + b"1;a=", b"b" * _BLOCK, Outcome.PROTOCOL),
}


_httpx = partial(HttpxTransport, MonotonicClock())


@contextmanager
def sending(first: bytes, again: bytes, *, good: int = 0, pause_s: float = 0.0) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server that sends `first` and then `again` for ever; the list has the bytes of each response.

    So many of its first responses are good.
    """
    listed = b'{"data":[{"id":"m"}]}'
    plain = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(listed), listed)
    sent: list[int] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(30)
            while request := connection.recv(1 << 20):
                if request.startswith(b"GET"):
                    connection.sendall(plain)
                    continue
                place = len(sent)
                sent.append(0)
                if place < good:
                    connection.sendall(_CHUNKED + _chunks(token() + FINISH + DONE) + END)
                    continue
                for data in chain([first], repeat(again)):
                    connection.sendall(data)
                    sent[place] += len(data)
                    time.sleep(pause_s)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", sent
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


# The other transport has parsers of its own: what it bounds, and what the client above both does.
_BOTH = ("tokens", "a line", "an error page", "one header", "trailers", "a chunk's extension")
_CASES = [*((name, FastTransport) for name in ENDLESS), *((name, _httpx) for name in _BOTH)]


@pytest.mark.parametrize(("name", "transport"), _CASES)
def test_response_without_end_is_ended(name, transport):
    """It ends by its length and not by a time limit, with an outcome that says what it was.

    Seen to fail before: trailers and extensions filled the memory, tokens were read for ten minutes.
    """
    first, again, outcome = ENDLESS[name]

    async def ask(url: str):
        clock = MonotonicClock()
        used = transport()
        endpoint = Endpoint(base_url=url, model="m")
        # As long as the limits that are usual are these for a body that has no end.
        timeouts = Timeouts(first_token_ns=600 * NS_PER_S, idle_ns=600 * NS_PER_S, total_ns=600 * NS_PER_S)
        client = Client(endpoint, used, clock=clock, timeouts=timeouts)
        try:
            async with asyncio.timeout(LIMIT_S):
                return await client.send_prompt("Hi", max_tokens=16)
        finally:
            await used.aclose()

    with sending(first, again) as (url, sent):
        sample = asyncio.run(ask(url))
    assert sample.outcome is outcome, sample.detail
    assert len(sample.event_ns) <= 1024
    assert sent[0] < 100 << 20
    assert len(sample.detail) < 1000


def test_interim_responses_end_by_time_where_httpx_passes_them_over():
    """httpcore shows nobody the interim responses: the limit until the first token is what ends them."""

    async def ask(url: str):
        clock, used = MonotonicClock(), _httpx()
        timeouts = Timeouts(first_token_ns=NS_PER_S // 2)
        try:
            async with asyncio.timeout(LIMIT_S):
                endpoint = Endpoint(base_url=url, model="m")
                return await Client(endpoint, used, clock=clock, timeouts=timeouts).send_prompt("Hi", max_tokens=16)
        finally:
            await used.aclose()

    with sending(*ENDLESS["interim responses"][:2]) as (url, sent):
        sample = asyncio.run(ask(url))
    assert (sample.outcome, sent[0] > 0) == (Outcome.TIMEOUT_FIRST_TOKEN, True)


def test_a_long_response_is_none_without_end():
    """One that is many times longer than requested, and ends, is read; a request for more may have more."""
    long = _OK + b"content-length: %d\r\n\r\n" % (60_000 * len(token()) + len(b"data: [DONE]\n\n"))

    async def ask(url: str, tokens: int):
        used = FastTransport()
        client = Client(Endpoint(base_url=url, model="m"), used, clock=MonotonicClock(), timeouts=Timeouts())
        try:
            return await client.send_prompt("Hi", max_tokens=tokens)
        finally:
            await used.aclose()

    with sending(long + token() * 60_000 + b"data: [DONE]\n\n", b"") as (url, _):
        sample = asyncio.run(ask(url, 16))
    assert (sample.outcome, len(sample.event_ns)) == (Outcome.OK, 60_000), sample.detail
    with sending(_OK + b"\r\n", _times(token())) as (url, _):
        sample = asyncio.run(ask(url, 10_000))
    assert sample.outcome is Outcome.ENDLESS
    assert 16 * 10_000 < (sample.output_tokens or 0) <= 16 * 10_000 + 65_536


def _waited_s(process: subprocess.Popen[str]) -> float:
    """Seconds for which a process could have run, but other programs had the processors; 0 where nobody counts them."""
    try:
        return int(Path(f"/proc/{process.pid}/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
    except OSError:
        return 0.0


def _pressed(process: subprocess.Popen[str]) -> float:
    """Press Ctrl-C; the seconds until the process has ended, without those in which others had the processors."""
    pressed_s, waited_s = time.monotonic(), _waited_s(process)
    last_s = waited_s
    process.send_signal(signal.SIGINT)
    while process.poll() is None and time.monotonic() < pressed_s + LIMIT_S:
        last_s = max(last_s, _waited_s(process))
        time.sleep(0.005)
    return time.monotonic() - pressed_s - (last_s - waited_s)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize(
    ("name", "most_responses", "most_mb"),
    [
        *((name, 20, 150) for name in ("tokens", "trailers", "a line of JSON", "an error page", "JSON", "many lists")),
        # Nothing of a connection that ended may wait for the garbage collector: 300 took 180 and 220 MB.
        *((name, 300, 100) for name in ("one header", "set-cookie")),
    ],
)
def test_sweep_against_it_takes_little_memory_and_ends_at_ctrl_c(name, most_responses, most_mb, tmp_path):
    """Four users at once: memory stays bounded, the log small, and Ctrl-C ends the run soon."""
    first, again, outcome = ENDLESS[name]
    most, log = 0, tmp_path / "out"
    with sending(first, again, good=1) as (url, sent):
        flags = ["--model=m", "--users=4", "--duration=80s", "--warm-up=0s", f"--out={log}", "--prompt=Hi"]
        process = started("sweep", f"--url={url}", *flags, cwd=tmp_path)
        watched, ends_s = psutil.Process(process.pid), time.monotonic() + LIMIT_S
        # The first responses before the level, and several of each user.
        while process.poll() is None and len(sent) < most_responses and time.monotonic() < ends_s:
            with suppress(psutil.Error):
                most = max(most, watched.memory_info().rss)
            time.sleep(0.01)
        took_s = _pressed(process)
        said, errors = process.communicate(timeout=LIMIT_S)
    assert "Traceback" not in said + errors
    assert most < most_mb * 1e6
    assert took_s < _SOON_S
    lines = [len(line) for file in log.rglob("requests.jsonl") for line in file.read_bytes().split(b"\n")]
    assert max(lines, default=0) < 50_000
    assert outcome in said + errors


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_ctrl_c_does_not_wait_for_a_response_that_goes_on(tmp_path):
    """The first is answered in words, while responses are drained; the second ends them."""
    # Two before the level are answered, and then each user has one that goes on.
    with sending(_OK + b"\r\n", token(), good=2, pause_s=0.05) as (url, sent):
        flags = ["--model=m", "--users=4", "--duration=80s", "--warm-up=0s", "--prompt=Hi"]
        process = started("sweep", f"--url={url}", *flags, cwd=tmp_path)
        ends_s = time.monotonic() + LIMIT_S
        while process.poll() is None and len(sent) < 6 and time.monotonic() < ends_s:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        line = ""
        while "interrupted" not in line and (line := process.stderr.readline()):
            pass
        assert "press Ctrl-C again" in line
        assert process.poll() is None
        took_s = _pressed(process)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, "Traceback" in errors) == (130, False)
    assert took_s < _SOON_S
