"""The knee: the load at which throughput stops growing, as a range.

It is the lowest load whose output tokens/s no higher load exceeds by more than 5 %. The levels of one run know their
throughput with an error each, so the knee is given as a range: it lies *above* the highest load that some higher load
clearly exceeds by more than 5 %, and *at or below* the lowest load that clearly no higher one exceeds by that much. An
end that cannot be shown stays open. Ratios are compared on the logarithmic scale, where they are about normal:

- the lower end: a difference of more than 5 % is shown for one of m pairs of loads, at 2.5 % / m each (Bonferroni);
- the upper end: for every higher load a difference of more than 5 % is excluded, at 5 % each. All must be excluded, so
  this is an intersection-union test, and 5 % holds for all of them together (Berger, *Multiparameter hypothesis testing
  and acceptance sampling*, Technometrics 1982).

Only what shows the server's throughput counts. VALID levels do, and OVERLOADED ones: the server was beyond its limit,
and what it produced there is what it can. So do levels that are INCONCLUSIVE for a gate, but not those with too few
responses. Levels of one load are combined.
"""

from __future__ import annotations

import math
from collections import Counter
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from loadbench.analyze.level.overload import amount
from loadbench.results.run import ClosedLoad, OpenLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult

# A smaller gain is not worth more load, and is about the difference between two runs on one machine.
WORTHWHILE = 0.05
_ERROR = 0.05
# One level measured twice on one machine differs by about this much, beyond what varies inside each.
_LEAST_SD = 0.01
# Of a level without an interval nothing is known; it is taken as one of 10 % either way at the least.
_UNKNOWN_SD = 0.1
# Fewer responses say nothing about throughput, whatever their verdict.
_FEWEST_ANSWERS = 4


class Knee(NamedTuple):
    """Throughput stops growing above `low` and at `high` at the latest; `None` where that end cannot be shown.

    `top` is the highest load that was measured; `grows` says that throughput clearly still rises up to it.
    """

    low: ClosedLoad | OpenLoad | None
    high: ClosedLoad | OpenLoad | None
    top: ClosedLoad | OpenLoad
    grows: bool

    @property
    def unit(self) -> str:
        """What the loads are counted in."""
        return "users" if isinstance(self.top, ClosedLoad) else "requests/s"


class _Rate(NamedTuple):
    """The throughput at one load: the logarithm of its output tokens/s, and that one's standard deviation."""

    load: ClosedLoad | OpenLoad
    log: float
    sd: float


def knee(levels: Sequence[LevelResult]) -> Knee | None:
    """Where throughput stops growing; `None` with fewer than two loads that show the server's throughput."""
    rates = _rates(levels)
    if len(rates) < 2:
        return None
    margin, pairs = math.log1p(WORTHWHILE), len(rates) * (len(rates) - 1) // 2
    sure = NormalDist().inv_cdf(1 - _ERROR / 2 / pairs)
    excluded = NormalDist().inv_cdf(1 - _ERROR)
    low = high = None
    for index, rate in enumerate(rates[:-1]):
        gains = [(higher.log - rate.log, math.hypot(higher.sd, rate.sd)) for higher in rates[index + 1 :]]
        if any(gain - sure * sd > margin for gain, sd in gains):
            low, high = rate.load, None
        elif high is None and all(gain + excluded * sd <= margin for gain, sd in gains):
            high = rate.load
    before, last = rates[-2:]
    grows = last.log - before.log > max(margin, excluded * math.hypot(last.sd, before.sd))
    return Knee(low, high, last.load, grows)


def _rates(levels: Sequence[LevelResult]) -> list[_Rate]:
    """The throughput at each load, by load; of loads of several kinds, those of the commonest."""
    sound = [
        level
        for level in levels
        if level.verdict.status != "INVALID"
        and not level.interrupted
        and all(reason.code != "too_few_answers" for reason in level.verdict.reasons)
        and level.outcomes.get("ok", 0) >= _FEWEST_ANSWERS
        and level.throughput.output_tokens_per_s > 0
    ]
    # In a capacity search some levels have think times and others have none.
    kinds = Counter((type(level.load), getattr(level.load, "think", None)) for level in sound)
    if not kinds:
        return []
    ((kind, _),) = kinds.most_common(1)
    by_load: dict[float, list[LevelResult]] = {}
    for level in sound:
        if (type(level.load), getattr(level.load, "think", None)) == kind:
            by_load.setdefault(amount(level.load), []).append(level)
    rates = []
    for _, same in sorted(by_load.items()):
        logs, sds = [], []
        for level in same:
            value, interval = level.throughput.output_tokens_per_s, level.throughput.interval.get("output_tokens_per_s")
            half = None if interval is None or None in interval else (interval[1] - interval[0]) / 2
            sd = _UNKNOWN_SD if half is None else half / value / NormalDist().inv_cdf(0.975)
            logs.append(math.log(value))
            sds.append(math.hypot(sd, _LEAST_SD))
        sd = math.sqrt(sum(one * one for one in sds)) / len(sds)
        spread = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
        rates.append(_Rate(same[0].load, fmean(logs), max(sd, spread)))
    return rates
