"""Continuous batching: the engine inside the simulated server. Tokens are only counted here; `sim.chat` has the words.

One step of the engine, in this order:

    1. cancelled requests leave their slots
    2. if a request has just finished, the step stays open for `Profile.gather_ns`, for a user who sends the next one at
       once. That request has its first token a full prefill after it arrived, but the schedule goes on as if it had
       arrived at the start of the step: the turnaround time of the client is not the server's
    3. waiting requests are admitted first come, first served, while there is a free slot and KV memory for the prompt
       and all output tokens; a request that does not fit blocks those behind it. Each is prefilled alone, while all
       others wait, and gets its first token at the end of that. No more are admitted than slots were free at the start
       of the step, so that the running requests always continue in the end
    4. one decode step gives the next token to every running request; finished ones leave their slots at once

Time is computed, not measured: a step begins when the one before should have ended (or, after idle time, when the
request arrived), and every moment in it follows by addition. A timer that fires late delays its own tokens and nothing
after them. Without requests the engine waits for one, without a timer.
"""

from __future__ import annotations

import math
import random
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from loadbench.core.clock import Clock
    from loadbench.plan.sim_profile import Profile


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request in the engine. `deliver` is called with it once for each token, at the moment of the token."""

    prompt_tokens: int
    max_tokens: int
    arrived_ns: int
    deliver: Callable[[QueuedRequest], None] = field(repr=False)
    admitted_ns: int | None = None  # when its prefill began
    token_ns: int | None = None  # when its latest token was due by the schedule, not when the timer fired
    output_tokens: int = 0  # so far
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has all its tokens."""
        return self.output_tokens == self.max_tokens

    @property
    def kv_tokens(self) -> int:
        """The KV memory that it reserves while it runs, in tokens."""
        return self.prompt_tokens + self.max_tokens


@dataclass(slots=True)
class EngineCounts:
    """Totals since the start of the engine."""

    prompt_tokens: int = 0  # prefilled
    output_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    steps: int = 0


class BatchEngine:
    """Serves requests by the rules above. Used inside one event loop, while `stepping()` or `run()` lasts."""

    def __init__(self, profile: Profile, *, clock: Clock, seed: int = 0) -> None:
        self.profile = profile
        self.counts = EngineCounts()
        self._clock = clock
        self._rng = random.Random(f"{seed}/{profile.name}")
        # Of a lognormal with mean 1 and coefficient of variation c: σ² = ln(1 + c²), μ = −σ²/2.
        self._sigma = math.sqrt(math.log1p(profile.noise**2))
        self._queue: deque[QueuedRequest] = deque()
        self._batch: list[QueuedRequest] = []
        self._kv_tokens = 0
        self._step_ends_ns = clock.now_ns()
        self._freed_slot = False  # in the last step
        self._arrival: anyio.Event | None = None  # set by a request that arrives at an idle engine

    @property
    def running(self) -> int:
        """Requests in slots."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def kv_tokens(self) -> int:
        """KV memory reserved by the running requests, in tokens."""
        return self._kv_tokens

    def submit(self, prompt_tokens: int, max_tokens: int, *, deliver: Callable[[QueuedRequest], None]) -> QueuedRequest:
        """Queue a request, now. Raises `ValueError` if it could never run."""
        request = QueuedRequest(prompt_tokens, max_tokens, self._clock.now_ns(), deliver)
        if prompt_tokens < 1 or max_tokens < 1 or request.kv_tokens > self.profile.kv_tokens:
            raise ValueError(f"{prompt_tokens} + {max_tokens} tokens do not fit into {self.profile.kv_tokens}")
        self._queue.append(request)
        if self._arrival is not None:
            self._arrival.set()
        return request

    def cancel(self, request: QueuedRequest) -> None:
        """Deliver no more tokens: the request leaves the queue now, or its slot at the next step."""
        if request.finished or request.cancelled:
            return
        request.cancelled = True
        self.counts.cancelled += 1
        if request in self._queue:
            self._queue.remove(request)

    @asynccontextmanager
    async def stepping(self) -> AsyncIterator[None]:
        """Run while the context lasts; requests that are unfinished then are dropped."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            yield
            tasks.cancel_scope.cancel()

    async def run(self) -> None:
        """Run step by step, until cancelled."""
        while True:
            for request in [request for request in self._batch if request.cancelled]:
                self._leave(request)
            if self._batch or self._queue:
                await self._step()
            else:
                self._freed_slot = False
                self._arrival = anyio.Event()
                await self._arrival.wait()
                self._arrival = None

    async def _step(self) -> None:
        """Steps 2 to 4 of the rules; `at_ns` is the computed time so far."""
        profile = self.profile
        at_ns = self._step_ends_ns if self._batch else max(self._step_ends_ns, self._queue[0].arrived_ns)
        free_slots = profile.slots - len(self._batch)
        if self._freed_slot:
            self._freed_slot = False
            await self._sleep_until(at_ns + profile.gather_ns)

        # Admit and prefill.
        for _ in range(free_slots):
            if not self._queue or self._kv_tokens + self._queue[0].kv_tokens > profile.kv_tokens:
                break
            request = self._queue.popleft()
            self._kv_tokens += request.kv_tokens
            self._batch.append(request)
            prefill_ns = self._with_noise(profile.prefill_ns(request.prompt_tokens))
            request.admitted_ns = max(at_ns, request.arrived_ns)
            await self._sleep_until(request.admitted_ns + prefill_ns)
            self.counts.prompt_tokens += request.prompt_tokens
            self._deliver((request,), request.admitted_ns + prefill_ns)
            at_ns += prefill_ns

        # Decode.
        if self._batch:
            at_ns += self._with_noise(profile.decode_ns(len(self._batch)))
            await self._sleep_until(at_ns)
            self._deliver(tuple(self._batch), at_ns)
        self._step_ends_ns = at_ns
        self.counts.steps += 1

    def _deliver(self, requests: Sequence[QueuedRequest], at_ns: int) -> None:
        """One token to each request, all in this turn of the loop."""
        for request in requests:
            if request.cancelled:
                continue
            request.output_tokens += 1
            request.token_ns = at_ns
            self.counts.output_tokens += 1
            if request.finished:
                self._leave(request)
                self.counts.finished += 1
                self._freed_slot = True
            request.deliver(request)

    def _leave(self, request: QueuedRequest) -> None:
        self._batch.remove(request)
        self._kv_tokens -= request.kv_tokens

    def _with_noise(self, duration_ns: int) -> int:
        if not self._sigma:
            return duration_ns
        return max(1, round(duration_ns * self._rng.lognormvariate(-(self._sigma**2) / 2, self._sigma)))

    async def _sleep_until(self, when_ns: int) -> None:
        await self._clock.sleep_until(when_ns, anyio.Event())
