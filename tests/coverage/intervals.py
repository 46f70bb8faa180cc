"""How often the 95 % intervals of quantiles hold the true quantile, how wide they are, and how often there are none.

python -m tests.coverage.intervals              200 levels of each system, as the documents show them; some minutes
python -m tests.coverage.intervals 400 queue    more levels, of the systems with this word in their name

The truth is the quantile of all requests of twice as many other levels of the same system: of the population of which a
level is a sample. It is known to the standard error of the share of those requests below it, and so is an interval of
values. Where the distribution has atoms (a service that is always the same, a queue that is empty) this interval may
span the gap between two of them. An interval holds the truth where the two have a value in common; a missing interval
does not hold it, and is counted as absent.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.level.summary import QUANTILES, metric
from loadbench.analyze.stats.effective_n import CorrelatedSeries
from loadbench.analyze.stats.intervals import binomial_cdf, quantile_ranks
from loadbench.analyze.stats.student import quantile
from loadbench.record.histogram import Histogram
from loadbench.report.values import counted
from tests.coverage.systems import SimulatedLevel, batching, constant, exponential, lognormal, queue, sharing, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Simulate = Callable[[int], SimulatedLevel]

FIGURES = ("ttft", "e2e", "tpot")
POINTS = ("p50", "p90", "p95", "p99")
# A cell without an interval in most levels is refused: what the few others hold is told, and not judged.
REFUSED = 0.8


@dataclass(frozen=True)
class System:
    """A server and its load; `users` is `None` in an open loop."""

    name: str
    users: int | None
    simulate: Simulate


def systems() -> list[System]:
    """Closed loops of 1 to 32 users, then queues."""
    found = [
        System(f"batching, {counted(users, 'user')}", users, lambda seed, users=users: batching(users, seed=seed))
        for users in (1, 2, 4, 6, 8, 10, 12, 16, 24, 32)
    ]
    spread = lognormal(64, 0.8)
    found += [
        System(
            f"batching, lognormal lengths, {counted(users, 'user')}",
            users,
            lambda seed, users=users: batching(users, seed=seed, tokens=spread, duration_s=30, warm_up_s=5),
        )
        for users in (1, 4, 8, 16, 32)
    ]
    slow = {"slots": 4, "prefill_s": 0.2, "step_s": 0.02, "per_sequence_s": 0.002}
    found += [
        System(
            f"slow batching, {counted(users, 'user')}",
            users,
            lambda seed, users=users: batching(users, seed=seed, duration_s=45, warm_up_s=12, **slow),
        )
        for users in (4, 8, 12)
    ]
    for name, users, think, tokens, duration_s in (
        ("think 2 s", 2, exponential(2), None, 60),
        ("think 2 s", 8, exponential(2), None, 60),
        ("think 2 s", 20, exponential(2), None, 60),
        ("think 2 s", 32, exponential(2), None, 60),
        ("think always 2 s", 20, constant(2), None, 60),
        ("think 2 s, lognormal lengths", 20, exponential(2), spread, 60),
        ("think 1 s, lognormal lengths", 32, exponential(1), spread, 30),
    ):
        found.append(
            System(
                f"batching, {name}, {counted(users, 'user')}",
                users,
                lambda seed, users=users, think=think, tokens=tokens, duration_s=duration_s: batching(
                    users, seed=seed, think=think, tokens=tokens, duration_s=duration_s, warm_up_s=8
                ),
            )
        )
    for name, service, think, user_counts, duration_s in (
        ("0.6 s always", constant(0.6), None, (4, 16), 10),
        ("0.6 s, 3 % noise", lognormal(0.6, 0.03), None, (4, 16, 32), 10),
        ("lognormal 0.6 s", lognormal(0.6, 0.5), None, (1, 4, 8, 16, 32), 20),
        ("lognormal 0.6 s, think 0.5 s", lognormal(0.6, 0.5), exponential(0.5), (8, 16, 32), 30),
    ):
        found += [
            System(
                f"8 slots, {name}, {counted(users, 'user')}",
                users,
                lambda seed, users=users, service=service, think=think, duration_s=duration_s: slots(
                    users, seed=seed, service=service, think=think, duration_s=duration_s, warm_up_s=4
                ),
            )
            for users in user_counts
        ]
    for load in (0.5, 0.7, 0.8, 0.9):
        found += [
            System(f"queue M/M/1 at {load}", None, lambda seed, load=load: queue(1000, seed=seed, load=load)),
            System(
                f"queue M/D/1 at {load}",
                None,
                lambda seed, load=load: queue(1000, seed=seed, load=load, constant_service=True),
            ),
            System(
                f"queue M/D/4 at {load}",
                None,
                lambda seed, load=load: queue(1000, seed=seed, load=load, servers=4, constant_service=True),
            ),
            System(f"queue sharing at {load}", None, lambda seed, load=load: sharing(1000, seed=seed, load=load)),
        ]
    for load in (0.7, 0.9):
        for count in (40, 100, 200, 400):
            found += [
                System(f"queue M/M/1 at {load}, {count} requests", None, partial(_queue, count, load)),
                System(f"queue sharing at {load}, {count} requests", None, partial(_sharing, count, load)),
            ]
    found += [
        System(
            f"queue batching at {rate} requests/s",
            None,
            lambda seed, rate=rate: batching(0, rate=rate, seed=seed, duration_s=60, warm_up_s=20),
        )
        for rate in (2, 4, 8)
    ]
    return found


def _queue(requests: int, load: float, seed: int) -> SimulatedLevel:
    return queue(requests, seed=seed, load=load)


def _sharing(requests: int, load: float, seed: int) -> SimulatedLevel:
    return sharing(requests, seed=seed, load=load)


@dataclass
class Cell:
    """The intervals of one quantile of one figure of one system."""

    system: System
    figure: str
    point: str
    truth: tuple[float, float]
    levels: int = 0
    held: int = 0
    absent: int = 0
    one_sided: int = 0
    widths: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()  # to the width by the plain rule

    def add(self, values: np.ndarray, found: tuple[float | None, float | None] | None) -> None:
        """Count the interval of a level with these values."""
        self.levels += 1
        if found is None:
            self.absent += 1
            return
        low, high = found
        self.held += (low or 0.0) <= self.truth[1] and (high is None or self.truth[0] <= high)
        if low is None or high is None:
            self.one_sided += 1
            return
        ordered, p = np.sort(values), QUANTILES[self.point]
        value = ordered[max(0, math.ceil(p * len(values)) - 1)]
        if value > 0:
            self.widths += ((high - low) / value,)
        first, last = plain_ranks(values, p, users=self.system.users)
        # Both with the buckets of the histogram.
        if first is not None and last is not None and value > 0:
            plain = ordered[last - 1] - ordered[first - 1] + 0.001 * value
            self.ratios += ((high - low) / plain,)

    @property
    def coverage(self) -> float:
        """The share of the intervals that hold the truth."""
        return self.held / max(1, self.levels - self.absent)

    @property
    def is_refused(self) -> bool:
        """Whether most levels have no interval."""
        return self.absent >= REFUSED * self.levels

    @property
    def misses(self) -> bool:
        """Whether the coverage is below 95 % with a confidence of 99 %."""
        given = self.levels - self.absent
        first, below = binomial_cdf(given, 0.95)
        return self.held < first or bool(below[min(self.held - first, len(below) - 1)] <= 0.01)

    def __str__(self) -> str:
        """`.97 1.2 %`: coverage and median width; then the shares that are open at one end, and absent."""
        text = "refused" if self.is_refused else f"{self.coverage:.3f}"
        if self.widths:
            width = 100 * statistics.median(self.widths)
            text += f" {width:.2g} %" if width < 10 else f" {width:.0f} %"
        text += f" ↑{100 * self.one_sided / self.levels:.0f} %" if self.one_sided else ""
        return text + (f" −{100 * self.absent / self.levels:.0f} %" if self.absent else "")


def plain_ranks(values: np.ndarray, p: float, *, users: int | None) -> tuple[int | None, int | None]:
    """The rule that ours is compared with: Geyer's estimate and ten batch means, with Student's t where these decide,
    and nothing else; in a closed loop the whole range where that leaves fewer than six values."""
    n, users_or_1 = len(values), users or 1
    hits = (values <= np.sort(values)[max(0, math.ceil(p * n) - 1)]).astype(float)
    hits -= hits.mean()
    variance = float((hits * hits).mean())
    inefficiency = 1.0
    if variance > 0:
        rho = np.correlate(hits, hits, "full")[n - 1 :] / (n * variance)
        pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
        stop = np.flatnonzero(pairs <= 0)
        inefficiency = max(1.0, float(2 * np.minimum.accumulate(pairs[: stop[0]] if len(stop) else pairs).sum() - 1))
        batches = min(10, n // users_or_1)
        if batches >= 2:
            edges = np.arange(batches + 1) * (n // users_or_1) // batches * users_or_1
            means = [hits[begin:end].mean() for begin, end in pairwise(edges)]
            by_batches = edges[-1] / batches * float(np.var(means, ddof=1)) / variance
            if by_batches > inefficiency:
                inefficiency = by_batches * (quantile(0.975, batches - 1) / 1.96) ** 2
    if users is not None:
        inefficiency = min(inefficiency, n / 6)
    low, high = quantile_ranks(int(n / inefficiency + 1e-9), p)
    return (
        None if low is None else math.floor(inefficiency * (low - 1)) + 1,
        None if high is None else min(n, math.ceil(inefficiency * high)),
    )


def of(level: SimulatedLevel, figure: str) -> np.ndarray:
    """The values of a figure to a microsecond: services that are all the same differ by the rounding of sums."""
    return np.round(getattr(level, figure), 6)


def measured(system: System, levels: int) -> tuple[list[Cell], int]:
    """The cells of a system, and the median number of requests of its levels."""
    population = [system.simulate(1_000_000 + seed) for seed in range(2 * levels)]
    cells = []
    for figure in FIGURES:
        pooled = np.sort(np.concatenate([of(level, figure) for level in population]))
        for point in POINTS:
            p, last = QUANTILES[point], len(pooled) - 1
            value = pooled[round(p * last)]
            # The share below it differs from level to level.
            excess = [float((of(level, figure) <= value).sum()) - p * len(level.due) for level in population]
            error = float(np.std(excess)) * math.sqrt(len(population)) / len(pooled)
            ends = [float(pooled[round(min(1.0, max(0.0, end)) * last)]) for end in (p - error, p + error)]
            cells.append(Cell(system, figure, point, (ends[0], ends[1])))
    sizes = []
    for seed in range(levels):
        level = system.simulate(seed)
        sizes.append(len(level.due))
        for figure in FIGURES:
            values = of(level, figure)
            histogram = Histogram()
            histogram.record_many(np.round(values * 1e9).astype(np.int64))
            found = metric(histogram, failures=None, correlated=CorrelatedSeries(values * 1e9, users=system.users))
            assert found is not None
            for cell in cells:
                if cell.figure == figure:
                    cell.add(values, found.interval[cell.point])
    return cells, round(statistics.median(sizes))


def report(levels: int, word: str) -> Iterator[str]:
    """The lines of the table, then what it comes to."""
    headers = [f"{figure.upper()} {point}" for figure in FIGURES for point in POINTS]
    yield f"| system | requests | {' | '.join(headers)} |"
    yield "|---|---:|" + "---|" * len(headers)
    every: list[Cell] = []
    for system in systems():
        if word in system.name:
            cells, size = measured(system, levels)
            every += cells
            yield f"| {system.name} | {size} | {' | '.join(map(str, cells))} |"
    judged = [cell for cell in every if not cell.is_refused]
    missing = [cell for cell in judged if cell.misses]
    yield (
        f"\n{len(judged)} cells with intervals, coverage {statistics.fmean(cell.coverage for cell in judged):.3f} on "
        f"average; {len(missing)} below .95 with 99 % confidence; {len(every) - len(judged)} cells refused"
    )
    for cell in missing:
        yield f"- below: {cell.system.name}, {cell.figure.upper()} {cell.point}: {cell}"
    medians = [cell for cell in every if cell.point == "p50" and cell.system.users is not None]
    if medians:
        ratios = [ratio for cell in medians for ratio in cell.ratios]
        yield (
            f"\nmedians of closed loops: {sum(cell.absent for cell in medians)} absent and "
            f"{sum(cell.one_sided for cell in medians)} one-sided of {sum(cell.levels for cell in medians)}; "
            f"median width {statistics.median(ratios):.2f} times that of the plain rule, in a cell at most "
            f"{max(statistics.median(cell.ratios) for cell in medians if cell.ratios):.2f} times"
        )


if __name__ == "__main__":
    number, *words = [*sys.argv[1:]] or ["200"]
    for line in report(int(number), " ".join(words)):
        print(line, flush=True)  # noqa: T201 - what it is for
