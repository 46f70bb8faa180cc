"""The least that pure Python can do: epoll, recvmsg into one buffer, llhttp, and the same parser as everyone.

No event loop but its own, no deadlines, no errors, no samples. It is the ceiling that a client with all of these is
held against. Linux only.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from heapq import heapify, heappop
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools

from loadbench.wire.openai import Api
from loadbench.wire.response_reader import ResponseReader
from tests.bench.candidates import exchange_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.sim.truth import Pace

_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@ll")
_BUFFER = memoryview(bytearray(256 * 1024))
_BUFFERS = (_BUFFER,)


class EpollClient:
    """So many streams, each asking again as soon as it is answered, on connections of their own."""

    def __init__(self, url: str, pace: Pace, *, begins_ns: list[int]) -> None:
        exchange = exchange_for(url, pace)
        parts = urlsplit(exchange.url)
        head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: {len(exchange.body)}\r\n\r\n"
        request = head.encode() + exchange.body
        address = (parts.hostname or "", parts.port or 80)
        offset_ns = time.perf_counter_ns() - time.time_ns()
        self._streams = [_Stream(address, request, offset_ns) for _ in begins_ns]
        self._begins = [(begin_ns, number) for number, begin_ns in enumerate(begins_ns)]
        heapify(self._begins)
        self._epoll = select.epoll()
        self._reads: dict[int, Callable[[], None]] = {}
        for stream in self._streams:
            self._epoll.register(stream.sock.fileno(), select.EPOLLIN)
            self._reads[stream.sock.fileno()] = stream.read

    @property
    def answers(self) -> int:
        """Complete ones."""
        return sum(stream.answers for stream in self._streams)

    def events(self) -> int:
        """Events so far."""
        return sum(stream.done + len(stream.answer.event_ns) for stream in self._streams)

    def run_until(self, end_ns: int) -> None:
        """Begin what is due and read what comes, until then."""
        reads, poll = self._reads, self._epoll.poll
        while (now_ns := time.perf_counter_ns()) < end_ns:
            while self._begins and self._begins[0][0] <= now_ns:
                self._streams[heappop(self._begins)[1]].ask()
            for fd, _ in poll(0.001 if self._begins else 0.05):
                reads[fd]()


class _Stream:
    """One connection; llhttp calls back."""

    def __init__(self, address: tuple[str, int], request: bytes, offset_ns: int) -> None:
        self.answers = self.done = 0
        self.answer = ResponseReader(Api.CHAT)
        self.sock = socket.create_connection(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.sock.settimeout(0)
        self._recvmsg_into = self.sock.recvmsg_into
        self._request = request
        self._offset_ns = offset_ns
        self._at_ns = 0
        self._over = False
        self._feed = httptools.HttpResponseParser(self).feed_data

    def ask(self) -> None:
        self.done += len(self.answer.event_ns)
        self.answer = ResponseReader(Api.CHAT)
        self.sock.send(self._request)

    def read(self) -> None:
        count, control, _, _ = self._recvmsg_into(_BUFFERS, 64)
        if not count:
            raise RuntimeError("the server hung up")
        seconds, ns = _TIMESPEC.unpack_from(control[0][2])
        self._at_ns = seconds * 1_000_000_000 + ns + self._offset_ns
        self._feed(_BUFFER[:count])
        if self._over:
            self._over = False
            self.answers += 1
            self.ask()

    def on_body(self, body: bytes) -> None:
        self.answer.feed(self._at_ns, body)

    def on_message_complete(self) -> None:
        self._over = True
