"""What a level's objectives come to: which are met, which are missed, and which cannot be told yet.

An objective is met where the 95 % interval of what it names lies wholly on its good side, missed where it lies wholly
on the other, and else undecided: too few requests, or too near the bound. Failed requests, and arrivals that were not
sent, count as infinitely slow. Of a figure that was not seen once nothing can be said: that is a miss, not a pass.

A quantile is decided by the share of values below the bound, counted exactly, and its Clopper-Pearson interval: the
p95 is below 1 s where more than 95 % of requests surely are. Requests that hang together count as so many independent
ones as `loadbench.analyze.stats.effective_n` says. So do values that come many to a request: as many as would make the
spread that
is seen among requests (Korn and Graubard, *Survey Methodology* 24, 1998). A mean has an interval by the central limit
theorem, from 30 requests on. A maximum is a fact about the requests that were measured, and has none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.stats.effective_n import correlated_ranks
from loadbench.analyze.stats.intervals import share_interval
from loadbench.plan.objective import FAILURES
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.histogram import permille_rank
from loadbench.record.outcome import Outcome
from loadbench.results.run import Decided, Goodput, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.record.attainment import Tally
    from loadbench.record.histogram import Histogram
    from loadbench.record.recorder import LevelRecording
    from loadbench.results.run import Decision, Interval, Metric, Throughput

_FEWEST_FOR_A_MEAN = 30
_NORMAL_975 = 1.96


def decide(recording: LevelRecording, throughput: Throughput, metrics: Mapping[str, Metric | None]) -> list[Decided]:
    """Each objective of the level, in the order in which they were given."""
    found = []
    for objective, tally in recording.attained.tallies.items():
        if objective.is_latency:
            per_one = _values_per_one(metrics.get(f"{objective.metric}_s"))
            found.append(_latency(objective, tally, recording, per_one))
        elif objective.metric == FAILURES:
            found.append(_failures(objective, recording))
        else:
            value = float(getattr(throughput, objective.metric))
            found.append(_by_interval(objective, value, throughput.interval.get(objective.metric)))
    return found


def _values_per_one(metric: Metric | None) -> float:
    """How many requests tell as much as one that is independent; 1 where that is not known."""
    return 1.0 if metric is None or not metric.effective else metric.count / metric.effective


def goodput(recording: LevelRecording) -> Goodput | None:
    """`None` where no objective can be asked of a request, or none was measured."""
    attained, window_s = recording.attained, recording.window_s
    arrivals = attained.requests + recording.missed
    if not attained.by_request or not arrivals or window_s <= 0:
        return None
    return Goodput(
        requests_per_s=attained.good / window_s,
        output_tokens_per_s=attained.good_tokens / window_s,
        attainment=attained.good / arrivals,
        attainment_interval=share_interval(attained.good, arrivals),
        good=attained.good,
        arrivals=arrivals,
    )


def with_gates(verdict: Verdict, decided: Sequence[Decided]) -> Verdict:
    """The verdict on a level whose measurement holds, but does not tell whether every gate is passed."""
    open_gates = [one for one in decided if one.gate and one.decision == "UNDECIDED"]
    if verdict.status == "INVALID" or not open_gates:
        return verdict
    rules = ", ".join(one.rule for one in open_gates)
    reason = Reason("undecided", f"it cannot be told whether these gates are passed: {rules}", "measure for longer")
    return Verdict("INCONCLUSIVE", [*verdict.reasons, reason])


def _latency(objective: Objective, tally: Tally, recording: LevelRecording, per_one: float) -> Decided:
    histogram = recording.histograms[objective.metric]
    failures = 0 if objective.metric in MANY_A_REQUEST else _failed(recording)
    if not tally.requests:
        return _decided(objective, "FAIL", None, note=f"no request has a {objective.metric}")
    if objective.point == "mean":
        return _mean(objective, tally, failures, per_one)
    if objective.point == "max":
        return _maximum(objective, tally, histogram, failures)
    return _quantile(objective, tally, histogram, failures, per_one)


def _failed(recording: LevelRecording) -> int:
    """Measured arrivals that had no whole answer."""
    attained = recording.attained
    return attained.requests - recording.outcomes.get(Outcome.OK, 0) + recording.missed


def _failures(objective: Objective, recording: LevelRecording) -> Decided:
    arrivals = recording.attained.requests + recording.missed
    if not arrivals:
        return _decided(objective, "FAIL", None, note="no request was measured")
    failed = _failed(recording)
    return _by_interval(objective, failed / arrivals, share_interval(failed, arrivals))


def _by_interval(objective: Objective, value: float, interval: Interval | None) -> Decided:
    """Decided by where the interval of the value itself lies."""
    if interval is None:
        return _decided(objective, "UNDECIDED", value, note="too little was measured for an interval")
    return _decided(objective, _side(objective, *interval), value, interval=interval)


def _side(objective: Objective, low: float, high: float) -> Decision:
    """The decision on a value that lies between these two."""
    if objective.sense == ">":
        return "PASS" if low > objective.bound else "FAIL" if high <= objective.bound else "UNDECIDED"
    return "PASS" if high < objective.bound else "FAIL" if low >= objective.bound else "UNDECIDED"


def _mean(objective: Objective, tally: Tally, failures: int, per_one: float) -> Decided:
    if failures:
        return _decided(objective, "FAIL", None, note=f"infinite: {failures} failed")
    value, variance = tally.y / tally.m, tally.variance()
    if variance is None or tally.requests < _FEWEST_FOR_A_MEAN:
        note = f"an interval of the mean takes {_FEWEST_FOR_A_MEAN} requests, and there are {tally.requests}"
        return _decided(objective, "UNDECIDED", value / 1e9, note=note)
    reach = _NORMAL_975 * math.sqrt(variance * per_one)
    low, high = value - reach, value + reach
    return _decided(objective, _side(objective, low, high), value / 1e9, interval=(low / 1e9, high / 1e9))


def _maximum(objective: Objective, tally: Tally, histogram: Histogram, failures: int) -> Decided:
    if failures:
        return _decided(objective, "FAIL", None, note=f"infinite: {failures} failed")
    value = histogram.max
    return _decided(objective, "PASS" if tally.y == tally.m else "FAIL", None if value is None else value / 1e9)


def _quantile(objective: Objective, tally: Tally, histogram: Histogram, failures: int, per_one: float) -> Decided:
    share, low, high = _share(tally, failures, per_one)
    p = objective.permille / 1000
    decision: Decision = "PASS" if low >= p else "FAIL" if high < p else "UNDECIDED"
    total = histogram.count + failures
    ranks = None if objective.metric in MANY_A_REQUEST else correlated_ranks(total, p, inefficiency=per_one)
    value = _at_rank(histogram, permille_rank(objective.permille, total))
    note = "" if value is not None else f"infinite: it lies among the {failures} that failed"
    return Decided(
        rule=objective.rule,
        gate=objective.gate,
        decision=decision,
        value=value,
        interval=None if ranks is None else (_at_rank(histogram, ranks[0]), _at_rank(histogram, ranks[1])),
        share=share,
        share_interval=(low, high),
        note=_too_near(p, share, low, high) if decision == "UNDECIDED" else note,
    )


def _share(tally: Tally, failures: int, per_one: float) -> tuple[float, float, float]:
    """The share of values below the bound, and its interval."""
    variance = tally.variance()
    if tally.m == tally.requests:
        # One value a request, and each failure one that is not below.
        hits, total = round(tally.y), tally.requests + failures
        n = max(1, int(total / per_one))
    else:
        hits, total = round(tally.y), tally.m
        share = hits / total
        # Where all requests agree, nothing is known of how many values one is worth: it counts as one.
        n = max(1, int(min(total, share * (1 - share) / variance) if variance else tally.requests))
    low, _ = share_interval(hits * n // total, n)
    _, high = share_interval(-(-hits * n // total), n)
    return hits / total, low, high


def _at_rank(histogram: Histogram, rank: int) -> float | None:
    """In seconds; `None` is infinite: the rank lies among the failures."""
    return histogram.value_at_rank(rank) / 1e9 if rank <= histogram.count else None


def _too_near(p: float, share: float, low: float, high: float) -> str:
    return f"{share:.1%} are within the bound, at 95 % confidence {low:.1%} to {high:.1%}; {100 * p:g}% must be"


def _decided(
    objective: Objective,
    decision: Decision,
    value: float | None,
    *,
    interval: Interval | None = None,
    note: str = "",
) -> Decided:
    if decision == "UNDECIDED" and not note:
        note = "its 95 % interval holds the bound"
    return Decided(
        rule=objective.rule, gate=objective.gate, decision=decision, value=value, interval=interval, note=note
    )
