"""The truth server: it paces streams as it is told to, and each event says when it was sent.

`python -m loadbench.sim.truth --port 0`; begun and ended like `loadbench.sim`. The prompt says what is wanted, as in
`ttft=50ms gap=20ms events=64 per_write=1`; what it leaves out is as in this line. The first event also says when the
request's last byte arrived, by the kernel's stamp where there is one: how late this server reads it is no error of the
client's. Both are of `time.perf_counter_ns`, one clock for all processes of a machine, so that a client's stamps can be
held against them: what differs is the client's error. Each event is an HTTP chunk of its own, as of servers that flush
after each, even if several go in one write.

The stamps are the *text* of the events, in figures of fixed width: so these differ in nothing but their text, as those
of real servers, and the client reads them the way it reads those.

One thread and one loop of its own: asyncio's timers end at whole milliseconds, which made a quiet stream's events late
by 0.8 ms where this loop is by 0.1 (p50), at the same CPU per event. The schedule is absolute: an event is due at
`arrived + ttft + n * gap`, whenever those before it were sent. How late it was is `t_ns - due`, which the client can
work out; that is no error, for the stamp is taken at the write.
"""

from __future__ import annotations

import argparse
import gc
import re
import select
import selectors
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from heapq import heappop, heappush, heapreplace
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING

from loadbench.client.stamping import KERNEL, StampedSocket, Stamper, stamp_source
from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.sim.process import end_with_parent, say_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BACKLOG = 4096
_BUFFER = memoryview(bytearray(64 * 1024))
# Writes between two looks for new requests: one that waits for its arrival stamp waits no longer than these take.
_TURN = 8
# Windows ends a wait at a tick of its clock, every 15.6 ms at worst: there the rest is waited out awake.
_TICK_NS = 16_000_000 if sys.platform == "win32" else 0

_SETTING = re.compile(rb"\b(ttft|gap|events|per_write)=([0-9.a-z]+)")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STAMPS = re.compile(rb"\bt_ns=(\d+)")
_ARRIVED = re.compile(rb"\barrived_ns=(\d+)")

_ABOUT = b'{"id":"chatcmpl-truth","object":"chat.completion.chunk","created":0,"model":"truth",'
_EVENT = b"data: " + _ABOUT + b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
_FINISH = b"data: " + _ABOUT + b'"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
_USAGE = b'"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\n'
_DONE = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_WHOLE = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_MODELS = b'{"object":"list","data":[{"id":"truth","object":"model","created":0,"owned_by":"loadbench"}]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an answer shall come: the first write after `ttft_ns`, then one every `gap_ns` with `per_write` events."""

    ttft_ns: int = 50_000_000
    gap_ns: int = 20_000_000
    events: int = 64
    per_write: int = 1

    @property
    def prompt(self) -> str:
        """The prompt that asks for it."""
        ttft, gap = format_duration(self.ttft_ns), format_duration(self.gap_ns)
        return f"ttft={ttft} gap={gap} events={self.events} per_write={self.per_write}"

    def due_ns(self, event: int) -> int:
        """When an event is due, in ns after the request's arrival; events count from 0."""
        return self.ttft_ns + event // self.per_write * self.gap_ns


@lru_cache(maxsize=1024)
def read_pace(body: bytes) -> Pace:
    """What a request asks for; raises `ValueError` where it cannot be done."""
    asked = {name.decode(): value.decode() for name, value in _SETTING.findall(body)}
    times = {f"{name}_ns": parse_duration(asked[name]) for name in ("ttft", "gap") if name in asked}
    counts = {name: int(asked[name]) for name in ("events", "per_write") if name in asked}
    if min(counts.values(), default=1) < 1:
        raise ValueError("events and per_write are 1 or more")
    return Pace(**times, **counts)


def told(body: bytes) -> tuple[int, list[int]]:
    """(when the request had arrived, when each event was sent) by an answer's bytes, in ns of `perf_counter_ns`.

    Raises `ValueError` for what is no answer of this server.
    """
    arrived = _ARRIVED.search(body)
    if arrived is None:
        raise ValueError("no answer of the truth server")
    return int(arrived[1]), [int(stamp) for stamp in _STAMPS.findall(body)]


# The server.


class TruthServer:
    """Listens from the start; `run` serves until `end` is called. Raises `BadInput` where it cannot listen."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._selector = selectors.DefaultSelector()
        self._stamper = Stamper()
        self._due: list[tuple[int, int, _Stream]] = []
        self._numbers = count()
        self._over = False
        self._listener = _listen(host, port)
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakes, selectors.EVENT_READ, lambda _: None)

    @property
    def url(self) -> str:
        """Where it listens, with no path."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def end(self) -> None:
        """Stop serving; may be called from a signal handler or another thread."""
        self._over = True
        with suppress(OSError):  # it has ended already
            self._waker.send(b"\0")

    def run(self) -> None:
        """Serve; every socket is closed at the end."""
        try:
            while not self._over:
                for key, mask in self._ready():
                    key.data(mask)
                self._send_due()
        finally:
            for key in tuple(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # we register sockets alone
            self._waker.close()
            self._selector.close()

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """What can be read or written, waited for until the next event is due."""
        if not self._due:
            return self._selector.select()
        ahead_ns = self._due[0][0] - perf_counter_ns()
        if sys.platform == "linux" and ahead_ns > 0:
            # epoll's own time limit is in whole milliseconds, that of select is not.
            select.select([self._selector.fileno()], [], [], ahead_ns / NS_PER_S)
            ahead_ns = 0
        return self._selector.select(max(0, ahead_ns - _TICK_NS) / NS_PER_S)

    def _send_due(self) -> None:
        due = self._due
        for _ in range(_TURN):
            if not due or due[0][0] > perf_counter_ns():
                return
            _, number, stream = due[0]
            next_ns = stream.send()
            if next_ns is None:
                heappop(due)
            else:
                heapreplace(due, (next_ns, number, stream))

    def begin(self, stream: _Stream) -> None:
        """Send the stream's events as they become due."""
        heappush(self._due, (stream.due_ns, next(self._numbers), stream))

    def _accept(self, _mask: int) -> None:
        with suppress(OSError):  # who has gone away meanwhile, or one file too many: the next call tries again
            sock, _ = self._listener.accept()
            _Connection(_stamped(sock), self._selector, stamper=self._stamper, begin=self.begin)


class _Connection:
    """One connection, one request on it at a time."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        *,
        stamper: Stamper,
        begin: Callable[[_Stream], None],
    ) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self._sock = sock
        self._stamper = stamper
        self._selector = selector
        self._begin = begin
        self._received = b""
        self._unsent = b""
        selector.register(sock, selectors.EVENT_READ, self._on_ready)

    def _on_ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self.write(b"")
        if mask & selectors.EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = bytes(_BUFFER[: self._sock.recv_into(_BUFFER)])
        except BlockingIOError:
            return
        except OSError:
            data = b""
        arrived_ns = self._stamper.arrived(self._sock if isinstance(self._sock, StampedSocket) else None)
        if not data:
            self._close()
            return
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if found and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._answer(head, body, arrived_ns)

    def _answer(self, head: bytes, body: bytes, arrived_ns: int) -> None:
        if head.startswith(b"GET /v1/models "):
            self.write(_whole(b"200 OK", _MODELS))
            return
        if not head.startswith(b"POST /v1/chat/completions "):
            self.write(_whole(b"404 Not Found", b'{"error":{"message":"there are models and chat completions"}}'))
            return
        try:
            pace = read_pace(body)
        except ValueError as error:
            self.write(_whole(b"400 Bad Request", b'{"error":{"message":"%b"}}' % str(error).encode()))
            return
        if pace.ttft_ns:
            self.write(_HEAD)
        self._begin(_Stream(self, pace, arrived_ns))

    def write(self, data: bytes) -> None:
        """Hand it to the socket; what that does not take, because the client does not read, waits here."""
        data = self._unsent + data if self._unsent else data
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        if sent == len(data) and not self._unsent:
            return
        self._unsent = data[sent:]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._sock, wanted, self._on_ready)

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._sock)
            self._sock.close()


class _Stream:
    """One answer on its way."""

    __slots__ = ("_arrived_ns", "_connection", "_pace", "_sent", "due_ns")

    def __init__(self, connection: _Connection, pace: Pace, arrived_ns: int) -> None:
        self._connection = connection
        self._pace = pace
        self._arrived_ns = arrived_ns
        self._sent = 0
        self.due_ns = arrived_ns + pace.ttft_ns

    def send(self) -> int | None:
        """Write what is due, stamped; when the next is due, `None` after the last or if nobody listens any more."""
        if self._connection.closed:
            return None
        pace = self._pace
        first, last = self._sent == 0, self._sent + pace.per_write >= pace.events
        if not first and not last:
            # The usual case: nothing is made anew but the figures.
            frame = _middle(pace.per_write)
            self._connection.write(frame.replace(_BLANK, b"%019d" % perf_counter_ns()))
        else:
            self._connection.write(self._edge(first=first, last=last))
        self._sent += pace.per_write
        self.due_ns += pace.gap_ns
        return None if last else self.due_ns

    def _edge(self, *, first: bool, last: bool) -> bytes:
        """The first write, which says when the request came, or the last, which ends the answer."""
        pace = self._pace
        events = [_EVENT % (b"t_ns=" + _BLANK + b" ")] * min(pace.per_write, pace.events - self._sent)
        if first:
            events[0] = _EVENT % (b"arrived_ns=%019d t_ns=%b " % (self._arrived_ns, _BLANK))
        frame = b"".join(map(_chunk, events)) + (_chunk(_end(pace.events)) + b"0\r\n\r\n" if last else b"")
        if first and not pace.ttft_ns:
            frame = _HEAD + frame  # what is due at once goes in one write
        return frame.replace(_BLANK, b"%019d" % perf_counter_ns())


# Stands in the frames where the stamp goes, and nowhere else.
_BLANK = b"#" * 19


@lru_cache
def _middle(events: int) -> bytes:
    return _chunk(_EVENT % (b"t_ns=" + _BLANK + b" ")) * events


@lru_cache
def _end(events: int) -> bytes:
    return _FINISH + b"data: " + _ABOUT + _USAGE % (events, events + 1) + _DONE


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(status: bytes, body: bytes) -> bytes:
    return _WHOLE % (status, len(body), body)


def _stamped(sock: socket.socket) -> socket.socket:
    """The same connection, with the kernel's stamps if there are any."""
    if stamp_source() != KERNEL:
        return sock
    stamped = StampedSocket(fileno=sock.detach())
    stamped.enable()
    return stamped


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        raise BadInput(f"cannot listen on {host}:{port}: {error}", hint="--port 0 takes any free one") from None
    listener.settimeout(0)
    return listener


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.sim.truth", description="The truth server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    options = parser.parse_args(arguments)
    try:
        server = TruthServer(host=options.host, port=options.port)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    # Nothing here goes in circles; a collection would make a stream late for nothing.
    gc.collect()
    gc.disable()
    end_with_parent(server.end)
    say_ready(server.url)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
