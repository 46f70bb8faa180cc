"""The charts of a capacity search: the shares that met each objective, the search itself, and the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan.objective import parse_objective
from loadbench.report.capacity import kind_of, side_of
from loadbench.report.document import Chart, Mark, Series

if TYPE_CHECKING:
    from collections.abc import Collection

    from loadbench.results.capacity import Capacity
    from loadbench.results.run import Run

_SIDES = ("PASS", "leans to PASS", "unclear", "leans to FAIL", "FAIL")
# Points of the model that are nearer to each other than one of so many look like a bar.
_MOST_POINTS = 24


def capacity_charts(capacity: Capacity, run: Run | None) -> list[Chart]:
    """Those that the search has data for. `run` has the levels of its probes."""
    if not capacity.probes:
        return []
    users = kind_of(capacity) == "users"
    x = "users" if users else "requests per second"
    return [_shares(capacity, x), _search(capacity, x), *_predictions(capacity, run, x)]


def _shares(capacity: Capacity, x: str) -> Chart:
    """All probes of one load are one point: their requests together."""
    series: list[Series] = []
    needed: dict[float, list[str]] = {}
    for rule in capacity.objectives:
        hits: dict[float, tuple[int, int]] = {}
        ends: dict[float, tuple[int, tuple[float, float]]] = {}
        for probe in capacity.probes:
            share = probe.attainment.get(rule)
            if share is None or not share.requests:
                continue
            needed.setdefault(share.asked, []).append(rule)
            met, of = hits.get(probe.amount, (0, 0))
            hits[probe.amount] = met + share.hits, of + share.requests
            if share.interval is not None and share.requests > ends.get(probe.amount, (0, None))[0]:
                ends[probe.amount] = share.requests, share.interval
        points = [(amount, 100 * met / of) for amount, (met, of) in sorted(hits.items())]
        band = [(amount, 100 * low, 100 * high) for amount, (_, (low, high)) in sorted(ends.items())]
        series.append(Series(rule, points, band))
    return Chart(
        name="objectives",
        title="Requests that met each objective",
        series=series,
        x=x,
        y="% of the requests",
        log_x=False,
        across=[
            Mark(100 * share, f"{100 * share:g} % needed{_whose(dict.fromkeys(rules)) * (len(needed) > 1)}")
            for share, rules in sorted(needed.items())
        ],
        down=_limits(capacity),
        switches="x",
        note="Band: the 95 % interval of the longest probe at each load. Straight lines join the loads that were "
        "measured; they say nothing about the loads between. The objective fails somewhere between a point above the "
        "dashed line and the next one below it: where, is estimated by a curve fitted to all requests.",
    )


def _whose(rules: Collection[str]) -> str:
    """Short, since it stands in a chart that may be narrow."""
    return f": {len(rules)} objectives" if len(rules) > 1 else "".join(f": {rule.split('<')[0]}" for rule in rules)


def _limits(capacity: Capacity) -> list[Mark]:
    answer = capacity.answer
    name = "at least" if capacity.status == "at_least" else "estimate"
    return [] if answer is None or capacity.sees_no_limit else [Mark(answer.amount, f"{name} {answer.amount:g}")]


def _search(capacity: Capacity, x: str) -> Chart:
    """The loads in the order in which they were measured, by what is proven of them or what their requests favour."""
    series = []
    for side in _SIDES:
        points: list[tuple[float, float | None]] = []
        for number, probe in enumerate(capacity.probes, 1):
            # Probes are not joined: each stands for itself.
            points += [(number, probe.amount if side_of(probe) == side else None), (number + 0.5, None)]
        if any(y is not None for _, y in points):
            series.append(Series(side, points))
    answer = capacity.answer
    ends = [] if answer is None else [("likely at least", answer.likely_low), ("likely at most", answer.likely_high)]
    return Chart(
        name="search",
        title="The search, probe by probe",
        series=series,
        x="probe",
        y=x,
        log_x=False,
        across=[Mark(end, f"{name} {end:g}") for name, end in ends if end is not None],
        switches="y",
        legend=True,
        note="Each point is one measurement. The search narrows the range between loads that pass and loads that fail.",
    )


def _predictions(capacity: Capacity, run: Run | None, x: str) -> list[Chart]:
    """What a queueing model predicts of each objective, beside what was measured."""
    think_s = getattr(capacity.answer, "think_s", None) or 0.0
    curves = [] if capacity.prediction is None else capacity.prediction.curves
    curve = next((curve for curve in curves if curve.think_s == think_s), None)
    charts = []
    for number, rule in enumerate(capacity.objectives, 1):
        try:
            objective = parse_objective(rule)
        except BadInput:
            continue
        seconds = objective.is_latency
        scale = 1.0 if seconds else 100.0
        bound = objective.bound / 1e9 if seconds else scale * objective.bound
        measured: dict[float, float] = {}
        for probe in capacity.probes:
            levels = [] if run is None else run.levels[probe.level : probe.level + 1]
            for held in (held for level in levels for held in level.objectives if held.rule == rule):
                if held.value is not None:
                    measured[probe.amount] = scale * held.value
        series = [Series("measured by the probes", sorted(measured.items()))] if measured else []
        predicted = curve is not None and rule in curve.figures
        if curve is not None and predicted:
            figures = [None if figure is None else scale * figure for figure in curve.figures[rule]]
            known: list[tuple[float, float | None]] = []
            for n, value in zip(curve.users, figures, strict=True):
                if not known or n - known[-1][0] >= curve.users[-1] / _MOST_POINTS or n == curve.users[-1]:
                    known.append((float(n), value))
            series.append(Series("predicted by the queueing model", known))
        if series:
            name = objective.rule.split("<")[0].split(">")[0]
            charts.append(
                Chart(
                    name=f"objective-{number}",
                    title=name,
                    series=series,
                    x=x,
                    y=name if seconds else f"{name}, % of the requests",
                    log_x=False,
                    seconds=seconds,
                    across=[Mark(bound, f"objective {rule}")],
                    down=_limits(capacity),
                    switches="xy",
                    note="Straight lines join the loads that were measured; they say nothing about the loads between."
                    + " The model knows only the loads without think time; it is not used for the answer." * predicted,
                )
            )
    return charts
