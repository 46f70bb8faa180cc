"""Servers whose levels take milliseconds to simulate: the systems on which the studies measure what intervals hold.

Each function returns one level: its measured requests in the order in which they became due, and when tokens were
produced. All times are in seconds; a request is measured if it became due inside the window, which opens at 0.

*Closed loops* (`batching`, `slots`): users start over a ramp of a second, think, send, and wait. *Open loops*
(`batching` with a rate, `queue`, `sharing`): arrivals are Poisson, and a number of requests is measured.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[random.Random], float]
    Slower = Callable[[float], tuple[float, float]]  # the factors of prefill and of decoding at a moment of the level
    Row = np.ndarray

RAMP_S = 1.0


@dataclass(frozen=True)
class SimulatedLevel:
    """The measured requests in due order. A row of `spans` is (begin, end, tokens): so many output tokens were produced
    evenly between the two moments, or at one moment. They are those of all requests, inside the window and around it,
    as are the rows of `around`: (due, first token, last token).
    """

    due: Row
    ttft: Row
    e2e: Row
    tpot: Row
    spans: Row
    window_s: float
    around: Row

    def tokens_per_slice(self, slice_s: float = 0.1) -> Row:
        """Output tokens in each whole slice of the window."""
        begin, end, tokens = self.spans[np.argsort(self.spans[:, 0])].T
        edges = np.arange(int(self.window_s / slice_s + 1e-9) + 1) * slice_s
        # Produced until an edge: what began before it, less what was still to come of it. A sum over all spans at each
        # edge would take too long; the rate of production changes only where a span begins or ends.
        length = np.maximum(end - begin, 1e-6)
        moments = np.concatenate((begin, begin + length))
        rates = np.concatenate((tokens / length, -tokens / length))
        order = np.argsort(moments, kind="stable")
        moments, rates = moments[order], np.cumsum(rates[order])
        produced = np.concatenate(([0.0], np.cumsum(rates[:-1] * np.diff(moments))))
        return np.diff(np.interp(edges, moments, produced))


def constant(value: float) -> Draw:
    """Always this value."""
    return lambda _: value


def exponential(mean: float) -> Draw:
    """Memoryless, with this mean."""
    return lambda rng: rng.expovariate(1 / mean)


def lognormal(mean: float, cv: float) -> Draw:
    """Many short values and a few long ones: with this mean and coefficient of variation."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return lambda rng: mean * math.exp(sigma * rng.gauss(0, 1) - sigma * sigma / 2)


def batching(
    users: int,
    *,
    seed: int,
    duration_s: float = 10.0,
    warm_up_s: float = 2.0,
    think: Draw | None = None,
    tokens: Draw | None = None,
    rate: float | None = None,
    slots: int = 8,
    prefill_s: float = 0.011,
    step_s: float = 0.005,
    per_sequence_s: float = 0.0005,
    noise: float = 0.03,
    slower: Slower | None = None,
) -> SimulatedLevel:
    """Continuous batching: a step prefills who waits, one after another, while there is a slot; then each request in a
    slot gets a token, every `step_s + per_sequence_s` times their number.

    With a `rate`, requests arrive by Poisson instead of from users. `tokens` draws the length of a response (64 if it
    is not given). `noise` is the coefficient of variation of a step.
    """
    rng = random.Random(seed)
    gauss, clock, ends = rng.gauss, -warm_up_s, duration_s
    coming: list[tuple[float, int]] = []
    if rate is None:
        coming = [(clock + RAMP_S * user / users + (think(rng) if think else 0.0), user) for user in range(users)]
        heapq.heapify(coming)
    else:
        coming = [(clock + rng.expovariate(rate), 0)]
    running: list[list[float]] = []  # tokens left, due, first token, tokens, user
    requests, spans = [], []
    while True:
        now_from = coming[0][0] if coming else math.inf
        if not running:
            clock = max(clock, now_from)
        if clock >= ends and now_from >= ends and all(request[1] >= ends for request in running):
            break
        prefill, decode = slower(clock) if slower else (1.0, 1.0)
        free = slots - len(running)
        while free and coming and coming[0][0] <= clock:
            due, user = heapq.heappop(coming)
            if rate is not None:
                heapq.heappush(coming, (due + rng.expovariate(rate), 0))
            clock += prefill_s * prefill * max(0.2, 1 + noise * gauss(0, 1))
            length = max(2, round(tokens(rng))) if tokens else 64
            running.append([length - 1, due, clock, length, user])
            spans.append((clock, clock, 1))
            free -= 1
        # Whole steps until a request ends, or one that came finds a slot.
        step = (step_s + per_sequence_s * len(running)) * decode
        steps = min(request[0] for request in running)
        if len(running) < slots and coming:
            steps = min(steps, max(1, math.ceil((coming[0][0] - clock) / step)))
        if slower:
            steps = min(steps, max(1, int(0.1 / step)))
        begins = clock
        clock += steps * step * max(0.2, 1 + noise * gauss(0, 1) / math.sqrt(steps))
        spans.append((begins, clock, steps * len(running)))
        going_on = []
        for request in running:
            request[0] -= steps
            if request[0] > 0:
                going_on.append(request)
                continue
            _, due, first, length, user = request
            requests.append((due, first - due, clock - due, (clock - first) / (length - 1)))
            if rate is None:
                heapq.heappush(coming, (clock + (think(rng) if think else 0.0), int(user)))
        running = going_on
    return _level(requests, spans, duration_s)


def slots(
    users: int,
    *,
    seed: int,
    duration_s: float = 10.0,
    warm_up_s: float = 2.0,
    think: Draw | None = None,
    service: Draw,
    count: int = 8,
    first_share: float = 0.1,
    tokens: int = 64,
    slower: Slower | None = None,
) -> SimulatedLevel:
    """A number of slots, first come, first served, that do not slow each other down; the first token comes after a
    share of the service."""
    rng = random.Random(seed)
    coming = [(-warm_up_s + RAMP_S * user / users + (think(rng) if think else 0.0)) for user in range(users)]
    heapq.heapify(coming)
    free = [-warm_up_s] * count
    requests, spans = [], []
    while coming[0] < duration_s:
        due = heapq.heappop(coming)
        begins, takes = max(due, heapq.heappop(free)), service(rng)
        prefill, decode = slower(begins) if slower else (1.0, 1.0)
        first = begins + first_share * takes * prefill
        last = first + (1 - first_share) * takes * decode
        heapq.heappush(free, last)
        spans += [(first, first, 1), (first, last, tokens - 1)]
        requests.append((due, first - due, last - due, (last - first) / (tokens - 1)))
        heapq.heappush(coming, last + (think(rng) if think else 0.0))
    return _level(requests, spans, duration_s)


def queue(
    n: int,
    *,
    seed: int,
    load: float,
    servers: int = 1,
    constant_service: bool = False,
    prefill: float = 0.0,
    per_token: float = 0.0,
    slower: Slower | None = None,
) -> SimulatedLevel:
    """M/M/c or M/D/c, first come, first served: n requests of mean service 1 at this utilisation.

    The first token comes as the service begins, or after a `prefill` that is a fixed part of it. A response has 11
    tokens, or one for each `per_token` of its service.
    """
    rng = np.random.default_rng(seed)
    warm = _warm_up(load)
    arrivals = np.cumsum(rng.exponential(1 / (load * servers), n + warm))
    services = np.ones(n + warm) if constant_service else rng.exponential(1, n + warm)
    decoded = services.copy()
    if servers == 1 and not (prefill or slower):
        work = np.concatenate(([0.0], np.cumsum(services[:-1] - np.diff(arrivals))))
        waits = work - np.minimum.accumulate(work)
    else:
        waits, free = np.empty(n + warm), [0.0] * servers
        for number, (at, takes) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
            start = max(at, free[0])
            factors = slower(start - arrivals[warm]) if slower else (1.0, 1.0)
            first_after, decoded[number] = prefill * factors[0], takes * (1 - prefill) * factors[1]
            heapq.heapreplace(free, start + first_after + decoded[number])
            waits[number] = start + first_after - at
    begins = arrivals[warm]
    lengths = np.maximum(2, np.round(services / per_token)) if per_token else np.full(n + warm, 11.0)
    requests = np.column_stack((arrivals - begins, waits, waits + decoded, decoded / (lengths - 1)))
    first = arrivals - begins + waits
    return _level(requests, _spans(first, first + decoded, lengths), float(arrivals[-1] - begins) + 1e-9)


def sharing(n: int, *, seed: int, load: float, slower: Slower | None = None) -> SimulatedLevel:
    """Processor sharing, M/M/1-PS: n requests of mean work 1 that share one server at this utilisation.

    A first token comes when a tenth of the work is done, so that TTFT is a sojourn of its own.
    """
    rng = np.random.default_rng(seed)
    warm = _warm_up(load)
    total = n + warm
    arrivals = np.cumsum(rng.exponential(1 / load, total)).tolist()
    works = rng.exponential(1, total).tolist()
    # Work that each request present has had: it grows at 1 over their number. A request is in the heap twice.
    marks: list[tuple[float, int, bool]] = []

    def factor(moment: float) -> float:
        return slower(moment - arrivals[warm])[1] if slower else 1.0

    first, last = np.zeros(total), np.zeros(total)
    now = had = 0.0
    present = 0
    for number, at in enumerate([*arrivals, math.inf]):
        while marks and (moment := now + (marks[0][0] - had) * present * factor(now)) <= at:
            had, who, is_last = heapq.heappop(marks)
            now = moment
            (last if is_last else first)[who] = now
            present -= is_last
        if number < total:
            had += (at - now) / present / factor(now) if present else 0.0
            now = at
            present += 1
            heapq.heappush(marks, (had + works[number] / 10, number, False))
            heapq.heappush(marks, (had + works[number], number, True))
    due = np.array(arrivals)
    begins = due[warm]
    requests = np.column_stack((due - begins, first - due, last - due, (last - first) / 10))
    spans = _spans(first - begins, last - begins, np.full(total, 11.0))
    return _level(requests, spans, float(due[-1] - begins) + 1e-9)


def _warm_up(load: float) -> int:
    """Requests after which a queue has forgotten that it was empty: ten times its relaxation time, in services."""
    return round(500 + 10 / (1 - load) ** 2)


def _spans(first: Row, last: Row, lengths: Row) -> Row:
    ones = np.ones(len(first))
    return np.concatenate((np.column_stack((first, first, ones)), np.column_stack((first, last, lengths - 1))))


def _level(requests: list | Row, spans: list | Row, window_s: float) -> SimulatedLevel:
    rows = np.array(requests, np.float64).reshape(-1, 4)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    around = np.column_stack((rows[:, 0], rows[:, 0] + rows[:, 1], rows[:, 0] + rows[:, 2]))
    due, ttft, e2e, tpot = rows[(rows[:, 0] >= 0) & (rows[:, 0] < window_s)].T
    return SimulatedLevel(due, ttft, e2e, tpot, np.array(spans, np.float64).reshape(-1, 3), window_s, around)
