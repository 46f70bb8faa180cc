"""A client without a server: when a response comes is a function of the request's number alone.

So one process and any number of workers record the same, to the nanosecond, from the moment when a level begins.
"""

from __future__ import annotations

import asyncio
from array import array

import anyio

from loadbench.engine.level import Level
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.request import ONLY_DESTINATION
from loadbench.record.sample import Sample

MS = 1_000_000
# With this limit of tokens the server stops after so many requests.
STOPPING, STOPS_AFTER = 9, 70
# With this one the response to request 1 takes much longer than the others.
SLOW, SLOW_MS = 10, 4_000
# A busy machine keeps no process waiting for so long.
LATE_S = 20.0


class _DueSink:
    """Passes on to a recorder, or to what reports to one, each request as it starts and ends."""

    def __init__(self, sink):
        self._sink = sink

    def started(self, _, request):
        """It started when it was due."""
        self._sink.started(request.due_ns, request)

    def __getattr__(self, name):
        return getattr(self._sink, name)


class _SeenLate:
    """An event that is seen later, when also a process that is late has done what was due before it."""

    def __init__(self):
        self._event = anyio.Event()

    def set(self):
        """Set it, later."""
        asyncio.get_running_loop().call_later(LATE_S, self._event.set)

    def __getattr__(self, name):
        return getattr(self._event, name)


class NumberedLevel(Level):
    """A level whose requests start when they are due, by what is recorded, however late this process is: none is left
    out because the load has ended meanwhile. Users, and arrivals, end at the first that is due after that end."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self._sink, self._over = _DueSink(self._sink), _SeenLate()


class NumberedClient:
    """As `loadbench.client.client.Client`, for a level."""

    destinations = (ONLY_DESTINATION,)
    tokens_seen = 0

    def __init__(self, clock):
        self._clock = clock
        self._cut = anyio.Event()

    def body_of(self, *_, **__):
        """Nothing is sent."""
        return b""

    def cut(self, _outcome):
        """Responses that have not ended end now."""
        self._cut.set()

    async def send(self, request, _body):
        """The response of this number: at its time, and with its marks, however late this process is."""
        number, due_ns, patience = request.number, request.due_ns, request.patience
        # No two users have a moment in common, whose order would be that of the reports.
        first_ns = due_ns + (20 + 7 * (number % 11)) * MS + number * 1_009
        events = array("q", [first_ns + n * (2 + number % 5) * MS for n in range(3 + number % 4)])
        if request.max_tokens == SLOW and number == 1:
            events[-1] += SLOW_MS * MS
        outcome, end_ns = Outcome.OK, events[-1]
        if request.max_tokens == STOPPING and number >= STOPS_AFTER:
            outcome, events, end_ns = Outcome.REFUSED, events[:0], due_ns + MS + number * 1_009
        elif number % 17 == 16:
            outcome = Outcome.HTTP_ERROR
        elif number % 23 == 22:
            outcome, end_ns = Outcome.TIMEOUT_IDLE, events[-1] + 50 * MS
        elif patience is not None and (first_ns if patience.first_token else end_ns) > due_ns + patience.within_ns:
            outcome, end_ns = Outcome.GAVE_UP, due_ns + patience.within_ns
            events = array("q", [at_ns for at_ns in events if at_ns < end_ns])
        await self._clock.sleep_until(end_ns, self._cut)
        first_ns, last_ns = (events[0], events[-1]) if events else (None, None)
        return Sample(
            request=request,
            outcome=outcome,
            detail="" if outcome is Outcome.OK else f"request {number}",
            sent_ns=None if outcome is Outcome.REFUSED else due_ns,
            reused=number > 50,
            headers_ns=first_ns,
            first_byte_ns=first_ns,
            first_token_ns=first_ns,
            first_visible_ns=first_ns,
            last_token_ns=last_ns,
            end_ns=end_ns,
            event_ns=events,
            event_tokens=array("q", [1] * len(events)),
            reads=len(events),
            output_tokens=len(events),
            token_source=TokenSource.USAGE,
            input_tokens=10 + number % 3,
            cached_tokens=40 * (number % 2),
            finish_reason=("stop", "length")[number % 2],
            model="m",
            text="so" if request.keep_text else None,
        )
