"""Whether a level was in a steady state: nothing that the server shows changed during the level, and no queue grew.

Five series are judged, each of twenty batches:

- *output tokens/s*, in a closed loop without think time, where the users keep the server as busy as they can. Elsewhere
  it follows who arrives;
- *TPOT*, the time that responses spent between their first and last token, divided by the tokens generated: twenty
  parts of the window with equally many tokens, which exist however few requests there are;
- *TTFT*, of the requests that met the fewest others as they were sent (a tenth of all, and 20 at least): what others
  wait for is not theirs. Users who do not think meet nearly all others, so there all requests count;
- *prefill time*, TTFT without the wait for a place: since the request was due and a response had ended that made room
  for it (`loadbench.record.timeline`). Where requests queue, prefill is a small part of TTFT, and would be lost in it;
- *requests in flight*, in an open loop: whether they grow.

*What explains a value is no change of the server.* Requests are exchangeable only if they meet the same load and ask
for the same work. TPOT is therefore taken relative to the number of responses that are generated together and to their
input tokens, TTFT relative to the requests met and to the own input tokens, and output tokens/s is not judged if the
lengths of the requests change over the level. Each elasticity is the one with which the value follows from batch to
batch (the median of the slopes of neighbours, weighted by the distance), and lies between 0 and 1: a server slows down
by no more than in proportion to what it shares. Taken from neighbours, it does not absorb a slow trend of both.

*A change* is a trend, by Mann and Kendall (Mann, 1945; Kendall, *Rank Correlation Methods*, 1975), whose size is that
of the median slope of all pairs (Theil, 1950; Sen, 1968); or a step, by the largest of the standardised Mann-Whitney
scores of all cuts between a fifth and four fifths (Pettitt, *A non-parametric approach to the change-point problem*,
1979, whose own statistic is not standardised); or a *head*, the first four batches or more, up to half, all above or
all below every later one, which of batches in random order happens once in 1500 levels (the sum of 2 / C(20, k)).

*It counts only* if it is larger than a fifth and stands out of the steps between neighbours. Ranks take batches as
independent; the load of a server is not, and a series that wanders has trends. By how much it wanders can be seen from
its steps, whatever trend it has. Batches share the responses and waits that outlast them, and hide by this how far the
series wanders; so a change must then exceed more steps. What a busy queue shows is no change of the server.

*It can be judged* if a slow-down to half the speed, gradual or in the middle, would have been seen: it is added to the
series as it is, and to the series backwards, and must be found in all four.

*A queue* wanders the more the busier the server is. At the server's limit it is a random walk; below, it is pulled
back. A rise therefore counts only where it is larger than a walk with the same steps between batches would make it, by
Student's t of the steps. Because the batches are means, their steps are smaller by a third and neighbouring steps are
correlated by a quarter; this is corrected for (Working, *Note on the correlation of first differences of averages in a
random chain*, 1960). In an open loop, a rising number of requests in flight proves that more requests arrive than
complete: the offered rate is above capacity, unless the server itself became slower.

MSER-5 (White, *An effective truncation heuristic for bias reduction in simulation output*, 1997; Hoad, Robinson and
Davies, 2010, found it the most robust of 44 rules) finds where a series becomes steady: of all truncation points it
takes the one after which the mean of the rest, in fives, is most certain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import ROUNDS, Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadbench.plan.load import Load
    from loadbench.record.recorder import LevelRecording

    Values = np.ndarray[Any, np.dtype[np.float64]]

_BATCHES = 20
# Once in a thousand levels by chance, one-sided; for the cut with the largest score it is a larger one.
_TREND_Z = 3.09
_STEP_Z = 3.4
# Once in two hundred, with 18 degrees of freedom.
_WALK_T = 2.878
# Together with the trend, less than 1 in 100 queues up to 95 % utilisation by simulation; arrivals vary as a Poisson
# count does, and no more.
_COMPLETIONS_T = 5.0
_ARRIVALS_Z = 2.2
_WORKING = 1.5
# A figure that changes by a fifth, a TTFT by what a person could notice; a queue that keeps one request in twenty.
_MIN_CHANGE = math.log(1.2)
_MIN_CHANGE_NS = 1_000_000
MIN_QUEUE_GROWTH = 0.05
_MIN_ARRIVALS = 100
# By how many times a change exceeds the usual step between two batches; where requests queue, a wait is much like the
# one before it, and so are those of users until they have come round some times.
_STEPS, _QUEUED_STEPS = 3.0, 10.0
# Prefill does not wait, so its batches are hardly alike.
_OWN_STEPS = 2.0
# And their standard deviation: one step to double has twice it, if batches vary by less than a fifth.
_SPREADS = 2.0
_MANY_ROUNDS = 8
_MIN_HEAD = 4
# The share of requests that met the fewest others, and of values at one number of others that make its expected value.
_QUIET = 0.1
_ALIKE = 5
# Lengths that change by less than this, or by chance, leave the requests exchangeable.
_LENGTHS_CHANGE, _LENGTHS_Z = math.log(1.1), 1.96
# Advice beyond this factor would rest on the noise of too little.
_LONGEST = 4.0
# Where there is no series at all.
_FEW = 2.0
# A part of the response time below this share hardly changes the whole if it doubles: by less than `_MIN_CHANGE`.
_MATTERS = 0.2
_FIVE = 5
_MIN_FIVES = 4


@dataclass(frozen=True, slots=True)
class SeriesTrend:
    """The trend of a series of batch means; `first` and `last` are the ends of its median line."""

    first: float
    last: float
    z: float  # standard score of the trend, by Mann and Kendall
    t: float  # of the rise, against a random walk

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
    return SeriesTrend(middle - half_rise, middle + half_rise, mann_kendall(series), t)


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


def change_in(logs: Values, *, steps: float) -> tuple[float, float] | None:
    """The values, as logarithms, from and to which a series of batches changed; `None` if it did not.

    A change counts if it exceeds `steps` times the usual step between two batches.
    """
    n = len(logs)
    trend, signs = series_trend(logs), np.sign(logs[None, :] - logs[:, None])
    jumps = np.diff(logs)
    usual = steps * 1.4826 * float(np.median(np.abs(jumps - np.median(jumps))))
    usual = max(usual, _SPREADS * max(1.0, steps / _STEPS) ** 0.5 * float(jumps.std()))
    changes = [(trend.first, trend.last)] if abs(trend.z) > _TREND_Z else []
    for cut in range(n // 5, n - n // 5 + 1):
        z = abs(float(signs[:cut, cut:].sum())) / math.sqrt(cut * (n - cut) * (n + 1) / 3)
        is_head = _MIN_HEAD <= cut <= n // 2 and abs(signs[:cut, cut:].sum()) == cut * (n - cut)
        if is_head or z > _STEP_Z:
            changes.append((float(np.median(logs[:cut])), float(np.median(logs[cut:]))))
    first, last = max(changes, key=lambda change: abs(change[1] - change[0]), default=(0.0, 0.0))
    return (first, last) if abs(last - first) > max(_MIN_CHANGE, usual) else None


@dataclass(frozen=True, slots=True)
class _Series:
    """A figure by batches, as logarithms relative to what explains it; `center` is its usual value."""

    name: str
    unit: str
    center: float
    logs: Values
    steps: float  # of `change_in`
    least: float = 0.0  # a smaller change is not noticed
    less: Values | None = None  # `logs` if what explains them explains more

    def change(self) -> str:
        """How it changed, in words that follow its name; empty if it did not."""
        change = change_in(self.logs, steps=self.steps)
        if change is None:
            return ""
        if self.less is not None:
            other = change_in(self.less, steps=self.steps)
            if other is None or (other[1] > other[0]) != (change[1] > change[0]):
                return ""
        middle = float(np.median(self.logs))
        before, after = (self.center * math.exp(value - middle) for value in change)
        if abs(after - before) <= self.least:
            return ""
        texts = [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in (before, after)]
        return f"went from {texts[0]} to {texts[1]}{self.unit}"

    def lacks(self) -> float:
        """By which factor the level is too short to see the speed halve; at most 1 if it would have been seen."""
        place = np.linspace(0, 1, len(self.logs))
        slower = np.log1p(place), np.where(place < 0.5, 0.0, math.log(2))
        both = (self.logs,) if self.less is None else (self.logs, self.less)
        ways = [order + slow for logs in both for order in (logs, logs[::-1]) for slow in slower]
        if all(change_in(way, steps=self.steps) is not None for way in ways):
            return 1.0
        # The noise falls with the root of the length. A gradual change to double is found in 95 % where it is 0.19.
        noise = float(np.diff(self.logs).std()) / math.sqrt(2)
        return min(_LONGEST, max(1.5, (max(noise / 0.19, self.steps * noise * math.sqrt(2) / math.log(2))) ** 2))


def _series(recording: LevelRecording, load: Load) -> list[_Series]:
    """The series that exist, apart from the requests in flight."""
    timeline, found = recording.timeline, []
    starts = timeline.starts
    tokens, decoding = np.asarray(recording.tokens_by_slice), np.asarray(timeline.decoding)
    slices = min(len(tokens), len(decoding))
    tokens, decoding, context = tokens[:slices], decoding[:slices], np.asarray(timeline.context)[:slices]
    parts = np.array_split(np.array(starts, np.float64), _BATCHES) if len(starts) >= _BATCHES else []

    by_time = np.array([part.mean() for part in np.array_split(tokens, _BATCHES)]) if slices >= _BATCHES else tokens[:0]
    if isinstance(load, Closed) and load.think is None and slices >= _BATCHES and by_time.min() > 0:
        lengths = [np.log([part[:, column].mean() for part in parts]) for column in (2, 3)] if parts else []
        trends = [series_trend(row) for row in lengths if np.isfinite(row).all()]
        if not any(abs(one.z) > _LENGTHS_Z and abs(one.rise) > _LENGTHS_CHANGE for one in trends):
            per_s = by_time * NS_PER_S / recording.slice_ns
            found.append(_Series("output tokens/s", "", float(np.median(per_s)), np.log(per_s), _STEPS))

    # Parts of the window with equally many tokens.
    produced = np.concatenate(([0.0], np.cumsum(tokens)))
    if slices >= _BATCHES and produced[-1] > 0:
        edges = np.interp(np.linspace(0, produced[-1], _BATCHES + 1), produced, np.arange(slices + 1))

        def within(values: Values) -> Values:
            return np.diff(np.interp(edges, np.arange(slices + 1), np.concatenate(([0.0], np.cumsum(values)))))

        spent, made, busy = within(decoding), within(tokens), within(np.minimum(decoding, 1))
        if min(spent.min(), made.min(), busy.min()) > 0:
            logs, less = _unexplained(np.log(spent / made), np.log(spent / busy))
            inputs = within(context)
            if inputs.min() > 0:
                logs, less = (_unexplained(each, np.log(inputs / spent))[0] for each in (logs, less))
            center = float(np.median(spent / made)) * recording.slice_ns / 1e6
            # Batches that share responses are alike: the steps of a moving average of so many independent values are
            # smaller than its spread by the root of their number. Responses present at a moment last longer than the
            # mean.
            took_ns = np.array(timeline.kept["e2e_response"]) - np.array(timeline.kept["ttft_response"])
            lasts = float((took_ns**2).sum() / max(1.0, took_ns.sum())) / recording.slice_ns * _BATCHES / slices
            found.append(_Series("TPOT", " ms", center, logs, _STEPS * math.sqrt(max(1.0, lasts)), less=less))

    rounds = timeline.succeeded / load.users if isinstance(load, Closed) else math.inf
    if parts and rounds >= ROUNDS:
        ttft_ns, met, inputs, _, prefill_ns = np.array(starts, np.float64).T
        by_inputs = np.log(inputs) if np.isfinite(inputs).all() and inputs.min() > 0 else np.zeros(len(inputs))
        logs = _unexplained(np.log(np.maximum(ttft_ns, _MIN_CHANGE_NS)), by_inputs)[0]
        few = np.sort(met)[max(_BATCHES, math.ceil(_QUIET * len(met))) - 1]
        alike = isinstance(load, Closed) and load.think is None  # each meets nearly all others
        quiet = np.flatnonzero((met <= few) | alike)
        logs = logs if alike else logs[quiet] - _expected(met[quiet], logs[quiet])
        batches = _part_means(logs, 0.25, 0.75)  # some first tokens wait for another prompt
        center = float(np.median(ttft_ns[quiet])) / 1e6
        decoded_ns = float(decoding.sum()) * recording.slice_ns / timeline.succeeded
        queued = rounds < _MANY_ROUNDS and met.max() <= few if alike else decoded_ns < ttft_ns[quiet].mean()
        steps = _QUEUED_STEPS if queued else _STEPS
        if not alike:  # waits that overlap are alike
            steps *= max(1.0, ttft_ns[quiet].mean() / recording.window_s / NS_PER_S * _BATCHES)
        found.append(_Series("TTFT", " ms", center, batches, steps, least=_MIN_CHANGE_NS / 1e6))
        own = np.isfinite(prefill_ns)
        if own.sum() >= (_MIN_ARRIVALS if isinstance(load, Open) else _BATCHES):
            prefill_ns, met, by_inputs = prefill_ns[own], met[own], by_inputs[own]
            logs = _unexplained(np.log(np.maximum(prefill_ns, _MIN_CHANGE_NS)), by_inputs)[0]
            explained: Values | None = None
            if alike:
                batches, steps = _part_means(logs, 0.25, 0.75), _OWN_STEPS
            else:  # those that wait for many other prompts come together
                batches, steps = _part_means(logs, 0.0, 0.5), _STEPS
                explained = _part_means(_unexplained(logs, np.log1p(met))[0], 0.0, 0.5)
            center = float(np.median(prefill_ns)) / 1e6
            steps *= max(1.0, prefill_ns.mean() / recording.window_s / NS_PER_S * _BATCHES)
            found.append(_Series("prefill time", " ms", center, batches, steps, _MIN_CHANGE_NS / 1e6, explained))
        if _BATCHES <= rounds < math.inf:
            batches = np.log([part[:, 0].mean() / 1e6 for part in parts])
            center = math.exp(float(np.median(batches)))
            found.append(_Series("TTFT", " ms", center, batches, _STEPS / 2, least=_MIN_CHANGE_NS / 1e6))
    return found


def _part_means(logs: Values, low: float, high: float) -> Values:
    """The mean of each batch between two of its quantiles."""
    batches = [np.sort(batch) for batch in np.array_split(logs, _BATCHES)]
    return np.array([part[int(low * len(part)) : len(part) - int((1 - high) * len(part))].mean() for part in batches])


def _unexplained(logs: Values, by: Values) -> tuple[Values, Values]:
    """What is left of a series if it follows another with its elasticity, from 0 to 1; and with that elasticity plus
    its standard error, the one of a median's rank."""
    steps, by_steps = np.diff(logs), np.diff(by)
    moved = np.abs(by_steps) > 1e-9
    if not moved.any():
        return logs, logs
    slopes, weights = steps[moved] / by_steps[moved], np.abs(by_steps[moved])
    order = np.argsort(slopes)
    reached = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(reached, [0.5, 0.5 + 0.5 / math.sqrt(len(slopes))])
    elasticities = np.clip(slopes[order][np.minimum(places, len(slopes) - 1)], 0.0, 1.0)
    rest, less = (logs - elasticity * by for elasticity in elasticities)
    return rest, less


def _expected(met: Values, logs: Values) -> Values:
    """The logarithm of the mean value at each number of requests met, which does not fall (pool adjacent violators,
    Ayer and others, 1955). Numbers with few values share one mean."""
    order = np.argsort(met, kind="stable")
    levels, pools = met[order], list[list[float]]()
    begin = 0
    ends = np.flatnonzero(np.diff(levels, append=math.inf))
    for end in (ends + 1).tolist():
        if end - begin < _ALIKE and end < len(levels):
            continue
        values = np.exp(logs[order[begin:end]])
        if len(values) < _ALIKE and pools:
            last = pools.pop()
            pools.append([last[0] + float(values.sum()), last[1] + len(values)])
        else:
            pools.append([float(values.sum()), float(len(values))])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] >= pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
        begin = end
    expected: Values = np.empty(len(logs))
    expected[order] = np.log(np.repeat([total / count for total, count in pools], [int(count) for _, count in pools]))
    return expected


@dataclass(frozen=True, slots=True)
class Unjudged:
    """Of which parts of the response time a level would not show a slow-down to half the speed.

    `level` is the caveat of a level where one of them makes up a fifth of the response time, or more.
    """

    ttft: Reason | None = None
    decoding: Reason | None = None
    level: Reason | None = None


class Steadiness:
    """What a level shows about its steadiness; nothing if its rate changes as planned."""

    def __init__(self, recording: LevelRecording, load: Load) -> None:
        self._recording, self._load = recording, load
        self._is_planned = isinstance(load, Open) and load.arrivals.rate_varies
        self._series = [] if self._is_planned else _series(recording, load)
        # What the server showed to change, in words.
        # TTFT is judged in several ways, and where nothing queues, prefill time is TTFT: each figure is named once.
        named: dict[str, str] = {}
        for series in self._series:
            change = series.change()
            if change and not (series.name == "prefill time" and named.get("TTFT") == change):
                named.setdefault(series.name, change)
        self.changes = [f"{name} {change}" for name, change in named.items()]

    @cached_property
    def queue_growth(self) -> SeriesTrend | None:
        """The trend of the requests in flight where they grew in an open loop with a steady rate though the server did
        not change: the rate is above its capacity."""
        in_flight, sent = self._recording.timeline.in_flight, self._recording.arrivals_sent
        if (
            isinstance(self._load, Closed)
            or self._is_planned
            or self.changes
            or sent < _MIN_ARRIVALS
            or len(in_flight) < _BATCHES
        ):
            return None
        queue = series_trend([part.mean() for part in np.array_split(np.asarray(in_flight), _BATCHES)])
        # A server at its limit completes evenly: its completions alone show a growth that is lost in the walk of the
        # arrivals. Such a growth must also be more than the arrivals of a rate below capacity would explain by chance.
        completed = [part.sum() for part in np.array_split(np.asarray(self._recording.answers_by_slice), _BATCHES)]
        spread = float(np.std(completed, ddof=1)) * math.sqrt(_BATCHES)
        exceeds_completions = sum(completed) > 0 and queue.rise > max(
            _COMPLETIONS_T * spread, _ARRIVALS_Z * math.sqrt(sent)
        )
        exceeds = queue.exceeds_random_walk or (queue.z > _TREND_Z and exceeds_completions)
        return queue if exceeds and queue.rise > MIN_QUEUE_GROWTH * sent else None

    def reasons(self) -> Iterator[Reason]:
        """Why the level was not steady; nothing if it was, or cannot be judged."""
        if self.changes:
            by_ttft = self.changes[0].startswith(("TTFT", "prefill"))
            yield Reason(
                "not_steady",
                f"the warm-up was too short or the server changed during the level: {', '.join(self.changes)}",
                _sufficient_warm_up(self._recording, by_ttft=by_ttft)
                or "use a longer --warm-up and --duration; check what changes the server (heat, memory, other load)",
            )
        elif (queue := self.queue_growth) is not None:
            growth = f"requests in flight grew from {max(0.0, queue.first):.0f} to {queue.last:.0f}"
            waits = np.array_split([start.ttft_ns / 1e6 for start in self._recording.timeline.starts], _BATCHES)
            ttft = series_trend([part.mean() for part in waits]) if len(waits[-1]) else None
            if ttft is not None and ttft.z > _TREND_Z:
                grew = f"and TTFT from {max(0.0, ttft.first):.0f} to {ttft.last:.0f} ms"
                yield Reason("not_steady", f"the offered rate is above capacity: {growth}, {grew}", "reduce the rate")
            else:
                yield Reason(
                    "not_steady",
                    f"more requests arrived than completed: {growth}",
                    "the offered rate is above capacity, or the warm-up too short: reduce the rate, or raise --warm-up",
                )

    def unjudged(self) -> Unjudged:
        """What cannot be judged about the level's steadiness, and how long it must be."""
        if self._is_planned:
            return Unjudged()
        recording, load, series = self._recording, self._load, dict[str, float]()
        timeline = recording.timeline
        for one in self._series:
            series[one.name] = min(one.lacks(), series.get(one.name, math.inf))
        speeds = [series[name] for name in ("output tokens/s", "TPOT") if name in series]
        lacking = {"TTFT": series.get("TTFT", _FEW), "the speed of decoding": min(speeds, default=_FEW)}
        # What first tokens wait for follows both speeds.
        lacking["TTFT"] = min(lacking["TTFT"], max(series.get("prefill time", _FEW), lacking["the speed of decoding"]))
        # Where a quarter of the users always wait, a first token waits for others' tokens, and follows their speed.
        waiting = np.asarray(timeline.in_flight[: len(timeline.decoding)]) - np.asarray(timeline.decoding)
        if (
            isinstance(load, Closed)
            and "output tokens/s" in series
            and len(waiting) >= _BATCHES
            and min(part.mean() for part in np.array_split(waiting, _BATCHES)) >= max(1, load.users / 4)
        ):
            lacking["TTFT"] = min(lacking["TTFT"], series["output tokens/s"])

        def reason(*names: str) -> Reason | None:
            names = tuple(name for name in names if lacking[name] > 1)
            if not names:
                return None
            verb = "vary" if len(names) > 1 else "varies"
            why, factor = f"{' and '.join(names)} {verb} so much that half the speed would not show", 1.0
            if rounds < ROUNDS and isinstance(load, Closed):
                why, factor = f"{load.users} users had fewer than {ROUNDS} rounds", ROUNDS / max(rounds, 1e-9)
            factor = max(factor, *(lacking[name] for name in names))
            enough_ns = math.ceil(factor * recording.window_s / 10) * 10 * NS_PER_S
            return Reason(
                "steadiness_unknown",
                f"whether the server was steady cannot be judged: {why}",
                f"use --duration {format_duration(enough_ns)} or longer",
            )

        rounds = recording.outcomes.get(Outcome.OK, 0) / load.users if isinstance(load, Closed) else math.inf
        if rounds < ROUNDS:
            lacking = dict.fromkeys(lacking, _FEW)
        waits, whole = (math.fsum(timeline.kept.get(name, ())) for name in ("ttft_response", "e2e_response"))
        shares = {"TTFT": waits / whole, "the speed of decoding": 1 - waits / whole} if whole else {}
        matters = [name for name in lacking if shares.get(name, 1.0) >= _MATTERS]
        return Unjudged(reason("TTFT"), reason("the speed of decoding"), reason(*matters))


def _sufficient_warm_up(recording: LevelRecording, *, by_ttft: bool) -> str:
    """The advice of a warm-up that would have been enough; empty if TTFT, or TPOT, did not settle in the window's first
    half."""
    timeline = recording.timeline
    of, by = (timeline.ttft_ns, timeline.ttft_count) if by_ttft else (timeline.decoding, recording.tokens_by_slice)
    slices = min(len(of), len(by))
    sums, counts = np.asarray(of[:slices]), np.asarray(by[:slices])
    filled = np.flatnonzero(counts)
    cut = mser5((sums[filled] / counts[filled]).tolist())
    if not cut:
        return ""
    enough_ns = recording.warm_up_ns + int(filled[cut]) * recording.slice_ns
    return f"use --warm-up {format_duration(-(-enough_ns // NS_PER_S) * NS_PER_S)}"
