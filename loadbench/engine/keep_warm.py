"""Keeping a model warm: a light prompt whenever nothing has been asked for a while.

Some servers let go of a model that is idle, or let its machine sleep, and make the next user pay for it. A light prompt
from time to time prevents that; it asks for one token, goes only while no request is in flight, and is in no figure.
How many there were is told with the model: they are load too.
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
    """Asks one model every `every_ns` in which nobody else did. `busy` says whether somebody's request is in flight."""

    def __init__(self, client: Client, clock: Clock, *, every_ns: int, busy: Callable[[], bool]) -> None:
        self.asked = 0
        self.failed = 0
        self._client = client
        self._clock = clock
        self._every_ns = every_ns
        self._busy = busy
        self._quiet_since_ns = clock.now_ns()

    def heard(self, at_ns: int) -> None:
        """Somebody's request ended then: the model was warm."""
        self._quiet_since_ns = max(self._quiet_since_ns, at_ns)

    async def keep(self) -> None:
        """Keep it warm until cancelled; a prompt under way then is cut."""
        never = anyio.Event()
        while True:
            due_ns = self._quiet_since_ns + self._every_ns
            if self._clock.now_ns() < due_ns:
                await self._clock.sleep_until(due_ns, never)
            elif self._busy():
                self._quiet_since_ns = self._clock.now_ns()
            else:
                await self._ask()

    async def _ask(self) -> None:
        self.asked += 1
        sample = await self._client.send_prompt(PROMPT, max_tokens=_TOKENS)
        self.failed += sample.outcome.failed
        self._quiet_since_ns = self._clock.now_ns()
