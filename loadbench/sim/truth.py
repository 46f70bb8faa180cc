"""The truth server: streams at the requested pace, and each event contains the time at which it was sent.

`python -m loadbench.sim.truth --port 0`; it starts and ends like `loadbench.sim`. The prompt sets the pace, as in
`ttft=50ms gap=20ms events=64 per_write=1`; these are the defaults of what it omits. The first event also has the time
at which the last byte of the request arrived, by the kernel's stamp if there is one: this server's delay in reading it
is no error of the client. Both are times of `time.perf_counter_ns`, one clock for all processes of a machine, so a
client's stamps can be compared with them: the difference is the client's error. Each event is its own HTTP chunk, as
from servers that flush after each event, even if several are in one write.

The stamps are the *text* of the events, with a fixed number of digits. So the events differ only in their text, like
those of many servers, and the client reads them the same way. With `padded=1` each has a changing padding too, with
`numbered=1` its number, like the events of other servers, and the client must look into it.

With `--record FILE` it writes the same times of every response to a file as it ends: so clients that do not keep the
texts, such as other load testers, can be compared with them (`read_record`).

It is one thread with its own loop: asyncio's timers end at whole milliseconds, and a quiet stream's events were late by
0.8 ms (p50), while with this loop they are late by 0.1 ms, at the same CPU per event. The schedule is absolute: an
event is due at `arrived + ttft + n * gap`, whenever those before it were sent. It is late by `t_ns - due`, which the
client can compute; that is no error, because the stamp is taken at the write.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import select
import selectors
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from heapq import heappop, heappush, heapreplace
from itertools import count
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from loadbench.client.stamping import KERNEL, StampedSocket, Stamper, stamp_source
from loadbench.core.children import end_with_parent
from loadbench.core.errors import CANNOT_LISTEN, BadInput, why_not_listening
from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.sim.process import listening_url, say_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BACKLOG = 4096
_BUFFER = memoryview(bytearray(64 * 1024))
# Writes between two checks for new requests, which wait no longer for their arrival stamp than these writes take.
_TURN = 8
# Windows ends a wait at a tick of its clock, every 15.6 ms at worst: there the last tick is waited for in a busy loop.
_TICK_NS = 16_000_000 if sys.platform == "win32" else 0

_SETTING = re.compile(rb"\b(ttft|gap|events|per_write|padded|numbered)=([0-9.a-z]+)")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STAMPS = re.compile(rb"\bt_ns=(\d+)")
_ARRIVED = re.compile(rb"\barrived_ns=(\d+)")

_FIELDS = b'{"id":"chatcmpl-truth","object":"chat.completion.chunk","created":0,"model":"truth",'
_EVENT = b"data: " + _FIELDS + b'"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
_FINISH = b"data: " + _FIELDS + b'"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}\n\n'
_USAGE = b'"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\n'
_DONE = b"data: [DONE]\n\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
_RESPONSE = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_MODELS = b'{"object":"list","data":[{"id":"truth","object":"model","created":0,"owned_by":"loadbench"}]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The pace of a stream: the first write after `ttft_ns`, then one every `gap_ns`, with `per_write` events each."""

    ttft_ns: int = 50_000_000
    gap_ns: int = 20_000_000
    events: int = 64
    per_write: int = 1
    padded: bool = False
    numbered: bool = False

    @property
    def prompt(self) -> str:
        """The prompt that requests this pace."""
        ttft, gap = format_duration(self.ttft_ns), format_duration(self.gap_ns)
        forms = "".join(f" {form}=1" for form in ("padded", "numbered") if getattr(self, form))
        return f"ttft={ttft} gap={gap} events={self.events} per_write={self.per_write}{forms}"

    def due_ns(self, event: int) -> int:
        """When an event is due, in ns after the arrival of the request; events count from 0."""
        return self.ttft_ns + event // self.per_write * self.gap_ns


@lru_cache(maxsize=1024)
def read_pace(body: bytes) -> Pace:
    """The pace that a request sets; raises `ValueError` if it is impossible."""
    settings = {name.decode(): value.decode() for name, value in _SETTING.findall(body)}
    times = {f"{name}_ns": parse_duration(settings[name]) for name in ("ttft", "gap") if name in settings}
    counts = {name: int(settings[name]) for name in ("events", "per_write") if name in settings}
    if min(counts.values(), default=1) < 1:
        raise ValueError("events and per_write must be 1 or more")
    return Pace(**times, **counts, padded=settings.get("padded") == "1", numbered=settings.get("numbered") == "1")


def read_true_times(body: bytes) -> tuple[int, list[int]]:
    """(when the request arrived, when each event was sent) from the bytes of a response, in ns of `perf_counter_ns`.

    Raises `ValueError` for a body that is not from this server.
    """
    arrived = _ARRIVED.search(body)
    if arrived is None:
        raise ValueError("not a response of the truth server")
    return int(arrived[1]), [int(stamp) for stamp in _STAMPS.findall(body)]


class ServedResponse(NamedTuple):
    """A response as the server saw it: when its request arrived, when it wrote events, how many in each write."""

    arrived_ns: int
    per_write: int
    written_ns: list[int]


def read_record(path: Path) -> list[ServedResponse]:
    """The file of `--record`: the responses that were begun, in the order of their requests' arrival."""
    return sorted(ServedResponse(*row) for row in json.loads(path.read_bytes()))


# The server.


class TruthServer:
    """Listens from the start; `run` serves until `end` is called. Raises `BadInput` if it cannot listen."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, record: Path | None = None) -> None:
        self._streams: list[_Stream] | None = None if record is None else []
        self._record = record
        self._selector = selectors.DefaultSelector()
        self._stamper = Stamper()
        self._due: list[tuple[int, int, _Stream]] = []
        self._numbers = count()
        self._ended = False
        self._listener = _listen(host, port)
        self._waker, self._wakes = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakes, selectors.EVENT_READ, lambda _: None)

    @property
    def url(self) -> str:
        """The URL where it listens, with no path."""
        return listening_url(self._listener)

    def end(self) -> None:
        """Stop serving; may be called from a signal handler or another thread."""
        self._ended = True
        with suppress(OSError):  # already closed
            self._waker.send(b"\0")

    def run(self) -> None:
        """Serve, and close every socket at the end."""
        try:
            while not self._ended:
                for key, mask in self._ready():
                    key.data(mask)
                self._send_due()
        finally:
            for key in tuple(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # only sockets are registered
            self._waker.close()
            self._selector.close()
            if self._record is not None:
                self._record.write_text(json.dumps([stream.served for stream in self._streams or ()]), encoding="utf-8")

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until a socket is ready or the next event is due; returns the ready sockets."""
        if not self._due:
            return self._selector.select()
        ahead_ns = self._due[0][0] - perf_counter_ns()
        if sys.platform == "linux" and ahead_ns > 0:
            # epoll's timeout has whole milliseconds, that of select has µs.
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
        if self._streams is not None:
            self._streams.append(stream)
        heappush(self._due, (stream.due_ns, next(self._numbers), stream))

    def _accept(self, _mask: int) -> None:
        with suppress(OSError):  # the client has gone, or there are too many open files: the next call tries again
            sock, _ = self._listener.accept()
            if stamp_source() == KERNEL:
                sock = StampedSocket(fileno=sock.detach())
                sock.enable()
            _Connection(sock, self._selector, stamper=self._stamper, begin=self.begin)


class _Connection:
    """One connection, with one request at a time."""

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
        head, blank_line, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank_line and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._respond(head, body, arrived_ns)

    def _respond(self, head: bytes, body: bytes, arrived_ns: int) -> None:
        if head.startswith(b"GET /v1/models "):
            self.write(_response(b"200 OK", _MODELS))
            return
        if not head.startswith(b"POST /v1/chat/completions "):
            self.write(
                _response(b"404 Not Found", b'{"error":{"message":"only models and chat completions are here"}}')
            )
            return
        try:
            pace = read_pace(body)
        except ValueError as error:
            self.write(_response(b"400 Bad Request", b'{"error":{"message":"%b"}}' % str(error).encode()))
            return
        if pace.ttft_ns:
            self.write(_HEAD)
        self._begin(_Stream(self, pace, arrived_ns))

    def write(self, data: bytes) -> None:
        """Write to the socket; bytes that it does not take, because the client does not read, wait here."""
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
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._sock, events, self._on_ready)

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._sock)
            self._sock.close()


class _Stream:
    """One response that is being streamed."""

    __slots__ = ("_arrived_ns", "_connection", "_pace", "_sent", "_written_ns", "due_ns")

    def __init__(self, connection: _Connection, pace: Pace, arrived_ns: int) -> None:
        self._connection = connection
        self._pace = pace
        self._arrived_ns = arrived_ns
        self._sent = 0
        self._written_ns: list[int] = []
        self.due_ns = arrived_ns + pace.ttft_ns

    @property
    def served(self) -> ServedResponse:
        """What was written."""
        return ServedResponse(self._arrived_ns, self._pace.per_write, self._written_ns)

    def send(self) -> int | None:
        """Write the due events, stamped; returns when the next are due, `None` after the last or a disconnect."""
        if self._connection.closed:
            return None
        pace = self._pace
        first, last = self._sent == 0, self._sent + pace.per_write >= pace.events
        if not first and not last:
            # The usual case: only the digits are new.
            frame = _middle(pace.per_write, padded=pace.padded, numbered=pace.numbered)
        else:
            frame = self._edge(first=first, last=last)
        if pace.numbered:
            # As many digits for each, so that the frame's length is known.
            frame %= tuple(range(_FIRST_NUMBER + self._sent, _FIRST_NUMBER + self._sent + frame.count(b"%d")))
        now_ns = perf_counter_ns()
        self._written_ns.append(now_ns)
        self._connection.write(frame.replace(_BLANK, b"%019d" % now_ns))
        self._sent += pace.per_write
        self.due_ns += pace.gap_ns
        return None if last else self.due_ns

    def _edge(self, *, first: bool, last: bool) -> bytes:
        """The first write, which has the arrival of the request, or the last, which ends the response."""
        pace = self._pace
        event = partial(_event, padded=pace.padded, numbered=pace.numbered)
        events = [event(b"t_ns=" + _BLANK + b" ")] * min(pace.per_write, pace.events - self._sent)
        if first:
            events[0] = event(b"arrived_ns=%019d t_ns=%b " % (self._arrived_ns, _BLANK))
        frame = b"".join(map(_chunk, events)) + (_chunk(_end(pace.events)) + b"0\r\n\r\n" if last else b"")
        return _HEAD + frame if first and not pace.ttft_ns else frame  # what is due at once is one write


# The place of the stamp in the frames; it occurs nowhere else in them, and neither does that of the number, `%d`.
_BLANK = b"#" * 19
_FIRST_NUMBER = 1_000_000


@lru_cache
def _middle(events: int, *, padded: bool, numbered: bool) -> bytes:
    return _chunk(_event(b"t_ns=" + _BLANK + b" ", padded=padded, numbered=numbered)) * events


def _event(text: bytes, *, padded: bool, numbered: bool) -> bytes:
    more = (b',"obfuscation":"%b"' % _BLANK if padded else b"") + (b',"seq":%d' if numbered else b"")
    return (_EVENT % text).removesuffix(b"}\n\n") + more + b"}\n\n"


@lru_cache
def _end(events: int) -> bytes:
    return _FINISH + b"data: " + _FIELDS + _USAGE % (events, events + 1) + _DONE


def _chunk(data: bytes) -> bytes:
    size = len(data) + data.count(b"%d") * (len(str(_FIRST_NUMBER)) - len("%d"))
    return b"%x\r\n%b\r\n" % (size, data)


def _response(status: bytes, body: bytes) -> bytes:
    return _RESPONSE % (status, len(body), body)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except CANNOT_LISTEN as error:
        raise BadInput(
            f"cannot listen on {host}:{port}: {why_not_listening(error)}", hint="--port 0 takes any free port"
        ) from None
    listener.settimeout(0)
    return listener


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal or the end of standard input; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.sim.truth", description="The truth server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the times of every response to it at the end"
    )
    options = parser.parse_args(arguments)
    try:
        server = TruthServer(host=options.host, port=options.port, record=options.record)
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    # There are no reference cycles here, and a garbage collection would only make a stream late.
    gc.collect()
    gc.disable()
    end_with_parent(server.end)
    say_ready(server.url)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
