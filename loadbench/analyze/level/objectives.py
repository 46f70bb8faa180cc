"""Which objectives (SLOs) of a level are met, which are missed, and which cannot be decided yet.

An objective is met where the 95 % interval of its figure lies wholly on the good side of the bound, missed where it
lies wholly on the bad side, and undecided otherwise: there are too few requests, or the figure is too close to the
bound. Failed requests and arrivals that were not sent count as infinitely slow. An objective whose figure has no value
at all is missed, not met.

A quantile is decided by the share of values below the bound, counted exactly, and its interval: the p95 is below 1 s
where clearly more than 95 % of requests are. The interval is that of Clopper and Pearson for as many values as the
correlated ones are worth, or by the distance from the bound (`loadbench.analyze.stats.hits`, the rule of the capacity
search too). The share of failures and that of the goodput have such an interval as well. A mean has an interval by
Student's t for its effective n, from 20 requests on. A maximum is a fact about the requests that were measured: it has
no interval.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.stats.effective_n import effective_n
from loadbench.analyze.stats.hits import HitSeries, fewest_hits
from loadbench.analyze.stats.intervals import quantile_ranks
from loadbench.analyze.stats.student import quantile
from loadbench.core.units import NS_PER_S
from loadbench.plan.load import users_of
from loadbench.plan.objective import FAILURES
from loadbench.record.attainment import UNTIL_FIRST, Tally
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.histogram import permille_rank
from loadbench.record.outcome import Outcome, failed_of
from loadbench.results.run import Goodput, ObjectiveResult, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.analyze.level.steady import Unjudged
    from loadbench.plan.load import Load
    from loadbench.plan.objective import Objective
    from loadbench.record.histogram import Histogram
    from loadbench.record.recorder import LevelRecording
    from loadbench.results.run import Decision, Interval, Throughput

# The figures of the time between the first and the last token.
_DECODING = frozenset({"tpot", "tpot_classic", *MANY_A_REQUEST})
# A share that only so many times as many requests would decide is too near to its bound to say how many.
_MOST_TIMES = 10
# As many as a level of the default length has.
_MIN_FOR_A_MEAN = 20


def decide(recording: LevelRecording, throughput: Throughput, load: Load) -> list[ObjectiveResult]:
    """Decide each objective of the level, in the order in which they were given."""
    attained, users = recording.attained, users_of(load)
    gave_up = recording.outcomes.get(Outcome.GAVE_UP, 0)
    failed, ended = failed_of(recording.outcomes, recording.missed)
    decided = []
    for objective, tally in attained.tallies.items():
        if objective.is_latency:
            failures = 0 if objective.metric in MANY_A_REQUEST else failed
            histogram, others = recording.histograms[objective.metric], attained.others[objective]
            requests = HitSeries(attained.kept[objective], users)
            if not others.gave_up:  # nobody left without the figure: that of each request is known
                decided.append(_latency(objective, tally.plus(others), histogram, failures, requests))
            elif tally.requests:
                failures = max(0, failures - others.failed)
                decided.append(_latency(objective, tally, histogram, failures, requests))
            else:
                decided.append(_of_impatient_users(objective, others, histogram, failures, requests))
        elif objective.metric != FAILURES:
            value = float(getattr(throughput, objective.metric))
            decided.append(_by_interval(objective, value, throughput.interval.get(objective.metric)))
        elif ended:
            requests = HitSeries(attained.kept[objective], users)
            low, high = requests.interval(ended - failed, ended, 1 - objective.bound)
            result = _by_interval(objective, failed / ended, (1 - high, 1 - low))
            if not failed and result.decision == "UNDECIDED":
                needed = fewest_hits(1 - objective.bound)
                note = f"none of {ended} requests failed; {needed} without a failure would decide it"
                result = msgspec.structs.replace(result, note=note)
            decided.append(result)
        elif gave_up:
            decided.append(_decided(objective, "UNDECIDED", None, note="every user gave up"))
        else:
            decided.append(_decided(objective, "FAIL", None, note="no request was measured"))
    return decided


def goodput(recording: LevelRecording, load: Load) -> Goodput | None:
    """`None` where no objective applies to single requests, or none was measured."""
    attained, window_s = recording.attained, recording.window_s
    arrivals = attained.requests + recording.missed
    if not attained.by_request or not arrivals or window_s <= 0:
        return None
    requests = HitSeries(attained.kept_good, users_of(load))
    return Goodput(
        requests_per_s=attained.good / window_s,
        output_tokens_per_s=attained.good_tokens / window_s,
        attainment=attained.good / arrivals,
        attainment_interval=requests.interval(attained.good, arrivals, 0.5),
        good=attained.good,
        arrivals=arrivals,
    )


def with_gates(
    verdict: Verdict, objectives: Iterable[Objective], decided: Sequence[ObjectiveResult], unknown: Unjudged
) -> Verdict:
    """The verdict, turned INCONCLUSIVE where a sound measurement leaves a gate undecided.

    What passes in a level whose steadiness cannot be judged may fail a minute later: the objective keeps its decision,
    its gate has none. This concerns gates on what could not be judged, and only those that a slow-down to half the
    speed could have made fail. What fails there has failed.
    """
    open_gates = [objective.rule for objective in decided if objective.gate and objective.decision == "UNDECIDED"]
    passed = dict[str, Reason]()
    for objective, result in zip(objectives, decided, strict=True):
        metric, sense = objective.metric, objective.sense
        cause = unknown.ttft if metric in UNTIL_FIRST else unknown.decoding if metric in _DECODING else unknown.level
        if not result.gate or result.decision != "PASS" or cause is None or metric == FAILURES:
            continue
        # Its value, or the worse end of its interval, if the server had been half as fast.
        worse = (result.interval or (None, None))[sense == "<"]
        value = result.value if worse is None else worse
        bound = objective.bound / (NS_PER_S if objective.is_latency else 1)
        if value is None or (value * 2 >= bound if sense == "<" else value / 2 <= bound):
            passed[objective.rule] = cause
    if not verdict.usable or not (open_gates or passed):
        return verdict
    reasons = list(verdict.reasons)
    if open_gates:
        message = f"too little was measured to decide these gates: {', '.join(open_gates)}"
        reasons.append(Reason("undecided", message, "measure longer"))
    for cause in dict.fromkeys(passed.values()):
        rules = ", ".join(rule for rule, its in passed.items() if its == cause)
        reasons.append(Reason("undecided", f"these gates would pass, but {cause.message}: {rules}", cause.advice))
    return Verdict("INCONCLUSIVE", reasons)


def _of_impatient_users(
    objective: Objective, others: Tally, histogram: Histogram, failures: int, requests: HitSeries
) -> ObjectiveResult:
    """Where nobody would have waited as long as the bound, a quantile is met if it is even with all who left missing
    it; all else is undecided."""
    left = others.gave_up
    if objective.point != "mean" and objective.metric not in MANY_A_REQUEST:
        at_worst = others.plus(Tally(requests=left, m=left, mm=left))
        result = _latency(objective, at_worst, histogram, failures, requests)
        if result.decision == "PASS":
            return result
    note = f"nobody would have waited long enough: {left} of {others.requests + left} gave up, and might have met it"
    return _decided(objective, "UNDECIDED", None, note=note)


def _latency(
    objective: Objective, tally: Tally, histogram: Histogram, failures: int, requests: HitSeries
) -> ObjectiveResult:
    if not tally.requests:
        return _decided(objective, "FAIL", None, note=f"no request has a {objective.metric}")
    if objective.point not in {"mean", "max"}:
        return _quantile(objective, tally, histogram, failures, requests)
    if failures or tally.gave_up:
        gave_up = f"{tally.gave_up} gave up" if tally.gave_up else ""
        note = " and ".join(filter(None, (f"{failures} failed" if failures else "", gave_up)))
        return _decided(objective, "FAIL", None, note=f"infinite: {note}")
    if objective.point == "max":
        value_s = None if histogram.max is None else histogram.max / 1e9
        return _decided(objective, "PASS" if tally.y == tally.m else "FAIL", value_s)

    mean, variance = tally.y / tally.m, tally.variance()
    if variance is None or tally.requests < _MIN_FOR_A_MEAN:
        note = f"the interval of a mean needs {_MIN_FOR_A_MEAN} requests, but there are only {tally.requests}"
        return _decided(objective, "UNDECIDED", mean / 1e9, note=note)
    over = requests.kept.rows[:, 2]
    effective = effective_n(over, round_size=requests.users or 1)
    variance = max(variance * len(over) / effective, requests.variance_by_batches())
    reach = quantile(0.975, max(1.0, effective - 1)) * math.sqrt(variance)
    low, high = mean - reach, mean + reach
    return _decided(objective, _side(objective, low, high), mean / 1e9, interval=(low / 1e9, high / 1e9))


def _quantile(
    objective: Objective, tally: Tally, histogram: Histogram, failures: int, requests: HitSeries
) -> ObjectiveResult:
    # Each failure is a value above the bound.
    hits, values, p = round(tally.y), tally.m + failures, objective.permille / 1000
    share = hits / values
    low, high = requests.interval(hits, values, p, by_distance=True)
    decision: Decision = "PASS" if low >= p else "FAIL" if high < p else "UNDECIDED"

    # The quantile itself, over successes and failures.
    total = histogram.count + failures + tally.gave_up
    interval: tuple[float | None, float | None] | None = None
    if total and objective.metric not in MANY_A_REQUEST:
        n = requests.effective(total, p)
        first, last = quantile_ranks(n, p)
        # An end that does not exist is open: 0, or infinite.
        interval = (
            0.0 if first is None else _at_rank(histogram, (first - 1) * total // n + 1),
            None if last is None else _at_rank(histogram, -(-last * total // n)),
        )
    # With nobody's response complete, the first tokens are known, and have no histogram.
    value = _at_rank(histogram, permille_rank(objective.permille, total)) if total else None
    gave_up = f" or were given up ({tally.gave_up})" if tally.gave_up else ""
    note = f"infinite: {failures + tally.gave_up} requests failed{gave_up}, too many for this percentile to exist"
    note = note if value is None and total else ""
    if decision == "UNDECIDED":
        unit = "values" if objective.metric in MANY_A_REQUEST else "requests"
        surely = f"95 % interval {100 * low:.3g} % to {100 * high:.3g} %"
        note = f"{100 * share:.3g} % of {unit} met it, {surely}; at least {100 * p:g} % must"
        if hits == values and unit == "requests":
            needed, known = requests.needed(p), requests.effective(values, p)
            dependent = known < min(needed, values)
            note += f"; {needed}{' independent ones' * dependent} without a miss would decide it"
            note += f", and these {values} count as {known}" if dependent else ""
        elif share != p:
            # Intervals become narrower with the root of the number.
            times = (((share - low) if share > p else (high - share)) / (share - p)) ** 2
            size = 10 ** max(0, len(str(math.ceil(values * times))) - 2)
            needed = math.ceil(values * times / size) * size
            note += f"; about {needed:,} would decide it if the share stays the same" if times <= _MOST_TIMES else ""
    return ObjectiveResult(
        rule=objective.rule,
        gate=objective.gate,
        decision=decision,
        value=value,
        interval=interval,
        share=share,
        share_interval=(low, high),
        note=note,
    )


def _at_rank(histogram: Histogram, rank: int) -> float | None:
    """In seconds; `None` is infinite: the rank lies among the failures."""
    return histogram.value_at_rank(rank) / 1e9 if rank <= histogram.count else None


def _by_interval(objective: Objective, value: float, interval: Interval | None) -> ObjectiveResult:
    if interval is None:
        return _decided(objective, "UNDECIDED", value, note="too little was measured for an interval")
    return _decided(objective, _side(objective, *interval), value, interval=interval)


def _side(objective: Objective, low: float, high: float) -> Decision:
    """The decision by the interval from `low` to `high`."""
    if objective.sense == ">":
        return "PASS" if low > objective.bound else "FAIL" if high <= objective.bound else "UNDECIDED"
    return "PASS" if high < objective.bound else "FAIL" if low >= objective.bound else "UNDECIDED"


def _decided(
    objective: Objective, decision: Decision, value: float | None, *, interval: Interval | None = None, note: str = ""
) -> ObjectiveResult:
    if decision == "UNDECIDED" and not note:
        note = "the bound lies inside the 95 % interval"
    return ObjectiveResult(
        rule=objective.rule, gate=objective.gate, decision=decision, value=value, interval=interval, note=note
    )
