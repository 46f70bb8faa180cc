"""Whether a level was steady: no trend in what its requests waited for, nor, in an open loop, in how many they were.

The window is cut into twenty batches, and three things are asked of the series of their means.

*A trend* by Mann and Kendall: of all pairs of batches, how many more rise than fall, against what chance would do
(Mann, 1945; Kendall, *Rank Correlation Methods*, 1975, with his correction for ties).

*A size* that matters, by the median of the slopes of all pairs (Theil, 1950; Sen, 1968): in a long level the smallest
drift is significant.

*More than a walk*: the length of a queue wanders, and the more so the busier the server is. At the edge of what a
server can do it is a random walk, and below that it is held back; so a rise only counts where it is large against the
steps between the batches, as a walk's would not be: by Student's t of the steps. That the batches are means makes their
steps smaller by a third, and neighbours alike by a quarter, which is made up for (Working, *Note on the correlation of
first differences of averages in a random chain*, 1960). The server has the benefit of the doubt.

In an open loop requests in flight that rise are the proof that more come than go: the offered rate is above capacity.
In a closed loop there are never more than users, and their waits do not wander far: there, trend and size suffice; and
a *head* is looked for, which is no trend of the whole: the first four batches or more, up to half, all above or all
below every later one. Were the batches in any order, that would be so once in 1500 levels (the sum of 2 / C(20, k)).

MSER-5 (White, *An effective truncation heuristic for bias reduction in simulation output*, 1997; Hoad, Robinson and
Davies, 2010, found it the most robust of 44 rules) says where a series becomes steady, if it does: of what is left
behind each possible cut, the mean of fives is most certain there.
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
    from loadbench.record.timeline import Timeline

    Values = np.ndarray[Any, np.dtype[np.float64]]

_BATCHES = 20
# Fewer requests in a batch make no mean that could be called one.
_FEWEST_A_BATCH = 5
# Once in a thousand levels by chance, on one side.
_TREND_Z = 3.09
# Once in two hundred, of 18 degrees of freedom.
_WALK_T = 2.878
_WORKING = 1.5
# A wait that has changed by a fifth and by what anybody feels; a pile that holds one request in twenty that came.
_LEAST_CHANGE = 0.2
_LEAST_CHANGE_NS = 1_000_000
MIN_QUEUE_GROWTH = 0.05
_LEAST_HEAD = 4
_FIVE = 5
_FEWEST_FIVES = 4


@dataclass(frozen=True, slots=True)
class SeriesTrend:
    """How a series of batch means went; `first` and `last` are the ends of its median line."""

    first: float
    last: float
    z: float  # of its trend, by Mann and Kendall
    t: float  # of its rise, against a walk
    head: tuple[float, float] | None = None  # means of its first part and of the rest, if these lie apart

    @property
    def rise(self) -> float:
        """From its first batch to its last."""
        return self.last - self.first

    @property
    def exceeds_random_walk(self) -> bool:
        """Whether it rises, and more than a walk would."""
        return self.z > _TREND_Z and self.t > _WALK_T


def series_trend(means: Sequence[float] | Values) -> SeriesTrend:
    """The drift of a series of three batch means at least."""
    series = np.asarray(means, np.float64)
    earlier, later = np.triu_indices(len(series), 1)
    slope = float(np.median((series[later] - series[earlier]) / (later - earlier)))
    half = slope * (len(series) - 1) / 2
    middle = float(np.median(series))
    return SeriesTrend(middle - half, middle + half, mann_kendall(series), _against_a_walk(series), _head(series))


def mann_kendall(values: Sequence[float] | Values) -> float:
    """The standard score of a series' trend: above 0 it rises. Values that are equal count as neither."""
    series = np.asarray(values, np.float64)
    n = len(series)
    earlier, later = np.triu_indices(n, 1)
    score = float(np.sign(series[later] - series[earlier]).sum())
    _, ties = np.unique(series, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0 or score == 0:
        return 0.0
    return (score - math.copysign(1, score)) / math.sqrt(variance)


def _against_a_walk(series: Values) -> float:
    steps = np.diff(series)
    spread = float(steps.std(ddof=1)) * math.sqrt(_WORKING)
    mean = float(steps.mean())
    if spread <= 1e-9 * abs(mean):
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / spread * math.sqrt(len(steps))


def _head(series: Values) -> tuple[float, float] | None:
    for cut in range(len(series) // 2, _LEAST_HEAD - 1, -1):
        head, rest = series[:cut], series[cut:]
        if head.min() > rest.max() or head.max() < rest.min():
            return float(head.mean()), float(rest.mean())
    return None


def mser5(values: Sequence[float]) -> int | None:
    """How many values to leave out at the beginning; `None` for a series too short, or not settled halfway through."""
    fives = len(values) // _FIVE
    if fives < _FEWEST_FIVES:
        return None
    means = np.asarray(values[: fives * _FIVE], np.float64).reshape(fives, _FIVE).mean(axis=1)
    left = np.arange(fives, 0, -1)
    sums, squares = (np.cumsum(part[::-1])[::-1] for part in (means - means.mean(), (means - means.mean()) ** 2))
    errors = np.maximum(squares - sums**2 / left, 0) / left**2
    cut = int(np.argmin(errors[: fives // 2 + 1]))
    return None if cut == fives // 2 else cut * _FIVE


def not_steady(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """Why the level was not steady; nothing where it was, is too short to tell, or was not meant to be."""
    if isinstance(load, Open) and load.arrivals.planned:
        return
    users = load.users if isinstance(load, Closed) else 0
    ttft = _ttft(recording.course, fewest=max(_FEWEST_A_BATCH, users))
    pile = None if isinstance(load, Closed) else _pile(recording)
    if pile is not None:
        yield _above_capacity(pile, ttft)
    elif ttft is not None and isinstance(load, Closed):
        if abs(ttft.z) > _TREND_Z and _matters(ttft.first, ttft.last):
            yield _changed(recording, ttft.first, ttft.last)
        elif ttft.head is not None and _matters(*ttft.head):
            yield _changed(recording, *ttft.head)
    elif ttft is not None and ttft.exceeds_random_walk and _matters(ttft.first, ttft.last):
        yield _changed(recording, ttft.first, ttft.last)


def _batches(values: Sequence[float]) -> Values:
    """Sums of the slices of each batch; slices at the end that do not make up a batch in each are left out."""
    length = len(values) // _BATCHES
    sums: Values = np.asarray(values[: length * _BATCHES], np.float64).reshape(_BATCHES, length).sum(axis=1)
    return sums


def _ttft(course: Timeline, *, fewest: int) -> SeriesTrend | None:
    """The drift of the TTFT by due time; `None` where a batch has fewer requests."""
    counts = _batches(course.ttft_count)
    return series_trend(_batches(course.ttft_ns) / counts) if counts.min() >= fewest else None


def _pile(recording: LevelRecording) -> SeriesTrend | None:
    """The drift of requests in flight, where they surely pile up."""
    if recording.arrivals_sent < _FEWEST_A_BATCH * _BATCHES or len(recording.course.in_flight) < _BATCHES:
        return None
    length = len(recording.course.in_flight) // _BATCHES
    pile = series_trend(_batches(recording.course.in_flight) / length)
    return pile if pile.exceeds_random_walk and pile.rise > MIN_QUEUE_GROWTH * recording.arrivals_sent else None


def _matters(before_ns: float, after_ns: float) -> bool:
    """A change, up or down, of a size that is felt."""
    return abs(after_ns - before_ns) > max(_LEAST_CHANGE_NS, _LEAST_CHANGE * min(abs(before_ns), abs(after_ns)))


def _above_capacity(pile: SeriesTrend, ttft: SeriesTrend | None) -> Reason:
    seen = f"requests in flight grew from {max(0.0, pile.first):.0f} to {pile.last:.0f}"
    if ttft is not None and ttft.z > _TREND_Z:
        grew = f"{seen}, and TTFT {_from_to(ttft.first, ttft.last)}"
        return Reason("not_steady", f"the offered rate is above capacity: {grew}", "offer a lower rate")
    return Reason(
        "not_steady",
        f"more requests came than were answered: {seen}",
        "the offered rate is above capacity, or the warm-up was too short: offer a lower rate, or warm up for longer",
    )


def _changed(recording: LevelRecording, before_ns: float, after_ns: float) -> Reason:
    return Reason(
        "not_steady",
        f"the warm-up was too short or the server changed during the level: TTFT went {_from_to(before_ns, after_ns)}",
        _settled(recording) or "warm up and measure for longer; see what else changes the server (heat, memory, load)",
    )


def _from_to(before_ns: float, after_ns: float) -> str:
    return f"from {max(0.0, before_ns) / 1e6:.0f} to {max(0.0, after_ns) / 1e6:.0f} ms"


def _settled(recording: LevelRecording) -> str:
    """The warm-up that would have been enough, if the level settled within the first half of its window."""
    sums, counts = np.asarray(recording.course.ttft_ns), np.asarray(recording.course.ttft_count)
    filled = np.flatnonzero(counts)
    cut = mser5((sums[filled] / counts[filled]).tolist())
    if not cut:
        return ""
    wanted_ns = recording.warm_up_ns + int(filled[cut]) * SLICE_NS
    return f"--warm-up {format_duration(-(-wanted_ns // NS_PER_S) * NS_PER_S)}"
