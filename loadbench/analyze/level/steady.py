"""Whether a level was in a steady state: no trend in TTFT nor, in an open loop, in the number of requests in flight.

The window is cut into twenty batches, and the series of batch means is tested three ways.

*A trend*, by Mann and Kendall: of all pairs of batches, how many more rise than fall, compared with chance (Mann, 1945;
Kendall, *Rank Correlation Methods*, 1975, with his correction for ties).

*A size* that matters, by the median of the slopes of all pairs (Theil, 1950; Sen, 1968): in a long level even the
smallest trend is significant.

*More than a random walk*. The length of a queue wanders, more so the busier the server is. At the server's limit it is
a random walk; below, it is pulled back. A rise therefore counts only where it is larger than a walk with the same steps
between batches would make it, by Student's t of the steps. Because the batches are means, their steps are smaller by a
third and neighbouring steps are correlated by a quarter; this is corrected for (Working, *Note on the correlation of
first differences of averages in a random chain*, 1960). A doubtful case counts as steady.

In an open loop, a rising number of requests in flight proves that more requests arrive than complete: the offered rate
is above capacity. In a closed loop there are never more requests than users, and their waits do not wander far: there
trend and size suffice. A closed loop is also tested for a different *head*: the first four batches or more, up to half,
all above or all below every later one. If the batches were in random order, this would happen once in 1500 levels (the
sum of 2 / C(20, k)).

MSER-5 (White, *An effective truncation heuristic for bias reduction in simulation output*, 1997; Hoad, Robinson and
Davies, 2010, found it the most robust of 44 rules) finds where a series becomes steady: of all truncation points it
takes the one after which the mean of the rest, in fives, is most certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import Closed, Open
from loadbench.record.slices import SLICE_NS
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording

    Values = np.ndarray[Any, np.dtype[np.float64]]

_BATCHES = 20
# The mean of fewer requests is too noisy.
_MIN_PER_BATCH = 5
# Once in a thousand levels by chance, one-sided.
_TREND_Z = 3.09
# Once in two hundred, with 18 degrees of freedom.
_WALK_T = 2.878
_WORKING = 1.5
# A TTFT that changes by a fifth, and by what a person could notice; a queue that keeps one request in twenty.
_MIN_CHANGE = 0.2
_MIN_CHANGE_NS = 1_000_000
MIN_QUEUE_GROWTH = 0.05
_MIN_HEAD = 4
_FIVE = 5
_MIN_FIVES = 4


@dataclass(frozen=True, slots=True)
class SeriesTrend:
    """The trend of a series of batch means; `first` and `last` are the ends of its median line."""

    first: float
    last: float
    z: float  # standard score of the trend, by Mann and Kendall
    t: float  # of the rise, against a random walk
    head: tuple[float, float] | None = None  # means of the first part and of the rest, where they do not overlap

    @property
    def rise(self) -> float:
        """From the first batch to the last."""
        return self.last - self.first

    @property
    def exceeds_random_walk(self) -> bool:
        """Whether the series rises, and by more than a random walk would."""
        return self.z > _TREND_Z and self.t > _WALK_T


def series_trend(means: Sequence[float] | Values) -> SeriesTrend:
    """The trend of at least three batch means."""
    series = np.asarray(means, np.float64)
    earlier, later = np.triu_indices(len(series), 1)
    slope = float(np.median((series[later] - series[earlier]) / (later - earlier)))
    half_rise = slope * (len(series) - 1) / 2
    middle = float(np.median(series))

    steps = np.diff(series)
    spread = float(steps.std(ddof=1)) * math.sqrt(_WORKING)
    mean = float(steps.mean())
    if spread <= 1e-9 * abs(mean):
        t = math.copysign(math.inf, mean) if mean else 0.0
    else:
        t = mean / spread * math.sqrt(len(steps))

    head = None
    for cut in range(len(series) // 2, _MIN_HEAD - 1, -1):
        first, rest = series[:cut], series[cut:]
        if first.min() > rest.max() or first.max() < rest.min():
            head = float(first.mean()), float(rest.mean())
            break
    return SeriesTrend(middle - half_rise, middle + half_rise, mann_kendall(series), t, head)


def mann_kendall(values: Sequence[float] | Values) -> float:
    """The standard score of a series' trend, positive where it rises. Equal values count as neither."""
    series = np.asarray(values, np.float64)
    n = len(series)
    earlier, later = np.triu_indices(n, 1)
    score = float(np.sign(series[later] - series[earlier]).sum())
    _, ties = np.unique(series, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0 or score == 0:
        return 0.0
    return (score - math.copysign(1, score)) / math.sqrt(variance)


def mser5(values: Sequence[float]) -> int | None:
    """How many values to discard at the start; `None` if the series is too short, or not settled in its first half."""
    fives = len(values) // _FIVE
    if fives < _MIN_FIVES:
        return None
    means = np.asarray(values[: fives * _FIVE], np.float64).reshape(fives, _FIVE).mean(axis=1)
    left = np.arange(fives, 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (means - means.mean(), (means - means.mean()) ** 2))
    errors = np.maximum(squares - sums**2 / left, 0) / left**2
    cut = int(np.argmin(errors[: fives // 2 + 1]))
    return None if cut == fives // 2 else cut * _FIVE


def not_steady(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """Why the level was not steady; nothing if it was, is too short to tell, or has a rate that changes as planned."""
    if isinstance(load, Open) and load.arrivals.rate_varies:
        return
    timeline = recording.timeline

    # TTFT by due time; in a closed loop each batch needs a request of every user.
    counts = _batch_sums(timeline.ttft_count)
    ttft = None
    if counts.min() >= max(_MIN_PER_BATCH, load.users if isinstance(load, Closed) else 0):
        ttft = series_trend(_batch_sums(timeline.ttft_ns) / counts)

    queue = queue_growth(recording, load)
    if queue is not None:
        growth = f"requests in flight grew from {max(0.0, queue.first):.0f} to {queue.last:.0f}"
        if ttft is not None and ttft.z > _TREND_Z:
            message = f"the offered rate is above capacity: {growth}, and TTFT {_from_to(ttft.first, ttft.last)}"
            yield Reason("not_steady", message, "reduce the rate")
        else:
            yield Reason(
                "not_steady",
                f"more requests arrived than completed: {growth}",
                "the offered rate is above capacity, or the warm-up too short: reduce the rate, or raise --warm-up",
            )
        return

    if ttft is None:
        return
    trends = abs(ttft.z) > _TREND_Z if isinstance(load, Closed) else ttft.exceeds_random_walk
    changes = [(ttft.first, ttft.last)] if trends else []
    if isinstance(load, Closed) and ttft.head is not None:
        changes.append(ttft.head)
    for before, after in changes:
        if abs(after - before) > max(_MIN_CHANGE_NS, _MIN_CHANGE * min(abs(before), abs(after))):
            yield Reason(
                "not_steady",
                "the warm-up was too short or the server changed during the level: "
                f"TTFT went {_from_to(before, after)}",
                _sufficient_warm_up(recording)
                or "use a longer --warm-up and --duration; check what changes the server (heat, memory, other load)",
            )
            return


def queue_growth(recording: LevelRecording, load: Load) -> SeriesTrend | None:
    """The trend of the requests in flight where they grew in an open loop with a steady rate: it is above capacity."""
    in_flight, sent = recording.timeline.in_flight, recording.arrivals_sent
    if not isinstance(load, Open) or load.arrivals.rate_varies:
        return None
    if sent < _MIN_PER_BATCH * _BATCHES or len(in_flight) < _BATCHES:
        return None
    queue = series_trend(_batch_sums(in_flight) / (len(in_flight) // _BATCHES))
    return queue if queue.exceeds_random_walk and queue.rise > MIN_QUEUE_GROWTH * sent else None


def _batch_sums(values: Sequence[float]) -> Values:
    """Sums of the slices of each batch; slices at the end that do not fill every batch are left out."""
    length = len(values) // _BATCHES
    sums: Values = np.asarray(values[: length * _BATCHES], np.float64).reshape(_BATCHES, length).sum(axis=1)
    return sums


def _from_to(before_ns: float, after_ns: float) -> str:
    return f"from {max(0.0, before_ns) / 1e6:.0f} to {max(0.0, after_ns) / 1e6:.0f} ms"


def _sufficient_warm_up(recording: LevelRecording) -> str:
    """The advice of a warm-up that would have been enough; empty if TTFT did not settle in the window's first half."""
    sums, counts = np.asarray(recording.timeline.ttft_ns), np.asarray(recording.timeline.ttft_count)
    filled = np.flatnonzero(counts)
    cut = mser5((sums[filled] / counts[filled]).tolist())
    if not cut:
        return ""
    enough_ns = recording.warm_up_ns + int(filled[cut]) * SLICE_NS
    return f"use --warm-up {format_duration(-(-enough_ns // NS_PER_S) * NS_PER_S)}"
