"""Queues of known laws, simulated as numbers: the recurrence of Lindley, and processor sharing by virtual service."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from loadbench.plan.load import LevelDuration, Phases
from loadbench.record.recorder import LevelRecording, Recorder
from loadbench.record.timeline import KEPT, Timeline, TimelineBuilder
from tests.building import MS, S, a_sample, calm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Row = np.ndarray


def single(rng: np.random.Generator, *, rate: float, n: int, warm: int = 2000, constant: bool = False) -> tuple:
    """(arrivals, waits, services) of n customers of a queue with one server of mean service 1, first come first served.

    Arrivals are Poisson; services are exponential, or constant. The first `warm` customers are left out.
    """
    gaps = rng.exponential(1 / rate, n + warm)
    services = np.ones(n + warm) if constant else rng.exponential(1, n + warm)
    work = np.concatenate(([0.0], np.cumsum(services[:-1] - gaps[1:])))
    waits = work - np.minimum.accumulate(work)
    arrivals = np.cumsum(gaps)
    return arrivals[warm:] - arrivals[warm], waits[warm:], services[warm:]


def sharing(rng: np.random.Generator, *, rate: float, n: int, warm: int = 500) -> Row:
    """Sojourns of a server that all customers share equally, alone served in a mean of 1, in the order of arrival.

    `shared` is the service that each customer present has had so far: it grows at 1 over their number.
    """
    arrivals = np.cumsum(rng.exponential(1 / rate, n + warm)).tolist()
    needs = rng.exponential(1, n + warm).tolist()
    sojourns = np.zeros(n + warm)
    present: list[tuple[float, int]] = []
    now = shared = 0.0
    for number, at in enumerate([*arrivals, np.inf]):
        while present and (done := now + (present[0][0] - shared) * len(present)) <= at:
            shared, who = heapq.heappop(present)
            now, sojourns[who] = done, done - arrivals[who]
        if number < n + warm:
            shared += (at - now) / len(present) if present else 0.0
            now = at
            heapq.heappush(present, (shared + needs[number], number))
    return sojourns[warm:]


def closed(rng: np.random.Generator, *, users: int, slots: int, until: float, begin: float, grows: float = 0.0) -> list:
    """(due, wait, service) of the requests of so many users at so many slots, first come first served; mean service 1.

    From 0 to the end services grow by so much of themselves.
    """
    free, asks, requests = [begin] * slots, [begin] * users, []
    while asks[0] < until:
        due = heapq.heappop(asks)
        service = rng.exponential() * (1 + grows * max(0.0, due) / until)
        starts = max(due, heapq.heappop(free))
        heapq.heappush(free, starts + service)
        heapq.heappush(asks, starts + service)
        requests.append((due, starts - due, service))
    return requests


def recorded(requests: Iterable[tuple[float, float, float]], *, window_s: float, warm_up_s: float) -> LevelRecording:
    """The recording of requests (due, wait, service) in seconds, the window open from 0; the first token comes a tenth
    into the service, and the last at its end."""
    recorder = Recorder(
        Phases(LevelDuration(duration_ns=round(window_s * S), warm_up_ns=round(warm_up_s * S)), -round(warm_up_s * S))
    )
    phases = Phases(
        LevelDuration(duration_ns=round(window_s * S), warm_up_ns=round(warm_up_s * S)), -round(warm_up_s * S)
    )
    due_inside = 0
    for at_ns, ends, sample in _told(requests, phases):
        if ends:
            recorder.add(sample)
        else:
            recorder.started(at_ns)
            due_inside += 0 <= at_ns < window_s * S
    return recorder.close(
        window=(0, round(window_s * S)), arrivals_due=due_inside, missed=0, interrupted=False, health=calm()
    )


def _told(requests: Iterable[tuple[float, float, float]], phases: Phases) -> Iterator[tuple]:
    """Beginnings and ends in the order of time."""
    told = []
    for number, (due, wait, service) in enumerate(requests):
        due_ns, gaps_ns = round(due * S), max(1, round(service * S / 11))
        phase = phases.admit(due_ns)
        if phase is None:
            continue
        ttft_ns = round(wait * S) + gaps_ns
        sample = a_sample(number, due_ns=due_ns, ttft_ns=max(ttft_ns, MS // 1000), gaps_ns=gaps_ns, phase=phase)
        told += [(due_ns, 0, number, sample), (sample.end_ns, 1, number, sample)]
    return ((at_ns, ends, sample) for at_ns, ends, _, sample in sorted(told, key=lambda one: one[:3]))


def course(dues: Row, ttfts: Row, ends: Row, *, window_s: float) -> Timeline:
    """How a level goes whose requests were due, had their first token after, and ended, then; all in seconds."""
    timeline = TimelineBuilder(0)
    inside = (dues >= 0) & (dues < window_s)
    changes = np.repeat((1.0, -1.0), len(dues))
    # As `change`, `add`, `decode` and `keep` put them aside, a level at once.
    due_ns, ttft_ns = np.round(dues[inside] * S), np.round(ttfts[inside] * S)
    sent = np.stack([due_ns, due_ns, ttft_ns, np.full(len(due_ns), 50), np.full(len(due_ns), 11)], axis=1)
    timeline._succeeded = len(due_ns)
    for series, moments in ((timeline._changes[0], dues * S), (timeline._changes[1], ends * S), (timeline._sent, sent)):
        series._gathered.frombytes(moments.astype(np.int64).tobytes())
    for rows, moments, values in (
        (timeline._in_flight, np.concatenate((dues, ends)), changes),
        (timeline._ttft, dues[inside], ttfts[inside] * S),
        (timeline._decoding, np.concatenate((dues + ttfts, ends)), changes),
    ):
        rows._moments.frombytes((moments * S).astype(np.int64).tobytes())
        rows._values.frombytes(values.astype(np.float64).tobytes())
    return replace(timeline.close(round(window_s * S)), kept=dict.fromkeys(KEPT, ()))
