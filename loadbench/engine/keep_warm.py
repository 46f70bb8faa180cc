"""Keeping a model warm: a light request whenever nothing has been sent for a while.

Some servers unload a model that is idle, or let its machine sleep, and make the next user pay for it. A light request
from time to time prevents that. It is for one token, is sent only while no other request is in flight, and is in no
figure. How many there were is reported with the model, since they are load too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock

PROMPT = "Hi"
_TOKENS = 1


class KeepWarm:
    """Sends a request to one model, or to each of a mix and at each server, whenever nothing has been sent for
    `every_ns`; `busy`: others are in flight."""

    def __init__(self, client: Client, clock: Clock, *, every_ns: int, busy: Callable[[], bool]) -> None:
        self.sent = 0
        self.failed = 0
        self._client = client
        self._clock = clock
        self._every_ns = every_ns
        self._busy = busy
        self._quiet_since_ns = clock.now_ns()

    def ended(self, at_ns: int) -> None:
        """Another request ended then: the model was warm."""
        self._quiet_since_ns = max(self._quiet_since_ns, at_ns)

    async def keep(self) -> None:
        """Keep the model warm until cancelled; a request in flight then is cut."""
        never = anyio.Event()
        while True:
            due_ns = self._quiet_since_ns + self._every_ns
            if self._clock.now_ns() < due_ns:
                await self._clock.sleep_until(due_ns, never)
                continue
            for destination in () if self._busy() else self._client.destinations:
                self.sent += 1
                sample = await self._client.send_prompt(PROMPT, max_tokens=_TOKENS, destination=destination)
                self.failed += sample.outcome.failed
            self._quiet_since_ns = self._clock.now_ns()
