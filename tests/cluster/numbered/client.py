"""A client without a server: when a response comes is a function of the request's number alone.

So one process and any number of workers record the same, to the nanosecond, from the moment when a level begins.
"""

from __future__ import annotations

from array import array

import anyio

from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.request import ONLY_DESTINATION
from loadbench.record.sample import Sample

MS = 1_000_000


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
        number, due_ns = request.number, request.due_ns
        # No two users have a moment in common, whose order would be that of the reports.
        first_ns = due_ns + (20 + 7 * (number % 11)) * MS + number * 1_009
        events = array("q", [first_ns + n * (2 + number % 5) * MS for n in range(3 + number % 4)])
        await self._clock.sleep_until(events[-1], self._cut)
        failed = number % 17 == 16
        return Sample(
            request=request,
            outcome=Outcome.HTTP_ERROR if failed else Outcome.OK,
            sent_ns=due_ns,
            first_byte_ns=first_ns,
            first_token_ns=first_ns,
            first_visible_ns=first_ns,
            last_token_ns=events[-1],
            end_ns=events[-1],
            event_ns=events,
            event_tokens=array("q", [1] * len(events)),
            output_tokens=len(events),
            token_source=TokenSource.USAGE,
            input_tokens=10 + number % 3,
        )
