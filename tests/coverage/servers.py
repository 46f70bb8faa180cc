"""Servers whose true capacity is known, for virtual time, with as few events per request as possible.

*Slots*: so many requests are served at once, the others wait in the order in which they came; a first token comes as
the service begins. With exponential services and thinking this is the finite source M/M/c//N, and of who comes to it

    P(n in the system) of N - 1 others  ~  C(N - 1, n) (S / Z)^n           for n <= c
                                           … n! / (c! c^(n - c))           above
    P(TTFT > t | n)  =  0 for n < c,  else P(Poisson(t c / S) <= n - c)

*Sharing*: every request present is served at speed(n), that of all n. What comes of it is simulated, long and by the
recurrence of virtual service.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.client.transport import HttpRequest, Sink

S = 1_000_000_000
_STREAM = [(b"content-type", b"text/event-stream")]
_TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}],"model":"m"}\n\n'
_END = (
    b'data: {"choices":[{"delta":{"content":"y"},"finish_reason":"stop"}],"model":"m"}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)


class _Job:
    __slots__ = ("done", "sink", "work_s")

    def __init__(self, sink: Sink, work_s: float) -> None:
        self.sink = sink
        self.work_s = work_s
        self.done = asyncio.get_running_loop().create_future()


class _Server:
    """`loadbench.client.transport.Transport`, in process."""

    def __init__(
        self, work_s: float, *, seed: int, fails: float = 0.0, fixed: bool = False, most: float = math.inf
    ) -> None:
        self._rng = random.Random(seed)
        self._mean_s = work_s
        self._fails = fails
        self._fixed = fixed
        self._most = most  # in flight; further requests fail at once
        self.taken = self.present = 0

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Serve one request."""
        self.taken += 1
        loop = asyncio.get_running_loop()
        sink.connected(loop.time_ns(), reused=True, connect_ns=None)
        sink.sent(loop.time_ns())
        if self._rng.random() < self._fails or self.present >= self._most:
            sink.headers(loop.time_ns(), 500, [(b"content-type", b"application/json")])
            sink.data(loop.time_ns(), b'{"error":{"message":"no"}}')
            return
        job = _Job(sink, self._mean_s if self._fixed else self._rng.expovariate(1 / self._mean_s))
        self.present += 1
        self.arrives(job)
        try:
            await job.done
        except asyncio.CancelledError:
            self.leaves(job)
            raise
        finally:
            self.present -= 1

    def first(self, job: _Job) -> None:
        now_ns = asyncio.get_running_loop().time_ns()
        job.sink.headers(now_ns, 200, _STREAM)
        job.sink.data(now_ns, _TOKEN)

    def last(self, job: _Job) -> None:
        job.sink.data(asyncio.get_running_loop().time_ns(), _END)
        job.done.set_result(None)

    async def aclose(self) -> None:
        """Nothing to close."""


class Slots(_Server):
    """A number of slots, first come, first served; the first token comes a fixed time after service begins."""

    def __init__(self, slots: int, work_s: float, *, seed: int, first_s: float = 0.0, **about: Any) -> None:
        super().__init__(work_s, seed=seed, **about)
        self._slots = slots
        self._first_s = first_s
        self._waiting: deque[_Job] = deque()
        self._served: dict[_Job, asyncio.TimerHandle] = {}

    def arrives(self, job: _Job) -> None:
        self._waiting.append(job)
        self._fill()

    def _fill(self) -> None:
        while self._waiting and len(self._served) < self._slots:
            job = self._waiting.popleft()
            if self._first_s:
                asyncio.get_running_loop().call_later(min(self._first_s, job.work_s / 2), self._begins, job)
            else:
                self.first(job)
            self._served[job] = asyncio.get_running_loop().call_later(job.work_s, self._ends, job)

    def _begins(self, job: _Job) -> None:
        if job in self._served:
            self.first(job)

    def _ends(self, job: _Job) -> None:
        del self._served[job]
        self.last(job)
        self._fill()

    def leaves(self, job: _Job) -> None:
        if job in self._served:
            self._served.pop(job).cancel()
        elif job in self._waiting:
            self._waiting.remove(job)
        self._fill()


class Sharing(_Server):
    """All requests at once, each at `speed(n)`; the first token comes when the request arrives."""

    def __init__(self, speed: Callable[[int], float], work_s: float, *, seed: int, **about: Any) -> None:
        super().__init__(work_s, seed=seed, **about)
        self._speed = speed
        self._present: list[tuple[float, int, _Job]] = []
        self._gone: set[_Job] = set()
        self._served_s = 0.0
        self._at_s = 0.0
        self._number = self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def _advance(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._served_s += (now_s - self._at_s) * self._speed(max(1, self._count))
        self._at_s = now_s

    def arrives(self, job: _Job) -> None:
        self._advance()
        self.first(job)
        self._number += 1
        self._count += 1
        heapq.heappush(self._present, (self._served_s + job.work_s, self._number, job))
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._present and self._present[0][2] in self._gone:
            self._gone.discard(heapq.heappop(self._present)[2])
        if self._present:
            left_s = max(0.0, self._present[0][0] - self._served_s) / self._speed(self._count)
            self._timer = asyncio.get_running_loop().call_later(left_s, self._ends)

    def _ends(self) -> None:
        self._advance()
        _, _, job = heapq.heappop(self._present)
        self._count -= 1
        self.last(job)
        self._schedule()

    def leaves(self, job: _Job) -> None:
        self._advance()
        self._count -= 1
        self._gone.add(job)
        self._schedule()


def slot_miss(users: int, *, slots: int, work_s: float, think_s: float, bound_s: float) -> float:
    """P(TTFT > bound) of M/M/c//N, by the formula above."""
    logs, log = [], 0.0
    for n in range(users):
        if n:
            log += math.log((users - n) / think_s * work_s / min(n, slots))
        logs.append(log)
    weights = np.exp(np.array(logs) - max(logs))
    waits = [0.0 if n < slots else _poisson_cdf(n - slots, bound_s * slots / work_s) for n in range(users)]
    return float((weights * np.array(waits)).sum() / weights.sum())


def queue_miss(rate: float, *, slots: int, work_s: float, bound_s: float) -> float:
    """P(TTFT > bound) of M/M/c by Erlang's C; 1 at or above capacity."""
    a = rate * work_s
    if a >= slots:
        return 1.0
    last = a**slots / math.factorial(slots) * slots / (slots - a)
    wait = last / (sum(a**k / math.factorial(k) for k in range(slots)) + last)
    return wait * math.exp(-(slots - a) / work_s * bound_s)


def _poisson_cdf(k: int, mean: float) -> float:
    term = total = math.exp(-mean)
    for n in range(1, k + 1):
        term *= mean / n
        total += term
    return total


def sharing_miss(
    users: int, speed: Callable[[int], float], *, work_s: float, think_s: float, bound_s: float, n: int = 400_000
) -> float:
    """P(E2E > bound) of users who think exponentially, by simulating n requests."""
    rng = random.Random(users)
    thinking = [rng.expovariate(1 / think_s) for _ in range(users)]
    heapq.heapify(thinking)
    present: list[tuple[float, float]] = []
    now = served = 0.0
    misses = done = 0
    while done < n:
        comes = thinking[0] if thinking else math.inf
        ends = now + (present[0][0] - served) / speed(len(present)) if present else math.inf
        at = min(comes, ends)
        served += (at - now) * speed(max(1, len(present)))
        now = at
        if comes <= ends:
            heapq.heappop(thinking)
            heapq.heappush(present, (served + rng.expovariate(1 / work_s), now))
        else:
            _, began = heapq.heappop(present)
            misses += now - began > bound_s
            done += 1
            heapq.heappush(thinking, now + rng.expovariate(1 / think_s))
    return misses / n


def simulated_miss(
    load: float,
    *,
    bound_s: float,
    work: Callable[[random.Random], float],
    think: Callable[[random.Random], float] | None = None,
    slots: int | None = None,
    speed: Callable[[int], float] = lambda n: 1.0,
    most: float = math.inf,
    of: str = "ttft",
    n: int = 150_000,
) -> float:
    """The share of n requests that fail, or whose TTFT or E2E is above the bound, by one long simulation.

    The load is users who `think`, or a rate of independent arrivals. At most so many `slots` are served, each at
    `speed(served)`; with more than `most` in flight a request fails.
    """
    rng = random.Random(f"{load}")
    arrivals = [rng.expovariate(load)] if think is None else [think(rng) * rng.random() for _ in range(round(load))]
    heapq.heapify(arrivals)
    waiting: deque[float] = deque()
    served: list[tuple[float, float, float]] = []  # the virtual time of its end, when it came, when it began
    now = virtual = 0.0
    done, missed = -n // 20, 0  # those first ones are not counted
    while done < n:
        ends = now + (served[0][0] - virtual) / speed(len(served)) if served else math.inf
        comes = arrivals[0] if arrivals else math.inf
        at = min(comes, ends)
        virtual += (at - now) * speed(max(1, len(served)))
        now = at
        if comes <= ends:
            heapq.heappop(arrivals)
            if think is None:
                heapq.heappush(arrivals, now + rng.expovariate(load))
            if len(served) + len(waiting) >= most:
                done += 1
                missed += done > 0
                if think is not None:
                    heapq.heappush(arrivals, now + max(0.1, think(rng)))
                continue
            waiting.append(now)
        else:
            _, came, began = heapq.heappop(served)
            done += 1
            missed += done > 0 and (began if of == "ttft" else now) - came > bound_s
            if think is not None:
                heapq.heappush(arrivals, now + think(rng))
            if len(waiting) > 5000:
                return 1.0
        while waiting and (slots is None or len(served) < slots):
            heapq.heappush(served, (virtual + work(rng), waiting.popleft(), now))
    return missed / n
