"""Responses that are simulated in the worker itself, where no core is free for a server.

They come as from a server that answers everybody at one pace, in segments of one event. As with a socket, what has
come when a worker gets to read is read at once, with the stamp of the last of it. Each read takes so much CPU time.
"""

from __future__ import annotations

import json
import time
from itertools import count

import anyio

from loadbench.client.stamping import KERNEL, StampStats
from loadbench.record.histogram import Histogram

MS = 1_000_000
FIRST_NS, GAP_NS, READ_NS = 300 * MS, 200 * MS, 1_600_000
_EVENT = b'data: {"id":"1","object":"chat.completion.chunk","created":0,"model":"sim-chat","choices":[%b]%b}\n\n'
_TEXT = b'{"index":0,"delta":{"content":" %05d"},"finish_reason":null}'
_FINISH = b'{"index":0,"delta":{},"finish_reason":"length"}'


class InsideTransport:
    """As `loadbench.client.fast_transport.FastTransport`, with as many connections as there are exchanges."""

    stamp_source = KERNEL

    def __init__(self) -> None:
        self._delays = Histogram()
        self._idle = 0

    def take_stamp_stats(self) -> StampStats:
        """The delays of the reads since the last call."""
        taken, self._delays = self._delays, Histogram()
        return StampStats(taken)

    async def exchange(self, request, sink) -> None:
        """Carry one exchange."""
        merged, events = 0, int(json.loads(request.body)["max_tokens"])
        sent_ns = time.perf_counter_ns()
        sink.connected(
            sent_ns, reused=self._idle > 0, connect_ns=None if self._idle else 0, merged_segments=lambda: merged
        )
        self._idle -= self._idle > 0
        sink.sent(sent_ns)
        usage = b',"usage":{"prompt_tokens":16,"completion_tokens":%d,"total_tokens":%d}' % (events, events + 16)
        texts = [_EVENT % (_TEXT % number, b"") for number in range(events)]
        texts[-1] += _EVENT % (_FINISH, b"") + _EVENT % (b"", usage) + b"data: [DONE]\n\n"
        came_ns = [sent_ns + FIRST_NS + number * GAP_NS for number in range(events)]
        for number in count():
            if not texts:
                break
            await anyio.sleep(max(0, came_ns[0] - time.perf_counter_ns()) / 1e9)
            until_ns = time.thread_time_ns() + READ_NS
            while time.thread_time_ns() < until_ns:
                pass
            now_ns = time.perf_counter_ns()
            read = sum(at_ns <= now_ns for at_ns in came_ns)
            merged += read - 1
            self._delays.record(now_ns - came_ns[read - 1])
            if number == 0:
                sink.headers(came_ns[0], 200, [(b"content-type", b"text/event-stream")])
            sink.data(came_ns[read - 1], b"".join(texts[:read]))
            del texts[:read], came_ns[:read]
        self._idle += 1

    async def aclose(self) -> None:
        """Nothing is open."""
