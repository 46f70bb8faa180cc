"""How one figure went over runs: of those that can be compared with the newest one, at one load.

What may be compared is decided as for two sides (`equal_work`): the same server and model, the same work. A run that is
left out has its reason. Whether two neighbours differ is said only where their intervals do not touch, which is more
careful than a test; `loadbench compare` decides it with both runs' requests.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from loadbench.analyze.compare.equal_work import why_not_the_same
from loadbench.analyze.stats.intervals import share_interval
from loadbench.core.errors import BadInput
from loadbench.plan.objective import FAILURES, LATENCIES, POINTS, RATES
from loadbench.record.outcome import failed_of
from loadbench.results.run import OpenInterval  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult, Run
    from loadbench.results.run_summary import RunSummary

SCHEMA: Final = "loadbench.trend/1"
CAPACITY: Final = "capacity"
_METRIC = re.compile(rf"({'|'.join(LATENCIES)})_({'|'.join(POINTS)})")
KNOWN: Final = f"{', '.join((*RATES, FAILURES, CAPACITY))}, or a latency with a point, as in ttft_p95"


class TrendPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One run: its value in seconds, per second, as a share or as a load, with its 95 % interval (ends may be open).

    `change` is how the value differs from the run before; `~` where the intervals touch, null without two intervals.
    """

    run: str
    started_at: str
    commit: str | None = None
    dirty: bool | None = None
    labels: dict[str, str] = {}
    value: float
    interval: OpenInterval | None = None
    change: Literal["higher", "lower", "~"] | None = None
    verdict: str = ""


class LeftOutRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is not part of the trend, and why."""

    run: str
    reason: str


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """The points from the oldest run to the newest. `at` is the load, `model` the model; `notes` are for the reader."""

    schema: Literal["loadbench.trend/1"] = SCHEMA
    metric: str
    model: str = ""
    at: str = ""
    points: list[TrendPoint] = []
    left_out: list[LeftOutRun] = []
    notes: list[str] = []


def check_metric(metric: str) -> str:
    """The metric; raises `BadInput` for one that does not exist."""
    if metric in {*RATES, FAILURES, CAPACITY} or _METRIC.fullmatch(metric):
        return metric
    hint = f"known are {KNOWN}"
    raise BadInput(f"{metric:.60}: no metric of a level", hint=f"write {metric}_p95" if metric in LATENCIES else hint)


def trend_of(
    runs: Sequence[tuple[RunSummary, Run | None, str]], metric: str, *, at: str | None, model: str, any_server: bool
) -> Trend:
    """The trend over runs, given the newest first, each with its whole result or the reason why there is none.

    `at` is the label of a load; without it, the load of the newest run that most runs have. Raises `BadInput` if no run
    has the metric there.
    """
    left_out = [LeftOutRun(run=summary.run, reason=reason) for summary, run, reason in runs if run is None]
    whole = [(summary, run) for summary, run, _ in runs if run is not None]
    if metric == CAPACITY:
        return _capacities(whole, left_out)
    newest = next((run for _, run in whole if _levels(run, model, at)), None)
    if newest is None:
        where = f" at {at}" if at else ""
        raise BadInput(f"no run that fits has a level{where}", hint="`loadbench runs` lists the runs and their loads")
    model = _levels(newest, model, at)[0].model
    if at is None:
        count = Counter(
            label for _, run in whole for label in {level.load.label for level in _levels(run, model, None)}
        )
        at = max((level.load.label for level in _levels(newest, model, None)), key=lambda label: count[label])
    reference = _levels(newest, model, at)[0]
    points: list[TrendPoint] = []
    for summary, run in whole:
        levels = [level for level in _levels(run, model, at) if level.model == model]
        reason = "" if levels else f"has no level {at} of {model}"
        level = levels[0] if levels else reference
        if levels and (level.verdict.status == "INVALID" or level.interrupted):
            reason = f"{at} is {'INVALID' if level.verdict.status == 'INVALID' else 'cut short'}"
        if not reason and run is not newest:
            reason = why_not_the_same(newest, run, reference, level, metric, any_server=any_server)
        value, interval = _value(level, metric)
        if not reason and value is None:
            reason = f"has no {metric} at {at}"
        if reason or value is None:
            left_out.append(LeftOutRun(run=summary.run, reason=reason))
            continue
        points.append(_point(summary, value, interval, level.verdict.status))
    machines = {str(run.environment.get("host")) for _, run in whole}
    notes = [f"the load generators ran on {len(machines)} machines"] if len(machines) > 1 else []
    return Trend(metric=metric, model=model, at=at, points=_with_changes(points), left_out=left_out, notes=notes)


def _levels(run: Run, model: str, at: str | None) -> list[LevelResult]:
    """The levels of a run that fit: of a model with this in its name, at this load."""
    return [
        level for level in run.levels if model.lower() in level.model.lower() and (at is None or level.load.label == at)
    ]


def _value(level: LevelResult, metric: str) -> tuple[float | None, OpenInterval | None]:
    if metric in RATES:
        return getattr(level.throughput, metric), level.throughput.interval.get(metric)
    if metric == FAILURES:
        failed, requests = failed_of(level.outcomes, level.missed)
        return (failed / requests, share_interval(failed, requests)) if requests else (None, None)
    figure, _, point = metric.rpartition("_")
    measured = level.metrics.get(f"{figure}_s")
    return (None, None) if measured is None else (getattr(measured, point), measured.interval.get(point))


def _capacities(whole: Sequence[tuple[RunSummary, Run]], left_out: list[LeftOutRun]) -> Trend:
    """The answers of capacity searches with the conditions of the newest one."""
    searches = [(summary, run) for summary, run in whole if summary.command == "capacity"]
    left_out += [
        LeftOutRun(run=summary.run, reason="is no capacity search")
        for summary, _ in whole
        if summary.command != "capacity"
    ]
    if not searches:
        raise BadInput("no run that fits is a capacity search", hint="`loadbench runs --command capacity` lists them")
    points: list[TrendPoint] = []
    newest = searches[0][1]
    for summary, run in searches:
        found, reason = next(iter(summary.capacity), None), ""
        amount = None if found is None else found.users if found.users is not None else found.rate_per_s
        if run.conditions != newest.conditions:
            keys = sorted(
                key
                for key in {*run.conditions, *newest.conditions}
                if run.conditions.get(key) != newest.conditions.get(key)
            )
            reason = f"searched under other conditions: {', '.join(keys[:4])}"
        elif found is None or amount is None:
            reason = "has no answer"
        if reason or found is None or amount is None:
            left_out.append(LeftOutRun(run=summary.run, reason=reason))
            continue
        points.append(_point(summary, amount, found.interval, found.strength))
    model = searches[0][0].models[0] if searches[0][0].models else ""
    return Trend(metric=CAPACITY, model=model, points=_with_changes(points), left_out=left_out)


def _point(summary: RunSummary, value: float, interval: OpenInterval | None, verdict: str) -> TrendPoint:
    return TrendPoint(
        run=summary.run,
        started_at=summary.started_at,
        commit=summary.commit,
        dirty=summary.dirty,
        labels=summary.labels,
        value=value,
        interval=interval,
        verdict=verdict,
    )


def _with_changes(newest_first: Sequence[TrendPoint]) -> list[TrendPoint]:
    """The points, the oldest first, each with its change."""
    points: list[TrendPoint] = []
    for point in reversed(newest_first):
        change: Literal["higher", "lower", "~"] | None = None
        if points and points[-1].interval is not None and point.interval is not None:
            (low, high), (low_before, high_before) = point.interval, points[-1].interval
            higher = low is not None and high_before is not None and low > high_before
            lower = high is not None and low_before is not None and high < low_before
            change = "higher" if higher else "lower" if lower else "~"
        points.append(msgspec.structs.replace(point, change=change))
    return points
