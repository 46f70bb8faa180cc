"""Continuous batching: the engine inside the simulated server. Tokens are numbers here; words are `sim.chat`'s.

One step of the engine, in the order in which it happens:

    1. cancelled sequences leave their slots
    2. if an answer has just ended, the step stays open for `Profile.gather_ns`, for whoever asks again at once. Such a
       request has its first token a whole prefill after it came, but the schedule goes on as if it had come with the
       step: the time that a client needs to turn round is not the server's, and is charged to nobody
    3. waiting requests, first come first served, are admitted while there is a slot and KV memory for prompt and whole
       answer; the first that does not fit holds up those behind it. Each is prefilled alone, everybody else waiting,
       and gets its first token at the end of that. No more are admitted than slots were free as the step began, so
       that the running sequences are always served in the end
    4. one decode step gives the next token to every running sequence; those that are complete leave their slots at once

Time is computed, not measured: a step begins when the one before should have ended (or, after idleness, when the
request came), and everything in it has its moment by adding up. A timer that fires late delays what it delivers and
nothing after it. With no request the engine waits for one, without a timer.
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
    from loadbench.sim.profile import Profile


@dataclass(eq=False, slots=True)
class Job:
    """One request in the engine. `deliver` is called with it once for each token, as the token is made."""

    prompt_tokens: int
    max_tokens: int
    arrived_ns: int
    deliver: Callable[[Job], None] = field(repr=False)
    admitted_ns: int | None = None  # when its prefill began
    token_ns: int | None = None  # when its latest token was due: the schedule's moment, not the timer's
    made: int = 0  # tokens so far
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has all its tokens."""
        return self.made == self.max_tokens

    @property
    def kv_tokens(self) -> int:
        """The memory that it reserves while it runs."""
        return self.prompt_tokens + self.max_tokens


@dataclass(slots=True)
class Counts:
    """What the engine has done since it began."""

    prompt_tokens: int = 0  # prefilled
    output_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    steps: int = 0


class Engine:
    """Runs jobs by the rules above. Used inside one event loop, while `stepping()` or `run()` lasts."""

    def __init__(self, profile: Profile, *, clock: Clock, seed: int = 0) -> None:
        self.profile = profile
        self.counts = Counts()
        self._clock = clock
        self._rng = random.Random(f"{seed}/{profile.name}")
        # Of a lognormal with mean 1 and coefficient of variation c: σ² = ln(1 + c²), μ = −σ²/2.
        self._sigma = math.sqrt(math.log1p(profile.noise**2))
        self._queue: deque[Job] = deque()
        self._batch: list[Job] = []
        self._kv_tokens = 0
        self._ends_ns = clock.now_ns()
        self._freed = False
        self._asked: anyio.Event | None = None

    @property
    def running(self) -> int:
        """Sequences in slots."""
        return len(self._batch)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def kv_tokens(self) -> int:
        """Tokens of memory reserved by the running sequences."""
        return self._kv_tokens

    def submit(self, prompt_tokens: int, max_tokens: int, *, deliver: Callable[[Job], None]) -> Job:
        """Queue a request, now. Raises `ValueError` where it could never run."""
        job = Job(prompt_tokens, max_tokens, self._clock.now_ns(), deliver)
        if prompt_tokens < 1 or max_tokens < 1 or job.kv_tokens > self.profile.kv_tokens:
            raise ValueError(f"{prompt_tokens} + {max_tokens} tokens do not fit into {self.profile.kv_tokens}")
        self._queue.append(job)
        if self._asked is not None:
            self._asked.set()
        return job

    def cancel(self, job: Job) -> None:
        """No more tokens for this job: it leaves the queue now, or its slot at the next step. Nothing if it is done."""
        if job.finished or job.cancelled:
            return
        job.cancelled = True
        self.counts.cancelled += 1
        if job in self._queue:
            self._queue.remove(job)

    @asynccontextmanager
    async def stepping(self) -> AsyncIterator[None]:
        """Run while the context lasts; what is unfinished then is given up."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.run)
            yield
            tasks.cancel_scope.cancel()

    async def run(self) -> None:
        """Step by step, until cancelled."""
        while True:
            self._drop_cancelled()
            if not self._batch and not self._queue:
                await self._idle()
            else:
                await self._step()

    async def _idle(self) -> None:
        self._freed = False
        self._asked = anyio.Event()
        await self._asked.wait()
        self._asked = None

    async def _step(self) -> None:
        at_ns = self._ends_ns if self._batch else max(self._ends_ns, self._queue[0].arrived_ns)
        free = self.profile.slots - len(self._batch)
        if self._freed:
            self._freed = False
            await self._until(at_ns + self.profile.gather_ns)
        for _ in range(free):
            job = self._admit()
            if job is None:
                break
            at_ns = await self._prefill(job, at_ns)
        if self._batch:
            at_ns = await self._decode(at_ns)
        self._ends_ns = at_ns
        self.counts.steps += 1

    def _admit(self) -> Job | None:
        """The head of the queue, in a slot from now on; `None` where there is none or its memory is not free."""
        if not self._queue or self._kv_tokens + self._queue[0].kv_tokens > self.profile.kv_tokens:
            return None
        job = self._queue.popleft()
        self._kv_tokens += job.kv_tokens
        self._batch.append(job)
        return job

    async def _prefill(self, job: Job, at_ns: int) -> int:
        takes_ns = self._noisy(self.profile.prefill_ns(job.prompt_tokens))
        job.admitted_ns = max(at_ns, job.arrived_ns)
        await self._until(job.admitted_ns + takes_ns)
        self.counts.prompt_tokens += job.prompt_tokens
        self._give((job,), job.admitted_ns + takes_ns)
        return at_ns + takes_ns

    async def _decode(self, at_ns: int) -> int:
        ends_ns = at_ns + self._noisy(self.profile.decode_ns(len(self._batch)))
        await self._until(ends_ns)
        self._give(tuple(self._batch), ends_ns)
        return ends_ns

    def _give(self, jobs: Sequence[Job], at_ns: int) -> None:
        """One token to each, all in this one turn of the loop."""
        for job in jobs:
            if job.cancelled:
                continue
            job.made += 1
            job.token_ns = at_ns
            self.counts.output_tokens += 1
            if job.finished:
                self._leave(job)
                self.counts.finished += 1
                self._freed = True
            job.deliver(job)

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._batch if job.cancelled]:
            self._leave(job)

    def _leave(self, job: Job) -> None:
        self._batch.remove(job)
        self._kv_tokens -= job.kv_tokens

    def _noisy(self, duration_ns: int) -> int:
        if not self._sigma:
            return duration_ns
        return max(1, round(duration_ns * self._rng.lognormvariate(-(self._sigma**2) / 2, self._sigma)))

    async def _until(self, when_ns: int) -> None:
        await self._clock.sleep_until(when_ns, anyio.Event())
